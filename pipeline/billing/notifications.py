"""Decide which mails an event queues, what facts they contain, and whether they are withheld as superseded or too old.

An idempotency key consists of stable ids and PayPal's times, never of formatted text. So each mail is queued once,
however often and in whatever order its events arrive.
"""

from datetime import datetime, timedelta
from typing import Any

from pipeline.billing.arrears import open_balance, past_due_since, settlement
from pipeline.billing.next_charge import next_charge, next_price
from pipeline.billing.paid_period import paid_period_at_end, period_paid_by
from pipeline.billing.subscription import StatusChange, is_billing_time_doubtful
from pipeline.billing.terms import may_be_in_trial
from pipeline.billing.unit_of_work import UnitOfWork
from pipeline.clock import format_time, parse_time
from pipeline.db import lww_map
from pipeline.db.models import CAME, Plan, Subscription
from pipeline.db.rows import PaymentRow, RefundRow, SubscriptionRow
from pipeline.inbox.event import Event
from pipeline.money import Money
from pipeline.outbox import store as outbox

STATUS_MAILS = {
    "ACTIVE": "account_setup",
    "SUSPENDED": "subscription_suspended",
    "CANCELLED": "subscription_cancelled",
}
STATUS_EVENTS = {
    "ACTIVE": ("BILLING.SUBSCRIPTION.ACTIVATED", "BILLING.SUBSCRIPTION.RE-ACTIVATED"),
    "SUSPENDED": ("BILLING.SUBSCRIPTION.SUSPENDED",),
    "CANCELLED": ("BILLING.SUBSCRIPTION.CANCELLED",),
}


def mail_for_status(uow: UnitOfWork, event: Event, change: StatusChange | None) -> None:
    """Queue the mail for the status in an event, if the status changed or if the event type announces this status."""
    status = event.facts.get("status")
    kind = STATUS_MAILS.get(status or "")
    if kind is None or not (change or event.type in STATUS_EVENTS[str(status)]):
        return
    row, at = uow.subscription(event.facts["subscription"]), event.get_time("status_at") or event.require_time("at")
    # One set-up and one cancellation mail per subscription; it can be suspended several times.
    key = f"{kind}:{row.id}" + (f":{format_time(at)}" if kind == "subscription_suspended" else "")
    superseded = _superseded_by_status(row, str(status), at) or _known_too_late(uow, event, row, change)
    facts = _status_facts(uow, row, str(status), at)
    if kind == "account_setup" and is_billing_time_doubtful(row, event.require_time("at")):
        facts["next_billing_at"] = None
    _queue_mail(uow, kind, key, row, facts, at, superseded)


def _known_too_late(uow: UnitOfWork, event: Event, row: SubscriptionRow, change: StatusChange | None) -> str | None:
    """Return why a welcome is withheld: the subscription started long before its first event here, which is no activation."""
    started = parse_time(lww_map.value(row.known, "start_at"))
    is_welcome = event.facts.get("status") == "ACTIVE" and event.type != "BILLING.SUBSCRIPTION.ACTIVATED"
    is_first = change is not None and change.old is None
    if not is_welcome or not is_first or started is None or uow.now - started <= outbox.MAX_NEWS_AGE:
        return None
    return f"the subscription started on {started:%Y-%m-%d}, long before its first event here"


def mail_for_sale(uow: UnitOfWork, event: Event, payment: PaymentRow) -> None:
    """Queue the receipt of a completed sale or the mail about a refused one, and receipts of refunds that came first."""
    if payment.subscription_id is None:
        return
    row = uow.subscription(payment.subscription_id)
    if payment.status == "denied":
        _mail_for_denied_sale(uow, event, row, payment)
    elif payment.status not in (None, "pending") and payment.amount != 0:
        facts = _receipt_facts(uow, row, payment)
        _queue_mail(uow, "receipt", f"receipt:{payment.id}", row, facts, _event_time(event, event.require_time("at")))
    mails_for_refunds(uow, event, payment)


def mail_for_failed_payment(uow: UnitOfWork, event: Event) -> None:
    """Queue the dunning mail for a failed charge attempt."""
    row = uow.subscription(event.require("subscription"))
    at = event.get_time("failed_at") or event.require_time("at")
    amount, reason = _pair(event.facts.get("failed_amount")), event.facts.get("failed_reason")
    facts = _failure_facts(uow, row, amount, at, event.get_time("retry_at"), reason)
    facts["balance"] = _pair(event.facts.get("outstanding"))
    key = f"payment_failed:{row.id}:{format_time(at)}"
    _queue_mail(uow, "payment_failed", key, row, facts, at, _superseded_since(uow, row, at))


def mails_for_refunds(uow: UnitOfWork, event: Event, payment: PaymentRow) -> None:
    """Queue a receipt for each refund that PayPal reported as a refund. PayPal itself informs buyers of reversals."""
    if payment.subscription_id is None or payment.amount is None:
        return
    row = uow.subscription(payment.subscription_id)
    for refund in uow.effective_refunds(payment.id):
        if refund.kind == "refund" and "refund" in refund.known:
            facts = _refund_facts(uow, row, payment, refund)
            _queue_mail(
                uow,
                "refund_receipt",
                f"refund_receipt:{refund.id}",
                row,
                facts,
                _event_time(event, refund.occurred_at),
            )


def _mail_for_denied_sale(uow: UnitOfWork, event: Event, row: SubscriptionRow, payment: PaymentRow) -> None:
    at = lww_map.updated_at(payment.known, "status") or event.require_time("at")
    reason = event.facts.get("reason") if event.facts.get("state") == "denied" else None
    facts = _failure_facts(uow, row, _money(payment), at, None, reason)
    key = f"payment_failed:{payment.id}"
    _queue_mail(uow, "payment_failed", key, row, facts, at, _superseded_since(uow, row, at))


def renewal_reminder(
    row: Subscription, plan: Plan | None, days: int, now: datetime, *, has_address: bool, is_confirmed: bool
) -> outbox.NewMail:
    """Return the reminder that a renewal is `days` days away; the scheduler queues it.

    `is_confirmed`: PayPal answered the look-up before the reminder, or none is possible. Otherwise no amount is certain.
    """
    renews_at = format_time(row.next_billing_at) if row.next_billing_at else ""
    charge = next_charge(row, plan)
    is_confirmed = is_confirmed and (not may_be_in_trial(row, plan) or _has_fresh_cycles(row, now))
    parts = charge.charge if is_confirmed and charge.total else None
    facts = {
        "subscription": row.id,
        "plan": (plan and plan.name) or "",
        "renews_at": renews_at,
        "amount": _amount(charge.total) if is_confirmed else None,
        # Consumers are shown prices with tax (Directive 98/6/EC, article 3).
        "price": _amount(parts.price_with_tax) if parts else None,
        "tax": _part(parts.tax) if parts else None,
        "shipping": _part(parts.shipping) if parts else None,
        "balance": _amount(charge.balance) if is_confirmed and row.outstanding is not None else None,
        "past_due_since": _when(past_due_since(row, now)),
        "period": {"unit": charge.period[0], "count": charge.period[1]} if charge.period else None,
        "days": days,
    }
    return outbox.NewMail("renewal_reminder", f"renewal:{row.id}:{renews_at}:{days}", row.id, facts, has_address)


def _has_fresh_cycles(row: Subscription, now: datetime) -> bool:
    """Return whether PayPal reported the remaining trial cycles within a day. A payment since then may have used one."""
    at = lww_map.updated_at(row.known, "cycles_left")
    return at is not None and now - at < timedelta(days=1)


def _part(money: Money) -> dict[str, Any] | None:
    return _amount(money) if money.amount else None


def _queue_mail(
    uow: UnitOfWork, kind: str, key: str, row: SubscriptionRow, facts: dict[str, Any], at: datetime,
    superseded: str | None = None,
) -> None:  # fmt: skip
    uow.add_mail(outbox.NewMail(kind, key, row.id, facts, withheld=superseded or _too_old(uow, at)))


def _event_time(event: Event, at: datetime) -> datetime:
    """Return the later of the payment's time and the event's: a payment released late is new when PayPal reports it."""
    return max(at, event.occurred_at or at)


def _too_old(uow: UnitOfWork, at: datetime) -> str | None:
    if uow.now - at <= outbox.MAX_NEWS_AGE:
        return None
    return f"older than {outbox.MAX_NEWS_AGE.days} days on arrival: it happened on {at:%Y-%m-%d}"


def _superseded_by_status(row: SubscriptionRow, status: str, at: datetime) -> str | None:
    """Return why the mail is superseded: the status has changed since, or a later suspension replaced this one."""
    repeated_later = status == "SUSPENDED" and row.status_at is not None and row.status_at > at
    return None if row.status == status and not repeated_later else _superseded(row)


def _superseded_since(uow: UnitOfWork, row: SubscriptionRow, at: datetime) -> str | None:
    """Return why a mail about a failed payment is superseded: a later payment, suspension or end. Otherwise None."""
    paid = [
        payment.occurred_at
        for payment in uow.payments_of(row.id)
        if payment.status in CAME and payment.occurred_at and payment.occurred_at > at
    ]
    if paid:
        return f"superseded: a payment arrived on {min(paid):%Y-%m-%d}"
    changed_since = row.status not in (None, "ACTIVE") and row.status_at is not None and row.status_at > at
    return _superseded(row) if changed_since else None


def _superseded(row: SubscriptionRow) -> str:
    return f"superseded: the subscription is {row.status} since {row.status_at:%Y-%m-%d %H:%M}Z"


def _common_facts(uow: UnitOfWork, row: SubscriptionRow) -> dict[str, Any]:
    plan = uow.plan(row.plan_id)
    return {"subscription": row.id, "plan": (plan and plan.name) or ""}


def _status_facts(uow: UnitOfWork, row: SubscriptionRow, status: str, at: datetime) -> dict[str, Any]:
    paid = _when(paid_period_at_end(row, at))
    facts: dict[str, dict[str, Any]] = {
        "ACTIVE": {"next_billing_at": _when(row.next_billing_at)},
        "SUSPENDED": {
            "suspended_at": format_time(at),
            "paid_through": paid,
            "balance": _amount(open_balance(row)),
        },
        "CANCELLED": {
            "cancelled_at": format_time(at),
            "paid_through": paid,
            "balance": _amount(open_balance(row)),
        },
    }
    return _common_facts(uow, row) | facts[status]


def _receipt_facts(uow: UnitOfWork, row: SubscriptionRow, payment: PaymentRow) -> dict[str, Any]:
    price = next_price(row, uow.plan(row.plan_id))
    settled = settlement(row.known, payment, uow.payments_of(row.id), price)
    return _common_facts(uow, row) | {
        "payment": payment.id,
        "amount": _money(payment),
        "regular": _amount(settled.regular) if settled else None,
        "balance": _amount(settled.balance) if settled else None,
        "past_due": past_due_since(row, uow.now) is not None,
        "paid_at": _when(payment.occurred_at),
        "paid_through": _when(period_paid_by(uow, row, payment)),
    }


def _failure_facts(
    uow: UnitOfWork, row: SubscriptionRow, amount: Any, at: datetime, retry_at: datetime | None, reason: str | None
) -> dict[str, Any]:
    return _common_facts(uow, row) | {
        "amount": amount, "balance": None, "failed_at": format_time(at), "retry_at": _when(retry_at), "reason": reason,
    }  # fmt: skip


def _refund_facts(uow: UnitOfWork, row: SubscriptionRow, payment: PaymentRow, refund: RefundRow) -> dict[str, Any]:
    return _common_facts(uow, row) | {
        "refund": refund.id,
        "payment": payment.id,
        "amount": {"amount": refund.amount, "currency": refund.currency},
        "paid": _money(payment),
        "refunded_at": format_time(refund.occurred_at),
        "in_full": uow.refunded_amount(payment, refund.occurred_at) >= (payment.amount or 0),
    }


def _money(payment: PaymentRow) -> dict[str, Any] | None:
    return None if payment.amount is None else {"amount": payment.amount, "currency": payment.currency}


def _amount(money: Money | None) -> dict[str, Any] | None:
    return None if money is None else {"amount": money.amount, "currency": money.currency}


def _pair(pair: Any) -> dict[str, Any] | None:
    return {"amount": pair[0], "currency": pair[1]} if pair and pair[0] > 0 else None


def _when(moment: datetime | None) -> str | None:
    return None if moment is None else format_time(moment)
