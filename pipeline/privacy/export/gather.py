"""Collect all data of one customer from all tables, decrypted, as JSON and files."""

from collections.abc import Callable, Iterable, Sequence
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

# Encrypted columns that contain JSON; the others contain whole mails and bodies.
ENCRYPTED_JSON = {
    "customer.personal_data", "subscription.personal_data", "event.personal_data",
    "mail.facts", "privacy_request.details", "link.details",
}  # fmt: skip
ROWS_AT_ONCE = 5  # read from the database: an inbound message has up to 10 MB
# Technical columns without information about the customer: hashes of exported values, and claims.
OMITTED = {"email_hash", "sha256", "claimed_by", "body_sha256", "content_sha256"}


def gather(session: Session, keyring: Keyring, customer_id: str, add_file: Callable[[str, bytes], None]) -> Json:
    """Return all data of this customer, the content of data.json. Raises CustomerNotFoundError.

    Mails become files: `add_file` gets the name and the content of each, one at a time, because all together may be large.
    """
    return _Gatherer(session, keyring, accounts.require_customer(session, customer_id, lock=False), add_file).all()


class _Gatherer:
    def __init__(
        self, session: Session, keyring: Keyring, customer: Customer, add_file: Callable[[str, bytes], None]
    ) -> None:
        self._session, self._customer, self._add_file = session, customer, add_file
        self._key_ids = accounts.key_ids_of(session, customer.id)
        self._data_keys = keyring.load(self._key_ids, create=False)

    def all(self) -> Json:
        subscriptions = accounts.subscriptions_of(self._session, self._customer.id)
        by_customer, by_key_id = Mail.customer_id == self._customer.id, Mail.key_id.in_(self._key_ids)
        return {
            "customer": self._json(self._customer, self._customer.id),
            "consents": self._rows(Consent, Consent.customer_id == self._customer.id, by=Consent.at),
            "subscriptions": [self._subscription(row) for row in subscriptions],
            "events": self._rows(Event, Event.key_id.in_(self._key_ids), by=Event.received_at),
            "mails": self._rows(Mail, by_customer | by_key_id, by=Mail.created_at),
            "letters": self._rows(InboundMail, InboundMail.key_id.in_(self._key_ids), by=InboundMail.received_at),
            "requests": self._rows(
                PrivacyRequest, PrivacyRequest.customer_id == self._customer.id, by=PrivacyRequest.received_at
            ),
            "links": self._rows(Link, Link.customer_id.in_(self._key_ids), by=Link.created_at),
            "read_by_us": self._rows(ReadAudit, ReadAudit.subject.in_(self._key_ids), by=ReadAudit.at),
        }

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
        statement = select(table).where(where).order_by(by).execution_options(yield_per=ROWS_AT_ONCE)
        rows: Iterable[Any] = self._session.execute(statement).scalars()
        return [self._json(row, self._key_id_of(row)) for row in rows]

    def _key_id_of(self, row: Any) -> str:
        """Return the id of the key that encrypts the row. A link of a merged account has that account's key."""
        return getattr(row, "key_id", None) or getattr(row, "customer_id", None) or self._customer.id

    def _json(self, row: Base, key_id: str) -> Json:
        data_key, table = self._data_keys.get(key_id), row.__tablename__
        columns: Sequence[str] = [column.key for column in inspect(type(row)).columns]
        return {name: self._value(row, table, name, data_key) for name in columns if name not in OMITTED}

    def _value(self, row: Base, table: str, name: str, data_key: DataKey | None) -> Any:
        value = getattr(row, name)
        if isinstance(value, datetime):
            return format_time(value)
        if not isinstance(value, bytes):
            return value
        plain = data_key.decrypt(f"{table}.{name}", value) if data_key else b""
        return self._decoded(row, f"{table}.{name}", plain)

    def _decoded(self, row: Base, column: str, plain: bytes) -> Any:
        if column.startswith("mail."):  # an operator who makes the export must not be able to sign in as the customer
            plain = links.without_secrets(plain)
        if not plain or column in ENCRYPTED_JSON:
            return orjson.loads(plain) if plain else None
        if column in ("mail.frozen", "inbound_mail.content"):
            name = f"{'mails' if column == 'mail.frozen' else 'letters'}/{row.id}.eml"  # type: ignore[attr-defined]
            self._add_file(name, plain)
            return name
        return _json_or_text(plain)


def _json_or_text(plain: bytes) -> Any:
    try:
        return orjson.loads(plain)
    except ValueError:
        return plain.decode("utf-8", "replace")
