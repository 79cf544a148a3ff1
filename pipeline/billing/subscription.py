"""Statuses, the literal table of allowed moves, and the one function that moves.

State never mails and never calls out: a handler does both calls. What is told in any order and repetition ends in the
same row (docs/how-it-works.md says why): each field by its own newest time, the status by `outranks`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pipeline.billing.entitlement import BillingCycle, ConfirmedUntil, PaidCharge, paid_through
from pipeline.billing.unit_of_work import UnitOfWork
from pipeline.clock import parse_time
from pipeline.db import lww_map
from pipeline.db.models import CAME, Plan, Subscription
from pipeline.db.rows import PaymentRow, PlanRow, SubscriptionRow
from pipeline.inbox.event import Event
from pipeline.money import Money

# From a status to those it may move to. A move may skip what we were never told of.
TRANSITIONS: dict[str | None, frozenset[str]] = {
    None: frozenset({"APPROVAL_PENDING", "APPROVED", "ACTIVE", "SUSPENDED", "CANCELLED", "EXPIRED"}),
    "APPROVAL_PENDING": frozenset({"APPROVED", "ACTIVE", "SUSPENDED", "CANCELLED", "EXPIRED"}),
    "APPROVED": frozenset({"ACTIVE", "SUSPENDED", "CANCELLED", "EXPIRED"}),
    "ACTIVE": frozenset({"SUSPENDED", "CANCELLED", "EXPIRED"}),
    "SUSPENDED": frozenset({"ACTIVE", "CANCELLED", "EXPIRED"}),
    # Both are final. Where PayPal told of two ends, the earlier one counts, whichever reached us first.
    "CANCELLED": frozenset({"EXPIRED"}),
    "EXPIRED": frozenset({"CANCELLED"}),
}
# A later phase outranks an earlier one whatever the times say: PayPal takes no subscription back to its approval.
STATUS_PHASE = {"APPROVAL_PENDING": 0, "APPROVED": 1, "ACTIVE": 2, "SUSPENDED": 2, "CANCELLED": 3, "EXPIRED": 3}
# At equal times the graver news counts.
STATUS_TIE_BREAK = {"APPROVAL_PENDING": 0, "APPROVED": 1, "ACTIVE": 2, "SUSPENDED": 3, "EXPIRED": 4, "CANCELLED": 5}
FINAL_STATUSES = 3
LIVE_STATUSES = frozenset({"ACTIVE", "SUSPENDED"})

# ACTIVATED of a subscription with a free trial has been seen with a next_billing_time of today, and no event when that
# was corrected: ask again some minutes later.
MAX_TIME_AHEAD = timedelta(days=1)
LOOKUP_REPEAT_DELAY = timedelta(minutes=10)
# A placeholder asks who it belongs to, in case its first event never comes.
SUBSCRIBER_LOOKUP_DELAY = timedelta(minutes=5)

FIELDS = (
    "custom_ref", "payer_ref", "plan", "terms", "quantity", "start_at", "next_billing_at", "failed_count",
    "outstanding",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class StatusChange:
    """The status changed."""

    old: str | None
    new: str


def supersedes(new: tuple[str, datetime], old: tuple[str, datetime]) -> bool:
    """Whether the news (status, PayPal's time) comes after what is known."""
    if STATUS_PHASE[new[0]] != STATUS_PHASE[old[0]]:
        return STATUS_PHASE[new[0]] > STATUS_PHASE[old[0]]
    if new[1] == old[1]:
        return STATUS_TIE_BREAK[new[0]] > STATUS_TIE_BREAK[old[0]]
    earlier_counts = STATUS_PHASE[new[0]] == FINAL_STATUSES
    return (new[1] < old[1]) is earlier_counts


def apply_event(uow: UnitOfWork, event: Event) -> StatusChange | None:
    """Take in what an event tells of its subscription. Parks an event without a time to compare by."""
    row, at = uow.subscription(event.require("subscription")), event.require_time("at")
    facts = {field: event.facts.get(field) for field in FIELDS}
    row.known = lww_map.merge(row.known, at, facts | {"vouched": _confirmed_until(event)})
    _apply_subscriber(uow, row.id, at, event)
    _apply_plan(uow, event)
    move = _change_status(uow, row, event)
    recompute(uow, row)
    if _is_too_far_ahead(row, at):
        uow.request_lookup("subscription", row.id, LOOKUP_REPEAT_DELAY)
    return move


def apply_payment(uow: UnitOfWork, id: str, payment: PaymentRow) -> SubscriptionRow:
    """Money for a subscription: reckon it anew. One not seen yet stays a placeholder, and asks PayPal who it is."""
    row = uow.subscription(id)
    told_at = lww_map.updated_at(payment.known, "custom_ref")
    if told_at:
        row.known = lww_map.merge(row.known, told_at, {"custom_ref": lww_map.value(payment.known, "custom_ref")})
    recompute(uow, row)
    if row.status is None:
        uow.request_lookup("subscription", id, SUBSCRIBER_LOOKUP_DELAY)
    return row


def recompute(uow: UnitOfWork, row: SubscriptionRow) -> None:
    """Set the columns to what is known: a function of the facts, whatever their order."""
    known = row.known
    row.customer_id = lww_map.value(known, "custom_ref") or lww_map.value(known, "payer_ref")
    row.plan_id = lww_map.value(known, "plan")
    terms = billing_cycle_of(row, uow.plan(row.plan_id))
    row.paid_through = paid_through(_confirmed_of(row), terms, _paid(uow, uow.payments_of(row.id)))
    row.next_billing_at = _next_billing_at(row)
    row.remind_at = _remind_at(row, uow.reminders.days_before_renewal(terms))


def billing_cycle_of(row: SubscriptionRow | Subscription, plan: PlanRow | Plan | None) -> BillingCycle | None:
    """The regular cycle: the subscription's own where it has one, else its plan's; None while PayPal has not told."""
    told = lww_map.value(row.known, "terms") or (plan and lww_map.value(plan.known, "terms"))
    if not told:
        return None
    price = Money(*told["price"]) if told.get("price") else None
    number = lww_map.value(row.known, "quantity") or 1
    start = parse_time(lww_map.value(row.known, "start_at"))
    price = price and Money(price.amount * number, price.currency)
    return BillingCycle(told["unit"], told["count"], price, start.day if start else 0)


def apply_plan_event(uow: UnitOfWork, event: Event) -> None:
    """Take in what an event tells of a plan, and reckon anew the subscriptions that waited for it."""
    plan = uow.plan_for_update(event.require("plan"))
    told = {field: event.facts.get(field) for field in ("name", "terms")}
    plan.known = lww_map.merge(plan.known, event.require_time("at"), told)
    terms = lww_map.value(plan.known, "terms") or {}
    plan.name = lww_map.value(plan.known, "name")
    plan.interval_unit, plan.interval_count = terms.get("unit"), terms.get("count")
    plan.amount, plan.currency = terms.get("price") or (None, None)
    for row in uow.subscriptions_on(plan.id):
        recompute(uow, row)


def _apply_subscriber(uow: UnitOfWork, id: str, at: datetime, event: Event) -> None:
    if event.person:
        uow.update_subscriber(id, at, event.person)


def _apply_plan(uow: UnitOfWork, event: Event) -> None:
    """A plan known only by its id: PayPal is asked for it."""
    plan = uow.plan(event.facts.get("plan"))
    if plan and not plan.known and "terms" not in event.facts:
        uow.request_lookup("plan", plan.id, timedelta(0))


def _next_billing_at(row: SubscriptionRow) -> datetime | None:
    """As PayPal told it; moved on by what was paid since, for a renewal comes without news of the subscription."""
    told = parse_time(lww_map.value(row.known, "next_billing_at"))
    if told is None or row.status in ("CANCELLED", "EXPIRED"):
        return None
    return max(told, row.paid_through or told) if row.status == "ACTIVE" else told


def _remind_at(row: SubscriptionRow, days: int | None) -> datetime | None:
    if row.status != "ACTIVE" or row.next_billing_at is None or days is None:
        return None
    return row.next_billing_at - timedelta(days=days)


def _change_status(uow: UnitOfWork, row: SubscriptionRow, event: Event) -> StatusChange | None:
    status, at = event.facts.get("status"), event.get_time("status_at") or event.require_time("at")
    if status is None or (row.status and row.status_at and not supersedes((status, at), (row.status, row.status_at))):
        return None
    old, row.status, row.status_at = row.status, status, at
    if status == old:
        return None
    if status not in TRANSITIONS[old]:
        raise AssertionError(f"{old} -> {status} outranks, but is not in the table of moves")
    reason = event.type if event.facts.get("failed_reason") is None else f"{event.type} {event.facts['failed_reason']}"
    uow.add_status_change(
        subscription_id=row.id, at=at, old_status=old, new_status=status, reason=reason[:100], event_id=event.id
    )
    return StatusChange(old, status)


def _confirmed_until(event: Event) -> str | None:
    """The next billing time, where it also says that everything before it is paid."""
    if event.facts.get("status") not in (*LIVE_STATUSES, "CANCELLED", "EXPIRED") or event.facts.get("failed_count"):
        return None
    # The count rises only after the last try of a cycle, the date moves on with the first.
    failed_at, paid_at = event.get_time("failed_at"), event.get_time("last_payment_at")
    unpaid = failed_at and (paid_at is None or paid_at < failed_at)
    return None if unpaid else event.facts.get("next_billing_at")


def _confirmed_of(row: SubscriptionRow) -> ConfirmedUntil | None:
    until, at = parse_time(lww_map.value(row.known, "vouched")), lww_map.updated_at(row.known, "vouched")
    return ConfirmedUntil(until, at) if until and at else None


def _paid(uow: UnitOfWork, payments: Sequence[PaymentRow]) -> list[PaidCharge]:
    return [
        PaidCharge(row.occurred_at, Money(row.amount, row.currency), _refunded_at(uow, row), row.status == "denied")
        for row in payments
        if row.status in (*CAME, "denied") and row.occurred_at and row.amount is not None and row.currency
    ]


def _refunded_at(uow: UnitOfWork, payment: PaymentRow) -> datetime | None:
    if payment.status == "denied":
        return lww_map.updated_at(payment.known, "status")
    if payment.status not in ("refunded", "reversed"):
        return None
    return max((refund.occurred_at for refund in uow.effective_refunds(payment.id)), default=payment.occurred_at)


def _is_too_far_ahead(row: SubscriptionRow, at: datetime) -> bool:
    return row.status == "ACTIVE" and row.next_billing_at is not None and row.next_billing_at - at <= MAX_TIME_AHEAD
