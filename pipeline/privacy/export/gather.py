"""What we hold about one person, from every table that holds any of it, opened and in plain JSON."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import inspect, select
from sqlalchemy.orm import Session

from pipeline.clock import format_time
from pipeline.crypto.keyring import DataKey, Keyring
from pipeline.customers import accounts, links
from pipeline.db.models import (
    Base,
    Consent,
    Customer,
    Event,
    InboundMail,
    Link,
    Mail,
    Payment,
    Plan,
    PrivacyRequest,
    ReadAudit,
    Refund,
    StatusHistoryEntry,
    Subscription,
)

Json = dict[str, Any]

# Sealed columns that hold JSON; the other sealed ones are whole mails and bodies.
SEALED_JSON = {
    "customer.personal_data", "subscription.personal_data", "event.personal_data",
    "mail.facts", "privacy_request.details", "link.details",
}  # fmt: skip
# The machine's own, and say nothing about a person: hashes of what stands beside them, and who holds a lock.
LEFT_OUT = {"email_hash", "sha256", "claimed_by", "body_sha256", "content_sha256"}


@dataclass(slots=True)
class Gathered:
    """`data` for data.json, `files` beside it."""

    data: Json
    files: dict[str, bytes] = field(default_factory=dict)


def gather(session: Session, keyring: Keyring, customer_id: str) -> Gathered:
    """Everything of this person. Raises NoSuchCustomer."""
    return _Gatherer(session, keyring, accounts.require_customer(session, customer_id, lock=False)).all()


class _Gatherer:
    def __init__(self, session: Session, keyring: Keyring, customer: Customer) -> None:
        self._session, self._customer = session, customer
        self._labels = accounts.key_ids_of(session, customer.id)
        self._seals = keyring.load(self._labels, create=False)
        self._files: dict[str, bytes] = {}

    def all(self) -> Gathered:
        subscriptions = accounts.subscriptions_of(self._session, self._customer.id)
        by_customer, by_label = Mail.customer_id == self._customer.id, Mail.key_id.in_(self._labels)
        data = {
            "customer": self._json(self._customer, self._customer.id),
            "consents": self._rows(Consent, Consent.customer_id == self._customer.id, by=Consent.at),
            "subscriptions": [self._subscription(row) for row in subscriptions],
            "events": self._rows(Event, Event.key_id.in_(self._labels), by=Event.received_at),
            "mails": self._rows(Mail, by_customer | by_label, by=Mail.created_at),
            "letters": self._rows(InboundMail, InboundMail.key_id.in_(self._labels), by=InboundMail.received_at),
            "requests": self._rows(
                PrivacyRequest, PrivacyRequest.customer_id == self._customer.id, by=PrivacyRequest.received_at
            ),
            "links": self._rows(Link, Link.customer_id == self._customer.id, by=Link.created_at),
            "read_by_us": self._rows(ReadAudit, ReadAudit.subject.in_(self._labels), by=ReadAudit.at),
        }
        return Gathered(data, self._files)

    def _subscription(self, row: Subscription) -> Json:
        payments = self._session.execute(
            select(Payment).where(Payment.subscription_id == row.id).order_by(Payment.occurred_at)
        ).scalars()
        plan = self._session.get(Plan, row.plan_id) if row.plan_id else None
        return {
            **self._json(row, row.id),
            "plan": plan and self._json(plan, row.id),
            "changes": self._rows(
                StatusHistoryEntry, StatusHistoryEntry.subscription_id == row.id, by=StatusHistoryEntry.id
            ),
            "payments": [
                {
                    **self._json(payment, row.id),
                    "refunds": self._rows(Refund, Refund.payment_id == payment.id, by=Refund.occurred_at),
                }
                for payment in payments
            ],
        }

    def _rows(self, table: type[Base], where: Any, *, by: Any) -> list[Json]:
        rows: Iterable[Any] = self._session.execute(select(table).where(where).order_by(by)).scalars()
        return [self._json(row, getattr(row, "key_id", None) or self._customer.id) for row in rows]

    def _json(self, row: Base, label: str) -> Json:
        seal, table = self._seals.get(label), row.__tablename__
        columns: Sequence[str] = [column.key for column in inspect(type(row)).columns]
        return {name: self._value(row, table, name, seal) for name in columns if name not in LEFT_OUT}

    def _value(self, row: Base, table: str, name: str, seal: DataKey | None) -> Any:
        value = getattr(row, name)
        if isinstance(value, datetime):
            return format_time(value)
        if not isinstance(value, bytes):
            return value
        opened = seal.decrypt(f"{table}.{name}", value) if seal else b""
        return self._opened(row, f"{table}.{name}", opened)

    def _opened(self, row: Base, column: str, opened: bytes) -> Any:
        if column.startswith("mail."):  # who makes an export for somebody is not to sign in as them
            opened = links.without_secrets(opened)
        if not opened or column in SEALED_JSON:
            return orjson.loads(opened) if opened else None
        if column in ("mail.frozen", "inbound_mail.content"):
            name = f"{'mails' if column == 'mail.frozen' else 'letters'}/{row.id}.eml"  # type: ignore[attr-defined]
            self._files[name] = opened
            return name
        return _json_or_text(opened)


def _json_or_text(opened: bytes) -> Any:
    try:
        return orjson.loads(opened)
    except ValueError:
        return opened.decode("utf-8", "replace")
