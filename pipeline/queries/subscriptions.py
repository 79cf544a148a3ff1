"""Subscriptions for the command line: the list, and one with its payments, refunds, status changes and mails."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from pipeline.clock import format_time, write_optional
from pipeline.db import lww_map
from pipeline.db.models import Payment, Plan, Refund, StatusHistoryEntry, Subscription
from pipeline.queries.listing import Decryptor, Json, ListQuery, chunks, matching, status_changes
from pipeline.queries.mails import Render, mails

PAYMENT = ("id", "amount", "currency", "status", "occurred_at")


def subscriptions(session: Session, query: ListQuery) -> Iterator[Json]:
    """Yield `id, status, status_at, plan, plan_name, paid_through, next_billing_at, customer, created_at, payments`."""
    statement = select(Subscription, Plan.name).outerjoin(Plan, Plan.id == Subscription.plan_id)
    for chunk in chunks(session, matching(statement, Subscription, Subscription.created_at, query)):
        payments = _payments(session, [row.id for row, _ in chunk])
        for row, plan_name in chunk:
            yield _subscription(row, plan_name, payments.get(row.id, []))


def subscription(decryptor: Decryptor, id: str, render: Render) -> Json | None:
    """Return one subscription: the list's fields, subscriber, reminder time, refunds, status changes and mails."""
    row = decryptor.session.get(Subscription, id)
    if row is None:
        return None
    plan = decryptor.session.get(Plan, row.plan_id) if row.plan_id else None
    payments = _payments(decryptor.session, [id]).get(id, [])
    data_key = decryptor.data_keys([id]).get(id)
    person = (data_key.decrypt_json("subscription.personal_data", row.personal_data) if data_key else None) or {}
    return {
        **_subscription(row, plan.name if plan else None, payments),
        "erased": data_key is None,
        "name": full_name(person) or None,
        "email": lww_map.value(person, "email"),
        "remind_at": write_optional(row.remind_at),
        "refunds": _refunds(decryptor.session, [payment["id"] for payment in payments]),
        "changes": status_changes(decryptor.session, StatusHistoryEntry.subscription_id == id),
        "mails": list(mails(decryptor, ListQuery({"subscription_id": id}), render)),
    }


def _subscription(row: Subscription, plan_name: str | None, payments: list[Json]) -> Json:
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
        "payments": payments,
    }


def _payments(session: Session, subscriptions: Sequence[str]) -> dict[str, list[Json]]:
    """Return the payments of these subscriptions, by subscription id, oldest first."""
    found: dict[str, list[Json]] = {}
    named = select(Payment).where(Payment.subscription_id.in_(subscriptions)).order_by(Payment.occurred_at, Payment.id)
    for row in session.execute(named).scalars():
        shown = {**{name: getattr(row, name) for name in PAYMENT}, "occurred_at": write_optional(row.occurred_at)}
        found.setdefault(row.subscription_id or "", []).append(shown | {"refunded": row.refunded, "fee": row.fee})
    return found


def _refunds(session: Session, payments: Sequence[str]) -> list[Json]:
    named = select(Refund).where(Refund.payment_id.in_(payments)).order_by(Refund.occurred_at, Refund.id)
    return [
        {
            "id": row.id,
            "payment": row.payment_id,
            "kind": row.kind,
            "amount": row.amount,
            "currency": row.currency,
            "occurred_at": format_time(row.occurred_at),
        }
        for row in session.execute(named).scalars()
    ]


def full_name(person: Mapping[str, Any]) -> str:
    """Return the full name from decrypted personal data of a subscriber; "" if none is known."""
    return " ".join(name for part in ("given_name", "surname") if (name := lww_map.value(person, part)))
