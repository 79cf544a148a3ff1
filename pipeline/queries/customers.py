"""Customers for the command line: the list, and one customer with consents, subscriptions, requests and mails.

Personal data comes from `customers.accounts`; it is null for an erased customer.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from pipeline.billing.arrears import past_due_since
from pipeline.clock import format_time, write_optional
from pipeline.customers import accounts
from pipeline.db.models import Consent, Customer, InboundMail, PrivacyRequest, Subscription
from pipeline.queries.listing import Decryptor, Json, ListQuery
from pipeline.queries.mails import Render, mails

STATES = {
    "active": Customer.erased_at.is_(None),
    "leaving": Customer.erase_at.is_not(None),
    "erased": Customer.erased_at.is_not(None),
    "opted-in": Customer.wants_marketing.is_(True),
    "opted-out": Customer.wants_service_mail.is_(False) & Customer.erased_at.is_(None),
}


@dataclass(frozen=True, slots=True)
class CustomerQuery:
    """Filter of the customer list: e-mail address, state, created at or after `since`; the newest `limit` rows."""

    email: str | None = None
    state: str | None = None
    since: datetime | None = None
    limit: int | None = None


def customers(decryptor: Decryptor, query: CustomerQuery) -> Iterator[Json]:
    """Yield `id, name, email, company, created_at, signed_up_at, marketing, service, erase_at, erased_at, subscriptions`."""
    for row in decryptor.session.execute(_select(decryptor, query).limit(query.limit)).scalars():
        known = accounts.personal_data(decryptor.session, decryptor.keyring, row.id)
        ids = [each.id for each in accounts.subscriptions_of(decryptor.session, row.id)]
        yield {**_customer(row, known), "subscriptions": ids}


def count(decryptor: Decryptor, query: CustomerQuery) -> int:
    """Count the customers that match, ignoring the limit."""
    everyone = _select(decryptor, query).order_by(None).subquery()
    return int(decryptor.session.execute(select(func.count()).select_from(everyone)).scalar_one())


def customer(decryptor: Decryptor, id: str, render: Render) -> Json | None:
    """Return one customer: the list's fields, each field's source, consents, subscriptions, requests, messages and mails."""
    row = decryptor.session.get(Customer, id)
    if row is None:
        return None
    known = accounts.personal_data(decryptor.session, decryptor.keyring, id)
    entered = accounts.self_reported(decryptor.keyring, row)
    return {
        **_customer(row, known),
        "phone": known.get("phone"),
        "custom_id": known.get("custom"),
        "payer_id": known.get("payer"),
        "told_by": {field: "customer" if field in entered else "paypal" for field in sorted(known)},
        "adult_text": row.adult_text_version,
        "adult_at": write_optional(row.adult_confirmed_at),
        "consents": [_consent(each) for each in _of(decryptor.session, Consent, id, Consent.at)],
        "subscriptions": [
            _subscription(each, decryptor.now) for each in accounts.subscriptions_of(decryptor.session, id)
        ],
        "requests": [_request(each) for each in _of(decryptor.session, PrivacyRequest, id, PrivacyRequest.received_at)],
        "letters": [_inbound_mail(each) for each in _of(decryptor.session, InboundMail, id, InboundMail.received_at)],
        "mails": _mails(decryptor, id, render),
    }


def _select(decryptor: Decryptor, query: CustomerQuery) -> Select[Customer]:
    statement = select(Customer).order_by(Customer.created_at.desc(), Customer.id)
    if query.email is not None:
        statement = statement.where(
            Customer.id.in_(accounts.find_by_email(decryptor.session, decryptor.keyring, query.email))
        )
    if query.state is not None:
        statement = statement.where(STATES[query.state])
    return statement if query.since is None else statement.where(Customer.created_at >= query.since)


def _customer(row: Customer, known: Mapping[str, str]) -> Json:
    return {
        "id": row.id,
        **{field: known.get(field) for field in ("name", "email", "company")},
        "created_at": format_time(row.created_at),
        "signed_up_at": write_optional(row.signed_up_at),
        "marketing": row.wants_marketing,
        "service": row.wants_service_mail,
        "erase_at": write_optional(row.erase_at),
        "erased_at": write_optional(row.erased_at),
    }


def _of(session: Session, table: Any, id: str, at: Any) -> list[Any]:
    return list(session.execute(select(table).where(table.customer_id == id).order_by(at, table.id)).scalars())


def _consent(row: Consent) -> Json:
    names = ("kind", "given", "source", "text_version")
    return {"at": format_time(row.at), **{name: getattr(row, name) for name in names}}


def _subscription(row: Subscription, now: datetime) -> Json:
    return {
        "id": row.id,
        "status": row.status,
        "plan": row.plan_id,
        "paid_through": write_optional(row.paid_through),
        "past_due": past_due_since(row, now) is not None,
    }


def _request(row: PrivacyRequest) -> Json:
    times = {name: write_optional(getattr(row, name)) for name in ("received_at", "due_at", "done_at")}
    times["act_at"] = write_optional(row.waiting_ends_at)
    return {"id": row.id, "kind": row.kind, "state": row.state, "source": row.source, **times}


def _inbound_mail(row: InboundMail) -> Json:
    return {"id": row.id, "kind": row.kind, "received_at": format_time(row.received_at)}


def _mails(decryptor: Decryptor, id: str, render: Render) -> list[Json]:
    """Return the mails to the customer and about their subscriptions, newest first."""
    queries = [ListQuery({"customer_id": id})]
    queries += [ListQuery({"subscription_id": each.id}) for each in accounts.subscriptions_of(decryptor.session, id)]
    found = {mail["id"]: mail for each in queries for mail in mails(decryptor, each, render)}
    return sorted(found.values(), key=lambda mail: str(mail["created_at"]), reverse=True)
