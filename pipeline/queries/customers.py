"""Look-ups of customers: plain dicts in the JSON shapes the command line promises.

What is told of a person comes from `accounts`; a person who was erased leaves nulls.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from pipeline.clock import format_time, write_optional
from pipeline.customers import accounts
from pipeline.db.models import Consent, Customer, InboundMail, PrivacyRequest, Subscription
from pipeline.queries.listing import Decryptor, Json
from pipeline.queries.listing import ListQuery as MailsAsked
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
    """Which customers: those with this address, in this state, no older than `since`; the newest `limit`."""

    email: str | None = None
    state: str | None = None
    since: datetime | None = None
    limit: int | None = None


def customers(lens: Decryptor, asked: CustomerQuery) -> Iterator[Json]:
    """`id, name, email, company, created_at, signed_up_at, marketing, service, erase_at, erased_at, subscriptions`."""
    for row in lens.session.execute(_chosen(lens, asked).limit(asked.limit)).scalars():
        known = accounts.personal_data(lens.session, lens.keyring, row.id)
        ids = [each.id for each in accounts.subscriptions_of(lens.session, row.id)]
        yield {**_customer(row, known), "subscriptions": ids}


def count(lens: Decryptor, asked: CustomerQuery) -> int:
    """How many there are of what is asked for, whatever the limit."""
    everyone = _chosen(lens, asked).order_by(None).subquery()
    return int(lens.session.execute(select(func.count()).select_from(everyone)).scalar_one())


def customer(lens: Decryptor, id: str, render: Render) -> Json | None:
    """All of one customer: the list's fields, who told what, consents, subscriptions, requests, letters and mails."""
    row = lens.session.get(Customer, id)
    if row is None:
        return None
    known = accounts.personal_data(lens.session, lens.keyring, id)
    told = accounts.self_reported(lens.keyring, row)
    return {
        **_customer(row, known),
        "phone": known.get("phone"),
        "custom_id": known.get("custom"),
        "payer_id": known.get("payer"),
        "told_by": {field: "customer" if field in told else "paypal" for field in sorted(known)},
        "adult_text": row.adult_text_version,
        "adult_at": write_optional(row.adult_confirmed_at),
        "consents": [_consent(each) for each in _of(lens.session, Consent, id, Consent.at)],
        "subscriptions": [_subscription(each) for each in accounts.subscriptions_of(lens.session, id)],
        "requests": [_request(each) for each in _of(lens.session, PrivacyRequest, id, PrivacyRequest.received_at)],
        "letters": [_letter(each) for each in _of(lens.session, InboundMail, id, InboundMail.received_at)],
        "mails": _mails(lens, id, render),
    }


def _chosen(lens: Decryptor, asked: CustomerQuery) -> Select[Customer]:
    chosen = select(Customer).order_by(Customer.created_at.desc(), Customer.id)
    if asked.email is not None:
        chosen = chosen.where(Customer.id.in_(accounts.find_by_email(lens.session, lens.keyring, asked.email)))
    if asked.state is not None:
        chosen = chosen.where(STATES[asked.state])
    return chosen if asked.since is None else chosen.where(Customer.created_at >= asked.since)


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


def _subscription(row: Subscription) -> Json:
    return {"id": row.id, "status": row.status, "plan": row.plan_id, "paid_through": write_optional(row.paid_through)}


def _request(row: PrivacyRequest) -> Json:
    times = {name: write_optional(getattr(row, name)) for name in ("received_at", "due_at", "done_at")}
    times["act_at"] = write_optional(row.waiting_ends_at)
    return {"id": row.id, "kind": row.kind, "state": row.state, "source": row.source, **times}


def _letter(row: InboundMail) -> Json:
    return {"id": row.id, "kind": row.kind, "received_at": format_time(row.received_at)}


def _mails(lens: Decryptor, id: str, render: Render) -> list[Json]:
    """To the customer, or to one of their subscriptions; the newest first."""
    asked = [MailsAsked({"customer_id": id})]
    asked += [MailsAsked({"subscription_id": each.id}) for each in accounts.subscriptions_of(lens.session, id)]
    found = {mail["id"]: mail for each in asked for mail in mails(lens, each, render)}
    return sorted(found.values(), key=lambda mail: str(mail["created_at"]), reverse=True)
