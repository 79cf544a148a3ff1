"""What an erasure does to the tables, in one transaction: keys destroyed, rows deleted or reduced, the receipt written.

Deleted is what is nobody's any more; reduced is what the books or a proof still need, less everything that was sealed.
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

ERASED = "the person has been erased"
AT_ONCE = 1000  # values of one condition; SQLite takes some thousands


@dataclass(frozen=True, slots=True)
class ErasureSubject:
    """Whose keys and rows are meant. `id` is the customer's, or that of a subscription of nobody we know."""

    id: str
    labels: tuple[str, ...]
    subscriptions: tuple[str, ...]

    @classmethod
    def of(cls, session: Session, id: str) -> "ErasureSubject":
        if session.get(Customer, id) is None:
            return cls(id, (id,), (id,))
        rows = accounts.subscriptions_of(session, id)
        labels = dict.fromkeys([id, *accounts.key_ids_of(session, id), *_references(session, rows)])
        return cls(id, tuple(labels), tuple(row.id for row in rows))

    @classmethod
    def erased(cls, session: Session, id: str, labels: Sequence[str]) -> "ErasureSubject":
        """Who was erased, by the labels of then: a subscription begun since is not of that time."""
        theirs = session.execute(select(Subscription.id).where(Subscription.id.in_(labels))).scalars()
        return cls(id, tuple(labels), tuple(theirs))


@dataclass(frozen=True, slots=True)
class ErasureReason:
    """Why a person is erased, and what was told outside: stands in the receipt."""

    basis: str  # "request <id>", "retention"
    cancelled: Sequence[str] = ()  # subscriptions that we cancelled at PayPal
    product: str = "there is none to tell"


def erase_rows(
    session: Session,
    keyring: Keyring,
    person: ErasureSubject,
    grounds: ErasureReason,
    now: datetime,
    *,
    id: str,
    country: str,
) -> Erasure:
    """Erase a person, in the caller's transaction. The row that is returned is the receipt."""
    keys = keyring.destroy(person.labels)
    rows = strip_rows(session, person, now)
    receipt = {
        "basis": grounds.basis,
        "cancelled at PayPal": list(grounds.cancelled),
        "product": grounds.product,
        "keys destroyed": keys,
        "rows": rows | _kept(session, person, country),
    }
    erasure = Erasure(
        id=id,
        customer_id=person.id[:40],
        key_ids=list(person.labels),
        at=now,
        receipt=receipt,
        master_key_id=keyring.master_id,
        completed_at=None,
    )
    session.add(erasure)
    session.flush()
    return erasure


def strip_rows(session: Session, person: ErasureSubject, now: datetime) -> dict[str, Any]:
    """Delete what is theirs alone, and take everything sealed out of the rest. Doing it again does no harm."""
    theirs = _Theirs(person)
    session.execute(
        update(Customer)
        .where(Customer.id == person.id)
        .values(
            personal_data=None,
            email_hash=None,
            wants_marketing=False,
            wants_service_mail=False,
            erase_at=None,
            erased_at=now,
        )
        .execution_options(synchronize_session="fetch")
    )
    session.execute(_withheld().where(theirs.of_mail(), Mail.state.in_(("queued", "sending", "doubt"))))
    deleted: list[tuple[type[Base], Delete]] = [
        (
            InboundMail,
            delete(InboundMail).where(or_(theirs.of(InboundMail.key_id), InboundMail.customer_id == person.id)),
        ),
        (Link, delete(Link).where(Link.customer_id == person.id)),
        (PaypalLookup, delete(PaypalLookup).where(PaypalLookup.id.in_(person.subscriptions))),
    ]
    reduced: list[tuple[type[Base], Update]] = [
        (Event, _cleaned().where(or_(theirs.of(Event.key_id), Event.customer_id == person.id))),
        (Mail, _emptied().where(theirs.of_mail())),
        (Subscription, _unnamed().where(Subscription.id.in_(person.subscriptions))),
        (
            PrivacyRequest,
            update(PrivacyRequest)
            .values(details=None)
            .where(or_(theirs.of(PrivacyRequest.key_id), PrivacyRequest.customer_id == person.id)),
        ),
    ]
    counts = {table.__tablename__: _done(session, table, how, "deleted") for table, how in deleted}
    return counts | {table.__tablename__: _done(session, table, how, "reduced") for table, how in reduced}


class _Theirs:
    """Conditions that find a person's rows."""

    def __init__(self, person: ErasureSubject) -> None:
        self._person = person

    def of(self, column: InstrumentedAttribute[str]) -> ColumnElement[bool]:
        labels = self._person.labels
        parts = [labels[start : start + AT_ONCE] for start in range(0, len(labels), AT_ONCE)]
        return or_(*(column.in_(part) for part in parts))

    def of_mail(self) -> ColumnElement[bool]:
        by_subscription = Mail.subscription_id.in_(self._person.subscriptions)
        return or_(self.of(Mail.key_id), by_subscription, Mail.customer_id == self._person.id)


def _cleaned() -> Update:
    # The reason goes too: it may be PayPal's or the database's words.
    return update(Event).values(personal_data=None, body=None, reason=None)


def _withheld() -> Update:
    return update(Mail).values(state="withheld", due_at=None, claimed_by=None)


def _emptied() -> Update:
    # The relay's answer may quote the address.
    return update(Mail).values(facts=None, recipient=None, frozen=None, relay_reply=None, reason=ERASED)


def _unnamed() -> Update:
    return update(Subscription).values(personal_data=None, email_hash=None)


def _done(session: Session, table: type[Base], how: Delete | Update, action: str) -> dict[str, Any]:
    column = inspect(table).primary_key[0]
    result = session.execute(how.returning(column).execution_options(synchronize_session=False))
    return {"rows": len(result.all()), "action": action}


def _kept(session: Session, person: ErasureSubject, country: str) -> dict[str, Any]:
    """What stays, restricted, with the reason and until when."""
    hold = retention_period_for(country)
    of_them = Payment.subscription_id.in_(person.subscriptions)
    payments = session.execute(select(func.count(Payment.id), func.max(Payment.occurred_at)).where(of_them)).one()
    refunds = select(func.count()).select_from(Refund).join(Payment, Payment.id == Refund.payment_id).where(of_them)
    changes = (
        select(func.count())
        .select_from(StatusHistoryEntry)
        .where(StatusHistoryEntry.subscription_id.in_(person.subscriptions))
    )
    consents = select(func.count()).select_from(Consent).where(Consent.customer_id == person.id)
    until = format_time(kept_until(payments[1], country)) if payments[1] else None
    return {
        "payment": _stays(payments[0], hold.law, until),
        "refund": _stays(session.execute(refunds).scalar_one(), hold.law, until),
        "status_history": _stays(session.execute(changes).scalar_one(), hold.law, until),
        "consent": _stays(session.execute(consents).scalar_one(), f"proof, {hold.consent_years} years", None),
    }


def _stays(rows: int, basis: str, until: str | None) -> dict[str, Any]:
    return {"rows": rows, "action": "kept, restricted", "basis": basis, "until": until}


def _references(session: Session, rows: Sequence[Subscription]) -> list[str]:
    """The keyed hashes by which later events would name the person; not where one is another customer's id."""
    named = {lww_map.value(row.known, ref) for row in rows for ref in ("custom_ref", "payer_ref")} - {None}
    others = set(session.execute(select(Customer.id).where(Customer.id.in_(named))).scalars())
    return sorted(named - others)


def replay_erasures(session: Session, keyring: Keyring, erasures: Sequence[Mapping[str, Any]]) -> int:
    """Erase once more whom a restored database brought back, from `told` of their erasures. How many were not there.

    The keys come from a file of their own, which may be older than an erasure that the database knows of.
    """
    known = set(session.execute(select(Erasure.id)).scalars())
    for row in erasures:
        at = parse_time(row["at"]) or keyring.now
        if row["id"] in known:
            keyring.destroy(_older(session, row["labels"], at))
            continue
        keyring.destroy(row["labels"])
        strip_rows(session, ErasureSubject.erased(session, row["customer_id"], row["labels"]), at)
        # Of what master key the restored keys are is known no more: the present one has to go, too.
        new = {name: row[name] for name in ("id", "customer_id", "receipt")}
        session.add(Erasure(**new, key_ids=row["labels"], at=at, master_key_id=keyring.master_id, completed_at=None))
    session.flush()
    return len({row["id"] for row in erasures} - known)


def _older(session: Session, labels: Sequence[str], at: datetime) -> list[str]:
    """These, less those with a key of that moment or later: who came back since, and what confirms the erasure."""
    younger = select(EncryptionKey.key_id).where(
        EncryptionKey.key_id.in_(labels), EncryptionKey.wrapped_key.is_not(None), EncryptionKey.created_at >= at
    )
    kept = set(session.execute(younger).scalars())
    return [label for label in labels if label not in kept]


def replay_record(row: Erasure) -> dict[str, Any]:
    """What has to be known of an erasure to play it again. Names nobody."""
    return {
        "id": row.id,
        "customer_id": row.customer_id,
        "labels": row.key_ids,
        "at": format_time(row.at),
        "receipt": row.receipt,
    }
