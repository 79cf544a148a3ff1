"""Resolve the recipient of a mail: current address and name, and whether the customer accepts this kind of mail.

Order of precedence: the address that the mail itself names, the address that the customer confirmed, the address that
PayPal reports. A mail without any of these references goes to the operator. A mail that names another address than the
customer's contains no name, because that address is not proved.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from pipeline.crypto.keyring import Keyring
from pipeline.crypto.master_key import MasterKeyError
from pipeline.customers import accounts
from pipeline.db.bulk import in_list, table_of, texts
from pipeline.db.models import Base, Customer, Subscription
from pipeline.outbox import mail_kinds
from pipeline.outbox.store import ADDRESS_OVERRIDE


class AddressedMail(Protocol):
    """The fields of a mail that identify its recipient."""

    @property
    def kind(self) -> str: ...
    @property
    def subscription_id(self) -> str | None: ...
    @property
    def customer_id(self) -> str | None: ...


class _Subscriber(NamedTuple):
    id: str
    customer_id: str | None
    personal_data: bytes | None
    is_established: bool


class _Customer(NamedTuple):
    id: str
    personal_data: bytes | None
    wants_marketing: bool
    wants_service_mail: bool


def _by_ids(table: type[Base], row: type[NamedTuple]) -> Select[Any]:
    columns = table_of(table).c
    return select(*(columns[name] for name in row._fields)).where(in_list(columns.id, texts("ids")))


SUBSCRIBERS = _by_ids(Subscription, _Subscriber)
CUSTOMERS = _by_ids(Customer, _Customer)


@dataclass(frozen=True, slots=True)
class Recipient:
    """Address and name of a recipient; "" if unknown."""

    address: str
    name: str = ""


class RecipientResolver:
    """Resolves the recipients of a batch of mails, with one query per table."""

    def __init__(self, session: Session, keyring: Keyring, mails: Sequence[AddressedMail]) -> None:
        self._session, self._keyring = session, keyring
        self._subscriptions = _subscribers(session, mails)
        self._customers = _customers(session, [self._customer_id(mail) for mail in mails])
        with contextlib.suppress(MasterKeyError):  # a data key that cannot be opened must not affect other mails
            keyring.load([row.id for row in self._customers.values() if row.personal_data], create=False)

    def resolve(self, mail: AddressedMail, facts: Mapping[str, Any]) -> Recipient | None:
        """Return the recipient of this mail; None means the operator. Raises MasterKeyError, DecryptionError."""
        if not (mail.subscription_id or mail.customer_id or facts.get(ADDRESS_OVERRIDE)):
            return None
        known = self._contact_details(mail)
        address, to = known.get("email", ""), facts.get(ADDRESS_OVERRIDE)
        return Recipient(to, "") if to and to != address else Recipient(address, known.get("name", ""))

    def corrected_address(self, mail: AddressedMail) -> str | None:
        """Return the address that the customer entered, if any. Raises MasterKeyError, DecryptionError."""
        row = self._customers.get(self._customer_id(mail) or "")
        return accounts.self_reported(self._keyring, row).get("email") if row else None

    def opt_out_reason(self, mail: AddressedMail) -> str | None:
        """Return why the customer's choices exclude this mail; None if they do not."""
        row = self._customers.get(self._customer_id(mail) or "")
        return mail_kinds.suppression_reason(
            mail.kind, marketing=bool(row and row.wants_marketing), service=row is None or row.wants_service_mail
        )

    def _contact_details(self, mail: AddressedMail) -> dict[str, str]:
        row = self._customers.get(self._customer_id(mail) or "")
        entered = accounts.self_reported(self._keyring, row) if row else {}
        return self._reported_by_paypal(mail) | entered

    def _reported_by_paypal(self, mail: AddressedMail) -> dict[str, str]:
        if mail.subscription_id is None:
            return accounts.reported_by_paypal(self._session, self._keyring, mail.customer_id or "")
        row = self._subscriptions.get(mail.subscription_id)
        details = accounts.subscriber_details(self._keyring, row) if row else {}
        return details if row and row.is_established else {**details, "email": ""}

    def _customer_id(self, mail: AddressedMail) -> str | None:
        subscription = self._subscriptions.get(mail.subscription_id or "")
        return mail.customer_id or (subscription.customer_id if subscription else None)


def _subscribers(session: Session, mails: Sequence[AddressedMail]) -> dict[str, _Subscriber]:
    rows = _rows(session, SUBSCRIBERS, {mail.subscription_id for mail in mails})
    return {row.id: row for row in (_Subscriber(*values) for values in rows)}


def _customers(session: Session, ids: Sequence[str | None]) -> dict[str, _Customer]:
    rows = _rows(session, CUSTOMERS, set(ids))
    return {row.id: row for row in (_Customer(*values) for values in rows)}


def _rows(session: Session, statement: Select[Any], ids: set[str | None]) -> Sequence[Any]:
    named = sorted(id for id in ids if id)
    return session.connection().execute(statement, {"ids": named}).all() if named else []
