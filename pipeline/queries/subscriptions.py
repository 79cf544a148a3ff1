"""Subscriptions for the command line: the list, and one with its payments, refunds, status changes and mails."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from pipeline.billing.access import access_until, disputed_since
from pipeline.billing.arrears import open_balance, past_due_since
from pipeline.clock import format_time, write_optional
from pipeline.db import lww_map
from pipeline.db.models import CAME, Payment, Plan, Refund, StatusHistoryEntry, Subscription
from pipeline.queries.listing import Decryptor, Json, ListQuery, chunks, matching, status_changes
from pipeline.queries.mails import Render, mails

PAYMENT = ("id", "amount", "currency", "status", "occurred_at")
MONEY = (
    "refunded", "fee", "fee_currency", "tax", "shipping", "received", "received_currency", "exchange_rate",
)  # fmt: skip


def subscriptions(session: Session, query: ListQuery, now: datetime, *, pauses_access: bool = False) -> Iterator[Json]:
    """Yield `id, status, status_at, plan, plan_name, paid_through, next_billing_at, customer, created_at, payments`.

    Also `entitled, access_until, disputed_since, past_due, past_due_since, outstanding, failed_count, last_payment_at`, as
    of `now`. `pauses_access`: the setting SMT_DISPUTE_PAUSES_ACCESS.
    """
    statement = select(Subscription, Plan.name).outerjoin(Plan, Plan.id == Subscription.plan_id)
    for chunk in chunks(session, matching(statement, Subscription, Subscription.created_at, query)):
        ids = [row.id for row, _ in chunk]
        payments, disputed = _payments(session, ids), disputed_since(session, ids)
        for row, plan_name in chunk:
            shown = _subscription(row, plan_name, payments.get(row.id, []), now)
            yield shown | _access(row, disputed.get(row.id), now, pauses=pauses_access)


def is_past_due(now: datetime) -> ColumnElement[bool]:
    """Return the SQL condition that `past_due_since` is not None."""
    return Subscription.past_due_at <= now


def count_by_status(session: Session, now: datetime) -> dict[tuple[str, bool], int]:
    """Count the subscriptions by status, and by whether they are past due. Placeholders are not counted."""
    past_due = func.coalesce(is_past_due(now), False)
    statement = select(Subscription.status, past_due, func.count()).where(Subscription.status.is_not(None))
    found = session.execute(statement.group_by(Subscription.status, past_due)).all()
    return {(str(status), bool(is_late)): number for status, is_late, number in found}


def subscription(decryptor: Decryptor, id: str, render: Render, *, pauses_access: bool = False) -> Json | None:
    """Return one subscription: the list's fields, subscriber, reminder time, refunds, status changes and mails."""
    row = decryptor.session.get(Subscription, id)
    if row is None:
        return None
    plan = decryptor.session.get(Plan, row.plan_id) if row.plan_id else None
    payments = _payments(decryptor.session, [id]).get(id, [])
    data_key = decryptor.data_keys([id]).get(id)
    person = (data_key.decrypt_json("subscription.personal_data", row.personal_data) if data_key else None) or {}
    return {
        **_subscription(row, plan.name if plan else None, payments, decryptor.now),
        **_access(row, disputed_since(decryptor.session, [id]).get(id), decryptor.now, pauses=pauses_access),
        "erased": data_key is None,
        "name": full_name(person) or None,
        "email": lww_map.value(person, "email"),
        "remind_at": write_optional(row.remind_at),
        "refunds": refunds_of(decryptor.session, [payment["id"] for payment in payments]),
        "changes": status_changes(decryptor.session, StatusHistoryEntry.subscription_id == id),
        "mails": list(mails(decryptor, ListQuery({"subscription_id": id}), render)),
    }


def _subscription(row: Subscription, plan_name: str | None, payments: list[Json], now: datetime) -> Json:
    since, balance = past_due_since(row, now), open_balance(row)
    paid = [payment["occurred_at"] for payment in payments if payment["status"] in CAME and payment["occurred_at"]]
    return {
        "id": row.id,
        "status": row.status,
        "status_at": write_optional(row.status_at),
        "plan": row.plan_id,
        "plan_name": plan_name,
        "paid_through": write_optional(row.paid_through),
        "next_billing_at": write_optional(row.next_billing_at),
        "customer": row.customer_id,
        "created_at": format_time(row.created_at),
        "past_due": since is not None,
        "past_due_since": write_optional(since),
        "outstanding": balance and {"amount": balance.amount, "currency": balance.currency},
        "failed_count": row.failed_count,
        "last_payment_at": paid[-1] if paid else None,
        "payments": payments,
    }


def _access(row: Subscription, disputed: datetime | None, now: datetime, *, pauses: bool) -> Json:
    until = access_until(row.paid_through, disputed, pauses=pauses)
    return {
        "entitled": until is not None and until > now,
        "access_until": write_optional(until),
        "disputed_since": write_optional(disputed),
    }


def _payments(session: Session, subscriptions: Sequence[str]) -> dict[str, list[Json]]:
    """Return the payments of these subscriptions, by subscription id, oldest first."""
    found: dict[str, list[Json]] = {}
    named = select(Payment).where(Payment.subscription_id.in_(subscriptions)).order_by(Payment.occurred_at, Payment.id)
    for row in session.execute(named).scalars():
        shown = {**{name: getattr(row, name) for name in PAYMENT}, "occurred_at": write_optional(row.occurred_at)}
        found.setdefault(row.subscription_id or "", []).append(shown | {name: getattr(row, name) for name in MONEY})
    return found


def refunds_of(session: Session, payments: Sequence[str]) -> list[Json]:
    """Return the refunds of these payments, oldest first."""
    named = select(Refund).where(Refund.payment_id.in_(payments)).order_by(Refund.occurred_at, Refund.id)
    return [
        {
            "id": row.id,
            "payment": row.payment_id,
            "kind": row.kind,
            "amount": row.amount,
            "currency": row.currency,
            "returned_fee": row.returned_fee,
            "returned_fee_currency": row.returned_fee_currency,
            "occurred_at": format_time(row.occurred_at),
        }
        for row in session.execute(named).scalars()
    ]


def full_name(person: Mapping[str, Any]) -> str:
    """Return the full name from decrypted personal data of a subscriber; "" if none is known."""
    return " ".join(name for part in ("given_name", "surname") if (name := lww_map.value(person, part)))
