"""Whom a mail is for: address and name as they are known now, and whether the person wants it.

An address that the mail names itself comes first; then what the customer told us, at sign-up or as a correction; then
what PayPal tells. A mail that is for nobody of these is the operator's.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar, cast

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from pipeline.crypto.keyring import Keyring
from pipeline.crypto.master_key import KeyProblem
from pipeline.customers import accounts
from pipeline.db.bulk import among, texts
from pipeline.db.models import Customer, Mail, Subscription
from pipeline.outbox import mail_kinds as purposes
from pipeline.outbox.store import TO

Person = TypeVar("Person", Subscription, Customer)


@dataclass(frozen=True, slots=True)
class Addressee:
    """Who a mail goes to; "" for what is not known."""

    address: str
    name: str = ""


class Addressees:
    """The people of some mails, looked up all at once."""

    def __init__(self, session: Session, keyring: Keyring, mails: Sequence[Mail]) -> None:
        self._session, self._keyring = session, keyring
        self._subscriptions = _subscriptions(session, mails)
        self._customers = _customers(session, [self._customer_id(mail) for mail in mails])
        with contextlib.suppress(KeyProblem):  # one key that does not open is no other mail's problem
            keyring.fetch([row.id for row in self._customers.values() if row.personal_data], create=False)

    def of(self, mail: Mail, facts: Mapping[str, Any]) -> Addressee | None:
        """Who gets this mail; None is the operator. Raises KeyProblem, Unsealable."""
        if not (mail.subscription_id or mail.customer_id or facts.get(TO)):
            return None
        known = self._known(mail)
        return Addressee(facts.get(TO) or known.get("email", ""), known.get("name", ""))

    def corrected_address(self, mail: Mail) -> str | None:
        """The address that the customer told us; None if they told none. Raises KeyProblem, Unsealable."""
        row = self._customers.get(self._customer_id(mail) or "")
        return accounts.told_by_customer(self._keyring, row).get("email") if row else None

    def declined(self, mail: Mail) -> str | None:
        """Why the person is not to have this mail, by what they chose; None if they are."""
        row = self._customers.get(self._customer_id(mail) or "")
        return purposes.declined(
            mail.kind, marketing=bool(row and row.wants_marketing), service=row is None or row.wants_service_mail
        )

    def _known(self, mail: Mail) -> dict[str, str]:
        row = self._customers.get(self._customer_id(mail) or "")
        told = accounts.told_by_customer(self._keyring, row) if row else {}
        return self._by_paypal(mail) | told

    def _by_paypal(self, mail: Mail) -> dict[str, str]:
        if mail.subscription_id is None:
            return accounts.told_by_paypal(self._session, self._keyring, mail.customer_id or "")
        row = self._subscriptions.get(mail.subscription_id)
        return accounts.told_of(self._keyring, row) if row else {}

    def _customer_id(self, mail: Mail) -> str | None:
        subscription = self._subscriptions.get(mail.subscription_id or "")
        return mail.customer_id or (subscription.customer_id if subscription else None)


def _subscriptions(session: Session, mails: Sequence[Mail]) -> dict[str, Subscription]:
    return _found(session, Subscription, {mail.subscription_id for mail in mails})


def _customers(session: Session, ids: Sequence[str | None]) -> dict[str, Customer]:
    return _found(session, Customer, set(ids))


def _found(session: Session, table: type[Person], ids: set[str | None]) -> dict[str, Person]:
    """Rows by their ids, to be looked at only."""
    named = sorted(id for id in ids if id)
    found = session.connection().execute(_those(table), {"ids": named}).all() if named else []
    return {row.id: cast("Person", row) for row in found}


@cache
def _those(table: type[Person]) -> Select[Any]:
    columns = table.__table__
    return select(columns).where(among(columns.c.id, texts("ids")))
