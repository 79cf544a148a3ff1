"""Customers for the command line: the list, and one customer with consents, subscriptions, requests and mails.

Personal data comes from `customers.accounts`; it is null for an erased customer.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from pipeline.billing.arrears import past_due_since
from pipeline.clock import format_time, write_optional
from pipeline.customers import accounts
from pipeline.db.models import Consent, Customer, InboundMail, PrivacyRequest, Subscription
from pipeline.queries.listing import Decryptor, Json, ListQuery, chunks
from pipeline.queries.mails import Render, mails

SEARCHED = ("name", "company", "email", accounts.ENTERED)
ENDED = {"SUSPENDED": "suspended", "CANCELLED": "former", "EXPIRED": "former"}  # by status of a subscription
APPROVED_WITHIN = timedelta(days=1)  # a sign-up without approval at PayPal is abandoned after this time
STATES = {
    "active": Customer.erased_at.is_(None),
    "leaving": Customer.erase_at.is_not(None),
    "erased": Customer.erased_at.is_not(None),
    "opted-in": Customer.wants_marketing.is_(True),
    "opted-out": Customer.wants_service_mail.is_(False) & Customer.erased_at.is_(None),
}


@dataclass(frozen=True, slots=True)
class CustomerQuery:
    """Filter of the list: e-mail address, state, created at or after `since` and before `until`; the newest `limit` rows.

    `search` is a part of the name, the company or the address. Names are encrypted, so a search decrypts all rows.
    """

    email: str | None = None
    state: str | None = None
    since: datetime | None = None
    limit: int | None = None
    search: str = ""
    until: datetime | None = None


def customers(
    decryptor: Decryptor, query: CustomerQuery, scanned: Callable[[int], object] = lambda _: None
) -> Iterator[Json]:
    """Yield `id, name, email, company, status, created_at, signed_up_at, marketing, service, erase_at, erased_at,
    subscriptions`. `scanned` is called with the number of customers that were read since the last call.
    """
    return islice(_customers(decryptor, query, scanned), query.limit)


def _customers(decryptor: Decryptor, query: CustomerQuery, scanned: Callable[[int], object]) -> Iterator[Json]:
    limit = None if query.search else query.limit
    for chunk in chunks(decryptor.session, _select(decryptor, query).limit(limit)):
        rows = [row for (row,) in chunk]
        subscriptions = _subscriptions_of(decryptor.session, [row.id for row in rows])
        decryptor.keyring.load([*subscriptions, *(row.id for row in rows)], create=False)
        for row in rows:
            yield from _matching(decryptor, row, subscriptions.get(row.id, []), query.search)
        decryptor.forget_keys()
        scanned(len(rows))


def _matching(
    decryptor: Decryptor, row: Customer, subscriptions: Sequence[Subscription], search: str
) -> Iterator[Json]:
    """Yield the customer, if the search matches."""
    known = accounts.reported_by_subscriptions(decryptor.keyring, subscriptions)
    known |= accounts.self_reported(decryptor.keyring, row)
    if search and not any(search.casefold() in known.get(field, "").casefold() for field in SEARCHED):
        return
    status = status_of(row, subscriptions, decryptor.keyring.now)
    yield {**_customer(row, known), "status": status, "subscriptions": [each.id for each in subscriptions]}


def status_of(row: Customer, subscriptions: Sequence[Subscription], now: datetime) -> str:
    """Return the customer's status, as the list shows it.

    `paying`: a subscription is active or paid for longer. `suspended`: PayPal collects nothing. `former`: all
    subscriptions ended. `signed up`: not approved at PayPal yet; `abandoned`: not approved within a day. `erased`.
    """
    if row.erased_at:
        return "erased"
    statuses = {each.status for each in subscriptions}
    # A subscription without status is a placeholder: its payment arrived first.
    if statuses & {"ACTIVE", None} or any(each.paid_through and each.paid_through > now for each in subscriptions):
        return "paying"
    if found := next((name for status, name in ENDED.items() if status in statuses), None):
        return found
    return "signed up" if now - row.created_at < APPROVED_WITHIN else "abandoned"


def _subscriptions_of(session: Session, ids: Sequence[str]) -> dict[str, list[Subscription]]:
    """Return the subscriptions of these customers, oldest first."""
    found: dict[str, list[Subscription]] = {}
    owned = select(Subscription).where(Subscription.customer_id.in_(ids))
    for row in session.execute(owned.order_by(Subscription.created_at, Subscription.id)).scalars():
        found.setdefault(row.customer_id or "", []).append(row)
    return found


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
    subscriptions = accounts.subscriptions_of(decryptor.session, id)
    return {
        **_customer(row, known),
        "status": status_of(row, subscriptions, decryptor.keyring.now),
        "phone": known.get("phone"),
        "entered_email": known.get(accounts.ENTERED),
        "merged_into": row.merged_into,
        "custom_id": known.get("custom"),
        "payer_id": known.get("payer"),
        "told_by": {field: "customer" if field in entered else "paypal" for field in sorted(known)},
        "adult_text": row.adult_text_version,
        "adult_at": write_optional(row.adult_confirmed_at),
        "consents": [_consent(each) for each in _of(decryptor.session, Consent, id, Consent.at)],
        "subscriptions": [_subscription(each, decryptor.now) for each in subscriptions],
        "requests": [_request(each) for each in _of(decryptor.session, PrivacyRequest, id, PrivacyRequest.received_at)],
        "letters": [_inbound_mail(each) for each in _of(decryptor.session, InboundMail, id, InboundMail.received_at)],
        "mails": _mails(decryptor, id, render),
    }


def _select(decryptor: Decryptor, query: CustomerQuery) -> Select[Customer]:
    statement = select(Customer).where(Customer.merged_into.is_(None))
    statement = statement.order_by(Customer.created_at.desc(), Customer.id)
    if query.email is not None:
        statement = statement.where(
            Customer.id.in_(accounts.find_by_email(decryptor.session, decryptor.keyring, query.email))
        )
    if query.state is not None:
        statement = statement.where(STATES[query.state])
    if query.since is not None:
        statement = statement.where(Customer.created_at >= query.since)
    return statement if query.until is None else statement.where(Customer.created_at < query.until)


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
