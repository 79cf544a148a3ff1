"""Order an action: store it with its reason as an event and as a row, in one transaction. `perform` carries it out."""

import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import orjson
from sqlalchemy.orm import Session

from pipeline.clock import format_time
from pipeline.crypto.keyring import Keyring
from pipeline.db.models import CAME, Action, Payment, Subscription
from pipeline.errors import OperatorError, UsageError
from pipeline.inbox import store as inbox
from pipeline.inbox.parsing import parse_webhook
from pipeline.inbox.store import NewEvent
from pipeline.money import Money, format_money

Kind = Literal["cancel", "suspend", "activate", "capture", "revise", "refund"]
# The statuses in which PayPal accepts an action.
POSSIBLE: dict[str, tuple[str, ...]] = {
    "cancel": ("ACTIVE", "SUSPENDED"),
    "suspend": ("ACTIVE",),
    "activate": ("SUSPENDED",),
    "capture": ("ACTIVE", "SUSPENDED"),
    "revise": ("ACTIVE", "SUSPENDED"),
}


@dataclass(frozen=True, slots=True)
class Order:
    """An action to be ordered. `amount` is for capture and refund; None refunds the rest. `plan`, `quantity`: for revise."""

    kind: Kind
    object_id: str
    reason: str
    actor: str
    amount: Money | None = None
    plan: str | None = None
    quantity: int | None = None


def describe(session: Session, order: Order, locale: str = "en_US") -> str:
    """Return a sentence about what will happen. Raises UsageError or OperatorError if it is not possible."""
    if order.kind == "refund":
        payment, amount = _refundable(session, order)
        return f"PayPal pays {format_money(amount, locale)} of payment {payment.id} back to the buyer. This cannot be undone."
    row = _subscription(session, order)
    until = f"; access remains until {row.paid_through:%Y-%m-%d}" if row.paid_through else ""
    match order.kind:
        case "cancel":
            return f"Subscription {row.id} ends at PayPal now and cannot be re-activated{until}."
        case "suspend":
            return f"PayPal charges nothing more for subscription {row.id} until it is activated again{until}."
        case "activate":
            return f"PayPal charges for subscription {row.id} again, next on its billing date."
        case "capture":
            balance = format_money(_captured(row, order), locale)
            return f"PayPal collects the open balance of subscription {row.id} now: {balance}."
        case _:
            return f"Subscription {row.id} changes to {_revision(row, order)}. The buyer may have to agree at PayPal."


def place(session: Session, keyring: Keyring, order: Order, now: datetime) -> Action:
    """Store the order and return its row. Raises UsageError or OperatorError if it is not possible."""
    describe(session, order)
    if not order.reason.strip():
        raise UsageError("a reason is needed; it is stored with the action")
    id = secrets.token_hex(16)
    parameters = _parameters(session, order)
    event_id = _store_event(session, keyring, order, id, parameters, now)
    row = Action(
        id=id, event_id=event_id, kind=order.kind, object_id=order.object_id, parameters=parameters,
        actor=order.actor[:100], state="requested", attempts=0, requested_at=now, due_at=now,
    )  # fmt: skip
    session.add(row)
    session.flush()
    return row


def _store_event(
    session: Session, keyring: Keyring, order: Order, id: str, parameters: dict[str, Any], now: datetime
) -> str:
    thing = "PAYMENT" if order.kind == "refund" else "SUBSCRIPTION"
    payment = session.get(Payment, order.object_id) if order.kind == "refund" else None
    of = {"subscription": payment.subscription_id} if payment and payment.subscription_id else {}
    resource = {
        "id": order.object_id,
        **of,
        "action": id,
        "actor": order.actor,
        "reason": order.reason[:500],
        **parameters,
    }
    event = {
        "id": f"ACTION-{id}",
        "event_type": f"ACTION.{thing}.{order.kind.upper()}",
        "create_time": format_time(now),
        "resource": resource,
    }
    parsed = parse_webhook(orjson.dumps(event))
    inbox.store(session, keyring, [NewEvent(parsed, "action", f"ordered by {order.actor[:60]}")], now)
    inbox.mark_events(session, [parsed.id], "handled", now)
    return parsed.id


def _parameters(session: Session, order: Order) -> dict[str, Any]:
    if order.kind == "refund":
        amount = _refundable(session, order)[1]
        return {"amount": amount.amount, "currency": amount.currency}
    if order.kind == "capture":
        amount = _captured(_subscription(session, order), order)
        return {"amount": amount.amount, "currency": amount.currency}
    found = {"plan": order.plan, "quantity": order.quantity}
    return {name: value for name, value in found.items() if value is not None}


def _subscription(session: Session, order: Order) -> Subscription:
    row = session.get(Subscription, order.object_id)
    if row is None:
        raise UsageError(f"there is no subscription {order.object_id}; see: smt-billing subscriptions list")
    possible = POSSIBLE[order.kind]
    if row.status not in possible:
        raise OperatorError(
            f"subscription {row.id} is {row.status}; {order.kind} is possible if it is {' or '.join(possible)}"
        )
    if order.kind == "capture":
        _captured(row, order)
    if order.kind == "revise" and (order.plan, order.quantity) == (None, None):
        raise UsageError("name a new plan, a new quantity or both")
    return row


def _captured(row: Subscription, order: Order) -> Money:
    if not row.outstanding or not row.outstanding_currency:
        raise OperatorError(f"subscription {row.id} has no open balance that is known here")
    balance = Money(row.outstanding, row.outstanding_currency)
    amount = order.amount or balance
    if amount.currency != balance.currency or not 0 < amount.amount <= balance.amount:
        raise UsageError(f"the open balance is {format_money(balance)}; name an amount up to it")
    return amount


def _refundable(session: Session, order: Order) -> tuple[Payment, Money]:
    row = session.get(Payment, order.object_id)
    if row is None or row.amount is None or row.currency is None:
        raise UsageError(f"there is no payment {order.object_id}; see: smt-billing payments list")
    rest = Money(row.amount - row.refunded, row.currency)
    if row.status not in CAME or rest.amount <= 0:
        raise OperatorError(f"payment {row.id} is {row.status}; nothing of it can be refunded")
    amount = order.amount or rest
    if amount.currency != rest.currency or not 0 < amount.amount <= rest.amount:
        raise UsageError(f"{format_money(rest)} of payment {row.id} can be refunded; name an amount up to it")
    return row, amount


def _revision(row: Subscription, order: Order) -> str:
    parts = [f"plan {order.plan}"] if order.plan else []
    return " and ".join([*parts, *([f"quantity {order.quantity}"] if order.quantity else [])]) or str(row.plan_id)
