"""Subscription state: the statuses, their allowed transitions, and the effects of events and payments.

This module queues no mail and does not call PayPal. Events in any order and repetition produce the same row
(docs/architecture.md explains why): each field keeps its newest value, and `supersedes` decides the status.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from pipeline.billing.arrears import CHARGE_DELAY, LIVE_STATUSES, compute_arrears, reported_balance
from pipeline.billing.entitlement import SAME_PAYMENT, ConfirmedUntil, PaidCharge, paid_through
from pipeline.billing.next_charge import next_price
from pipeline.billing.terms import AnySubscription, billing_cycle_of
from pipeline.billing.unit_of_work import UnitOfWork
from pipeline.clock import parse_time
from pipeline.db import lww_map
from pipeline.db.models import CAME
from pipeline.db.rows import PaymentRow, SubscriptionRow
from pipeline.inbox.event import Event
from pipeline.money import Money

# Status -> statuses that may follow it. A change may skip statuses that PayPal never reported.
TRANSITIONS: dict[str | None, frozenset[str]] = {
    None: frozenset({"APPROVAL_PENDING", "APPROVED", "ACTIVE", "SUSPENDED", "CANCELLED", "EXPIRED"}),
    "APPROVAL_PENDING": frozenset({"APPROVED", "ACTIVE", "SUSPENDED", "CANCELLED", "EXPIRED"}),
    "APPROVED": frozenset({"ACTIVE", "SUSPENDED", "CANCELLED", "EXPIRED"}),
    "ACTIVE": frozenset({"SUSPENDED", "CANCELLED", "EXPIRED"}),
    "SUSPENDED": frozenset({"ACTIVE", "CANCELLED", "EXPIRED"}),
    # Both are final. If PayPal reports two ends, the earlier one counts, in whichever order they arrive.
    "CANCELLED": frozenset({"EXPIRED"}),
    "EXPIRED": frozenset({"CANCELLED"}),
}
# A later phase supersedes an earlier one at any time: PayPal never returns a subscription to its approval.
STATUS_PHASE = {"APPROVAL_PENDING": 0, "APPROVED": 1, "ACTIVE": 2, "SUSPENDED": 2, "CANCELLED": 3, "EXPIRED": 3}
# At equal times the status with the larger number wins.
STATUS_TIE_BREAK = {"APPROVAL_PENDING": 0, "APPROVED": 1, "ACTIVE": 2, "SUSPENDED": 3, "EXPIRED": 4, "CANCELLED": 5}
FINAL_PHASE = 3

# PayPal has sent ACTIVATED of a free trial with a next_billing_time of the same day, and no event when it corrected the
# time. So a billing time this close to the event is looked up again after some minutes.
DOUBTFUL_BILLING_TIME = timedelta(days=1)
LOOKUP_REPEAT_DELAY = timedelta(minutes=10)
# After each event about money, plan, quantity or status, the subscription is read again. Events within this time share
# one read; and PayPal's API may be some seconds behind its webhooks.
REREAD_DELAY = timedelta(seconds=5)

FIELDS = ("custom_ref", "plan", "terms", "quantity", "start_at", "next_billing_at", "shipping", "final_at")
BALANCE_FIELDS = ("failed_count", "outstanding", "failed_at", "last_payment_at", "cycles_left")


@dataclass(frozen=True, slots=True)
class StatusChange:
    """A change from the status `old` to `new`. `old` is None for the first status."""

    old: str | None
    new: str


def supersedes(new: tuple[str, datetime], old: tuple[str, datetime]) -> bool:
    """Return whether `new` (status and PayPal's time) replaces `old`."""
    if STATUS_PHASE[new[0]] != STATUS_PHASE[old[0]]:
        return STATUS_PHASE[new[0]] > STATUS_PHASE[old[0]]
    if new[1] == old[1]:
        return STATUS_TIE_BREAK[new[0]] > STATUS_TIE_BREAK[old[0]]
    earlier_wins = STATUS_PHASE[new[0]] == FINAL_PHASE
    return (new[1] < old[1]) is earlier_wins


def apply_event(uow: UnitOfWork, event: Event) -> StatusChange | None:
    """Store what an event reports about its subscription. Return the status change, if any.

    Raises ParkEvent if the event has no time.
    """
    row, at = uow.subscription(event.require("subscription")), event.require_time("at")
    facts = {field: event.facts.get(field) for field in FIELDS}
    row.known = lww_map.merge(row.known, at, facts | _confirmation(event) | _buyer(event))
    balance = {field: event.facts.get(field) for field in BALANCE_FIELDS}
    row.known = lww_map.merge(row.known, _balance_at(event, at), balance | {"was_unpaid": _reports_unpaid(event)})
    _apply_subscriber(uow, row.id, at, event)
    _request_unknown_plan(uow, event)
    row.is_established = row.is_established or _shows_use(event)
    change = _change_status(uow, row, event)
    recompute(uow, row)
    if is_billing_time_doubtful(row, at):
        uow.request_lookup("subscription", row.id, LOOKUP_REPEAT_DELAY)
    request_reread(uow, event, row.id)
    return change


def request_reread(uow: UnitOfWork, event: Event, id: str) -> None:
    """Request to read the subscription again, because this event is a reason. An answer to such a read is none."""
    if uow.may_read and not uow.is_history and event.type != "READ.SUBSCRIPTION":
        uow.request_lookup("subscription", id, REREAD_DELAY)


def apply_payment(uow: UnitOfWork, event: Event, id: str, payment: PaymentRow) -> SubscriptionRow:
    """Recompute the subscription of a payment, and request to read it again. An unknown one stays a placeholder."""
    row = uow.subscription(id)
    reported_at = lww_map.updated_at(payment.known, "custom_ref")
    if reported_at:
        row.known = lww_map.merge(row.known, reported_at, {"custom_ref": lww_map.value(payment.known, "custom_ref")})
    recompute(uow, row)
    request_reread(uow, event, id)
    return row


def recompute(uow: UnitOfWork, row: SubscriptionRow) -> None:
    """Recompute the derived columns from `known`. Depends only on the facts, not on their order."""
    known = row.known
    row.plan_id = lww_map.value(known, "plan")
    terms = billing_cycle_of(row, uow.plan(row.plan_id))
    payments = uow.payments_of(row.id)
    row.paid_through = compute_paid_through(uow, row, payments)
    row.is_established = row.is_established or any(payment.status in CAME for payment in payments)
    row.next_billing_at = _next_billing_at(row, payments)
    row.remind_at = _remind_at(row, uow.reminders.days_before_renewal(terms))
    _recompute_arrears(uow, row)


def compute_paid_through(uow: UnitOfWork, row: SubscriptionRow, payments: Sequence[PaymentRow]) -> datetime | None:
    """Return the paid-through date that results from these payments of the subscription."""
    terms = billing_cycle_of(row, uow.plan(row.plan_id))
    cycle = terms if terms is None or was_in_arrears(row, payments) else replace(terms, price=None)
    return paid_through(stored_confirmation(row), cycle, _paid_charges(uow, row, payments))


def apply_plan_event(uow: UnitOfWork, event: Event) -> None:
    """Store what an event reports about a plan, and recompute the loaded subscriptions on it."""
    plan = uow.plan_for_update(event.require("plan"))
    if uow.may_read and event.type != "READ.PLAN":
        uow.request_lookup("plan", plan.id, REREAD_DELAY)
    reported = {field: event.facts.get(field) for field in ("name", "terms")}
    plan.known = lww_map.merge(plan.known, event.require_time("at"), reported)
    terms = lww_map.value(plan.known, "terms") or {}
    plan.name = lww_map.value(plan.known, "name")
    plan.interval_unit, plan.interval_count = terms.get("unit"), terms.get("count")
    plan.amount, plan.currency = terms.get("price") or (None, None)
    for row in uow.subscriptions_on(plan.id):
        recompute(uow, row)


def _shows_use(event: Event) -> bool:
    """Return whether the event shows that the subscription has been active or paid. An approval alone does not."""
    return event.facts.get("status") in (*LIVE_STATUSES, "EXPIRED") or "last_payment_at" in event.facts


def _is_approved(event: Event) -> bool:
    """Return whether the buyer has approved. Before that PayPal repeats the subscriber that the caller of its API named."""
    return event.facts.get("status") not in ("APPROVAL_PENDING", "APPROVED")


def _buyer(event: Event) -> dict[str, str | None]:
    return {"payer_ref": event.facts.get("payer_ref")} if _is_approved(event) else {}


def _apply_subscriber(uow: UnitOfWork, id: str, at: datetime, event: Event) -> None:
    if event.person and _is_approved(event):
        uow.update_subscriber(id, at, event.person)


def _balance_at(event: Event, at: datetime) -> datetime:
    """Return the time of the balance in an event: PayPal's update time may be older than the charge it contains."""
    return max(filter(None, (at, event.get_time("last_payment_at"), event.get_time("failed_at"))))


def _reports_unpaid(event: Event) -> bool | None:
    """Return True if the event reports an open amount or a failed charge, now or earlier; otherwise None."""
    outstanding = event.facts.get("outstanding") or [0]
    return outstanding[0] > 0 or bool(event.facts.get("failed_count") or event.facts.get("failed_at")) or None


def was_in_arrears(row: SubscriptionRow, payments: Sequence[PaymentRow]) -> bool:
    """Return whether an amount was ever open. Otherwise each charge pays one cycle, at whatever price."""
    return "was_unpaid" in row.known or any(payment.status == "denied" for payment in payments)


def _request_unknown_plan(uow: UnitOfWork, event: Event) -> None:
    """Request a look-up of the event's plan if only its id is known."""
    plan = uow.plan(event.facts.get("plan"))
    if plan and not plan.known and "terms" not in event.facts:
        uow.request_lookup("plan", plan.id, timedelta(0))


def _next_billing_at(row: SubscriptionRow, payments: Sequence[PaymentRow]) -> datetime | None:
    """Return PayPal's billing time. PayPal sends no subscription event on renewal, so after a payment that its report does
    not contain, it is the paid-through date if that is later."""
    reported = parse_time(lww_map.value(row.known, "next_billing_at"))
    left = lww_map.value(row.known, "cycles_left")
    is_last = left is not None and left["regular"] == 0
    if reported is None or is_last or row.status in ("CANCELLED", "EXPIRED"):
        return None
    if row.status != "ACTIVE" or _contains_payments(row, payments):
        return reported
    return max(reported, row.paid_through or reported)


def _contains_payments(row: SubscriptionRow, payments: Sequence[PaymentRow]) -> bool:
    """Return whether PayPal's report of the billing time names the newest payment, so that nothing is to be added."""
    reported_at = lww_map.updated_at(row.known, "next_billing_at")
    last_payment_at = parse_time(lww_map.value(row.known, "last_payment_at"))
    times = [each.occurred_at for each in payments if each.status in CAME and each.occurred_at]
    if reported_at is None or last_payment_at is None or not times:
        return False
    return max(times) <= min(reported_at, last_payment_at + SAME_PAYMENT)


def _recompute_arrears(uow: UnitOfWork, row: SubscriptionRow) -> None:
    price = next_price(row, uow.plan(row.plan_id))
    found = compute_arrears(row.known, row.status, row.paid_through, uow.payments_of(row.id), price)
    row.past_due_at, row.failed_count = found.past_due_at, found.failed_count
    row.outstanding = found.outstanding.amount if found.outstanding else None
    row.outstanding_currency = found.outstanding.currency if found.outstanding else None


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
        raise AssertionError(f"{status} supersedes {old}, but TRANSITIONS does not allow it")
    reason = event.type if event.facts.get("failed_reason") is None else f"{event.type} {event.facts['failed_reason']}"
    uow.add_status_change(
        subscription_id=row.id, at=at, old_status=old, new_status=status, reason=reason[:100], event_id=event.id
    )
    return StatusChange(old, status)


def _confirmation(event: Event) -> dict[str, str | None]:
    """Return the next billing time under the name `vouched` if all before it is paid.

    Under the name `restarted` if the subscription is active again since, and nothing was charged: PayPal does not charge
    the cycles of a pause, so nobody has paid for the time from the end of the last paid cycle to the next charge.
    """
    since, start_at = event.get_time("status_changed_at"), event.get_time("start_at")
    paid_at = event.get_time("last_payment_at") or start_at  # a free trial begins without a payment
    is_active = event.facts.get("status") == "ACTIVE"
    is_restart = is_active and since is not None and paid_at is not None and since - paid_at > CHARGE_DELAY
    return {"restarted" if is_restart else "vouched": _confirmed_until(event)}


def _confirmed_until(event: Event) -> str | None:
    """Return the next billing time, None unless it means that everything before it is paid."""
    if event.facts.get("status") not in (*LIVE_STATUSES, "CANCELLED", "EXPIRED") or event.facts.get("failed_count"):
        return None
    if (event.facts.get("outstanding") or [0])[0] > 0:
        return None
    # PayPal advances the date at a cycle's first attempt, but counts a failure only after its last one.
    failed_at, paid_at = event.get_time("failed_at"), event.get_time("last_payment_at")
    unpaid = failed_at and (paid_at is None or paid_at < failed_at)
    return None if unpaid else event.facts.get("next_billing_at")


def stored_confirmation(row: SubscriptionRow) -> ConfirmedUntil | None:
    """Return the paid-through date that PayPal reported last, None if it never reported one with nothing unpaid."""
    last_payment_at = parse_time(lww_map.value(row.known, "last_payment_at"))
    for name in ("vouched", "restarted"):  # the second only of a subscription that was never seen before its pause
        until, at = parse_time(lww_map.value(row.known, name)), lww_map.updated_at(row.known, name)
        if until and at:
            return ConfirmedUntil(until, at, last_payment_at)
    return None


def _paid_charges(uow: UnitOfWork, subscription: SubscriptionRow, payments: Sequence[PaymentRow]) -> list[PaidCharge]:
    return [
        PaidCharge(row.occurred_at, Money(row.amount, row.currency), _refunded_at(uow, row), row.status == "denied")
        for row in payments
        if row.status in (*CAME, "denied")
        and row.occurred_at
        and row.amount
        and row.currency  # 0.00 pays no cycle
        and not _is_after_end(subscription, row.occurred_at)
        and not _is_part_of_balance(uow, subscription, row)
    ]


def _is_part_of_balance(uow: UnitOfWork, row: SubscriptionRow, payment: PaymentRow) -> bool:
    """Return whether the vendor captured a part of the balance: less than a cycle's price, and PayPal still reports a rest."""
    balance, at = reported_balance(row.known)
    paid_at, confirmed = payment.occurred_at, stored_confirmation(row)
    if balance is None or at is None or balance.amount <= 0 or payment.status == "denied":
        return False
    if paid_at is None or paid_at > at or (confirmed and paid_at <= confirmed.at):
        return False
    price = next_price(row, uow.plan(row.plan_id)).amount
    return price is not None and price.currency == payment.currency and (payment.amount or 0) < price.amount


def _is_after_end(row: SubscriptionRow, at: datetime) -> bool:
    """Return whether a payment came after the end of the subscription: it pays an outstanding balance, and no new period."""
    if row.status is None or row.status_at is None or STATUS_PHASE[row.status] != FINAL_PHASE:
        return False
    # PayPal reports EXPIRED at the last charge, whose payment may follow; nothing is charged after a cancellation.
    return at > row.status_at + (CHARGE_DELAY if row.status == "EXPIRED" else timedelta(0))


def _refunded_at(uow: UnitOfWork, payment: PaymentRow) -> datetime | None:
    if payment.status == "denied":
        return lww_map.updated_at(payment.known, "status")
    if payment.status not in ("refunded", "reversed"):
        return None
    return max((refund.occurred_at for refund in uow.effective_refunds(payment.id)), default=payment.occurred_at)


def is_billing_time_doubtful(row: AnySubscription, at: datetime) -> bool:
    """Return whether the billing time is so close to the event that PayPal may still correct it."""
    return (
        row.status == "ACTIVE" and row.next_billing_at is not None and row.next_billing_at - at <= DOUBTFUL_BILLING_TIME
    )
