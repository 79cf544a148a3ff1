"""The database part of an erasure, in one transaction: destroy keys, delete or reduce rows, write the receipt.

Rows that only concern the customer are deleted. Rows that accounting or a proof still needs are reduced: their encrypted
columns are cleared.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Delete, Update, delete, func, inspect, or_, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from pipeline.clock import format_time, parse_time
from pipeline.crypto.keyring import Keyring
from pipeline.customers import accounts
from pipeline.db import lww_map
from pipeline.db.models import (
    Base,
    Consent,
    Customer,
    EncryptionKey,
    Erasure,
    Event,
    InboundMail,
    Link,
    Mail,
    Payment,
    PaypalLookup,
    PrivacyRequest,
    Refund,
    StatusHistoryEntry,
    Subscription,
)
from pipeline.privacy.retention.legal_holds import kept_until, retention_period_for

ERASED = "the customer's data has been erased"  # reason of the cleared mails
MAX_VALUES = 1000  # values in one IN condition; SQLite limits the number of parameters


@dataclass(frozen=True, slots=True)
class ErasureSubject:
    """The key ids and subscriptions to erase. `id` is a customer's, or a subscription's that has no customer."""

    id: str
    key_ids: tuple[str, ...]
    subscriptions: tuple[str, ...]

    @classmethod
    def of(cls, session: Session, id: str) -> "ErasureSubject":
        """Return the subject for this customer, or for this subscription without a customer."""
        if session.get(Customer, id) is None:
            return cls(id, (id,), (id,))
        rows = accounts.subscriptions_of(session, id)
        key_ids = dict.fromkeys([id, *accounts.key_ids_of(session, id), *_references(session, rows)])
        return cls(id, tuple(key_ids), tuple(row.id for row in rows))

    @classmethod
    def erased(cls, session: Session, id: str, key_ids: Sequence[str]) -> "ErasureSubject":
        """Return the subject of an earlier erasure from its key ids; later subscriptions are not included."""
        subscriptions = session.execute(select(Subscription.id).where(Subscription.id.in_(key_ids))).scalars()
        return cls(id, tuple(key_ids), tuple(subscriptions))


@dataclass(frozen=True, slots=True)
class ErasureReason:
    """The reason of an erasure, and the results at PayPal and the product; stored in the receipt."""

    basis: str  # "request <id>", "retention"
    cancelled: Sequence[str] = ()  # ids of subscriptions that were cancelled at PayPal
    product: str = "not configured"


def erase_rows(
    session: Session,
    keyring: Keyring,
    person: ErasureSubject,
    reason: ErasureReason,
    now: datetime,
    *,
    id: str,
    country: str,
) -> Erasure:
    """Erase the subject in the caller's transaction. The returned row contains the receipt."""
    keys = keyring.destroy(person.key_ids)
    rows = strip_rows(session, person, now)
    receipt = {
        "basis": reason.basis,
        "cancelled at PayPal": list(reason.cancelled),
        "product": reason.product,
        "keys destroyed": keys,
        "rows": rows | _count_kept(session, person, country),
    }
    erasure = Erasure(
        id=id,
        customer_id=person.id[:40],
        key_ids=list(person.key_ids),
        at=now,
        receipt=receipt,
        master_key_id=keyring.master_id,
        completed_at=None,
    )
    session.add(erasure)
    session.flush()
    return erasure


def strip_rows(session: Session, person: ErasureSubject, now: datetime) -> dict[str, Any]:
    """Delete rows that only concern the subject, and clear encrypted columns in the others. Can be repeated."""
    owned = _OwnedRows(person)
    session.execute(
        update(Customer)
        .where(or_(Customer.id == person.id, Customer.merged_into == person.id))
        .values(
            personal_data=None,
            email_hash=None,
            wants_marketing=False,
            wants_service_mail=False,
            erase_at=None,
            email_change_at=None,
            erased_at=now,
        )
        .execution_options(synchronize_session="fetch")
    )
    session.execute(_withhold_mail().where(owned.of_mail(), Mail.state.in_(("queued", "sending", "doubt"))))
    deleted: list[tuple[type[Base], Delete]] = [
        (
            InboundMail,
            delete(InboundMail).where(or_(owned.of(InboundMail.key_id), InboundMail.customer_id == person.id)),
        ),
        (Link, delete(Link).where(owned.of(Link.customer_id))),
        (PaypalLookup, delete(PaypalLookup).where(PaypalLookup.id.in_(person.subscriptions))),
    ]
    reduced: list[tuple[type[Base], Update]] = [
        (Event, _clear_event().where(owned.of(Event.key_id))),
        (Mail, _clear_mail().where(owned.of_mail())),
        (Subscription, _clear_subscription().where(Subscription.id.in_(person.subscriptions))),
        (
            PrivacyRequest,
            update(PrivacyRequest)
            .values(details=None)
            .where(or_(owned.of(PrivacyRequest.key_id), PrivacyRequest.customer_id == person.id)),
        ),
    ]
    counts = {table.__tablename__: _execute(session, table, statement, "deleted") for table, statement in deleted}
    return counts | {
        table.__tablename__: _execute(session, table, statement, "reduced") for table, statement in reduced
    }


class _OwnedRows:
    """Conditions that select the rows of a subject."""

    def __init__(self, person: ErasureSubject) -> None:
        self._person = person

    def of(self, column: InstrumentedAttribute[str]) -> ColumnElement[bool]:
        key_ids = self._person.key_ids
        parts = [key_ids[start : start + MAX_VALUES] for start in range(0, len(key_ids), MAX_VALUES)]
        return or_(*(column.in_(part) for part in parts))

    def of_mail(self) -> ColumnElement[bool]:
        by_subscription = Mail.subscription_id.in_(self._person.subscriptions)
        return or_(self.of(Mail.key_id), by_subscription, Mail.customer_id == self._person.id)


def _clear_event() -> Update:
    # The reason may quote PayPal or the database, so it is cleared too.
    return update(Event).values(personal_data=None, body=None, reason=None)


def _withhold_mail() -> Update:
    return update(Mail).values(state="withheld", due_at=None, claimed_by=None)


def _clear_mail() -> Update:
    # The relay's answer may quote the address.
    return update(Mail).values(facts=None, recipient=None, frozen=None, relay_reply=None, reason=ERASED)


def _clear_subscription() -> Update:
    return update(Subscription).values(personal_data=None, email_hash=None)


def _execute(session: Session, table: type[Base], statement: Delete | Update, action: str) -> dict[str, Any]:
    column = inspect(table).primary_key[0]
    result = session.execute(statement.returning(column).execution_options(synchronize_session=False))
    return {"rows": len(result.all()), "action": action}


def _count_kept(session: Session, person: ErasureSubject, country: str) -> dict[str, Any]:
    """Return the rows that are kept restricted, by table, with the legal basis and the end of the period."""
    hold = retention_period_for(country)
    owned = Payment.subscription_id.in_(person.subscriptions)
    payments = session.execute(select(func.count(Payment.id), func.max(Payment.occurred_at)).where(owned)).one()
    refunds = select(func.count()).select_from(Refund).join(Payment, Payment.id == Refund.payment_id).where(owned)
    changes = (
        select(func.count())
        .select_from(StatusHistoryEntry)
        .where(StatusHistoryEntry.subscription_id.in_(person.subscriptions))
    )
    consents = select(func.count()).select_from(Consent).where(Consent.customer_id == person.id)
    until = format_time(kept_until(payments[1], country)) if payments[1] else None
    return {
        "payment": _kept_rows(payments[0], hold.law, until),
        "refund": _kept_rows(session.execute(refunds).scalar_one(), hold.law, until),
        "status_history": _kept_rows(session.execute(changes).scalar_one(), hold.law, until),
        "consent": _kept_rows(session.execute(consents).scalar_one(), f"proof, {hold.consent_years} years", None),
    }


def _kept_rows(rows: int, basis: str, until: str | None) -> dict[str, Any]:
    return {"rows": rows, "action": "kept, restricted", "basis": basis, "until": until}


def _references(session: Session, rows: Sequence[Subscription]) -> list[str]:
    """Return the keyed hashes by which later events name the customer, except ids of other customers."""
    named = {lww_map.value(row.known, ref) for row in rows for ref in ("custom_ref", "payer_ref")} - {None}
    others = set(session.execute(select(Customer.id).where(Customer.id.in_(named))).scalars())
    return sorted(named - others)


def replay_erasures(session: Session, keyring: Keyring, erasures: Sequence[Mapping[str, Any]]) -> int:
    """Repeat erasures after a restore, from `replay_record` of each. Return how many the database did not contain.

    For the others the keys are destroyed again, because the restored key file may be older than the database.
    """
    known = set(session.execute(select(Erasure.id)).scalars())
    for row in erasures:
        at = parse_time(row["at"]) or keyring.now
        if row["id"] in known:
            keyring.destroy(_keys_before(session, row["labels"], at))
            continue
        keyring.destroy(row["labels"])
        strip_rows(session, ErasureSubject.erased(session, row["customer_id"], row["labels"]), at)
        # The master key of the restored keys is unknown, so the current one must be replaced as well.
        new = {name: row[name] for name in ("id", "customer_id", "receipt")}
        session.add(Erasure(**new, key_ids=row["labels"], at=at, master_key_id=keyring.master_id, completed_at=None))
    session.flush()
    return len({row["id"] for row in erasures} - known)


def _keys_before(session: Session, key_ids: Sequence[str], at: datetime) -> list[str]:
    """Return the key ids without keys created at or after `at`: those belong to new data or to the confirmation mail."""
    newer = select(EncryptionKey.key_id).where(
        EncryptionKey.key_id.in_(key_ids), EncryptionKey.wrapped_key.is_not(None), EncryptionKey.created_at >= at
    )
    kept = set(session.execute(newer).scalars())
    return [key_id for key_id in key_ids if key_id not in kept]


def replay_record(row: Erasure) -> dict[str, Any]:
    """Return the data needed to repeat an erasure. Contains no personal data."""
    return {
        "id": row.id,
        "customer_id": row.customer_id,
        "labels": row.key_ids,
        "at": format_time(row.at),
        "receipt": row.receipt,
    }
