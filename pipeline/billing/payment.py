"""Sales and refunds: one row per sale, one per refund. Sums and statuses are always computed from all of them."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

from pipeline.billing import subscription
from pipeline.billing.unit_of_work import UnitOfWork
from pipeline.db import lww_map
from pipeline.db.models import CAME
from pipeline.db.rows import PaymentRow, RefundRow
from pipeline.inbox.event import Event, NeedsLookup, ParkEvent

SaleStatus = Literal["pending", "completed", "denied"]
RefundKind = Literal["refund", "reversal"]

# A final status supersedes `pending` at any time. Of two final statuses the later wins; at equal times, completed.
STATUS_PRIORITY: dict[str, int] = {"pending": 0, "denied": 1, "completed": 1}
FIELDS = ("subscription", "amount", "fee", "tax", "shipping", "received", "rate", "created_at", "custom_ref")
REFUND_FIELDS = ("amount", "refunded_total", "returned_fee", "created_at", "state")
# A sale without a subscription rarely belongs to one, and the event of a refunded payment has usually arrived by then. A
# single look-up after this delay decides.
LOOKUP_DELAY = timedelta(hours=1)
# A sale that is newer than the last payment that PayPal reports by more than this is doubtful.
LAST_PAYMENT_TOLERANCE = timedelta(hours=1)


def apply_sale(uow: UnitOfWork, event: Event, status: SaleStatus) -> PaymentRow:
    """Store what an event reports about a sale, and recompute its subscription. Return the payment.

    Raises ParkEvent if the event has no readable amount or time.
    """
    row, at = uow.payment(event.require("sale")), event.require_time("at")
    event.require("amount")
    _check_sign(event)
    row.known = lww_map.merge(row.known, at, {field: event.facts.get(field) for field in FIELDS})
    if event.type in ("READ.SALE", "READ.CAPTURE"):
        row.known = lww_map.merge(row.known, at, {"read": True})
    _merge_status(row, status, at)
    _update(uow, row)
    if row.subscription_id:
        subscription.apply_payment(uow, event, row.subscription_id, row)
    elif event.type.startswith("PAYMENT.SALE.") and "agreement" not in event.facts:
        # PayPal once omitted the id from webhooks for days; its API may return it.
        uow.request_lookup("sale", row.id, LOOKUP_DELAY)
    return row


def apply_missing_sale(uow: UnitOfWork, event: Event) -> None:
    """Store that PayPal does not know a sale. It counts no longer, unless PayPal's API has answered it at another time."""
    row = uow.payment(event.require("sale"))
    row.known = lww_map.merge(row.known, event.require_time("at"), {"missing": True})
    _update(uow, row)
    if row.subscription_id:
        subscription.recompute(uow, uow.subscription(row.subscription_id))


def request_doubtful_sales(uow: UnitOfWork, event: Event) -> None:
    """Request look-ups of the sales that are newer than the last payment in PayPal's answer: they may be forged."""
    last = event.get_time("last_payment_at")
    for row in uow.payments_of(event.require("subscription")):
        is_newer = row.occurred_at and (last is None or row.occurred_at > last + LAST_PAYMENT_TOLERANCE)
        if row.status in CAME and is_newer and "read" not in row.known and uow.may_read:
            uow.request_lookup("sale", row.id, timedelta(0))


def apply_refund(uow: UnitOfWork, event: Event, kind: RefundKind | None) -> PaymentRow:
    """Store what an event reports about a refund, and recompute its payment and subscription. Return the payment.

    `kind` is None for an answer from PayPal's API, which does not state it.
    Raises NeedsLookup if neither the event nor a stored refund names the sale.
    """
    refund = uow.refund(event.require("refund")) or _new_refund(uow, event)
    reported = {field: event.facts.get(field) for field in REFUND_FIELDS} | {kind or "read": True}
    refund.known = lww_map.merge(refund.known, event.require_time("at"), reported)
    _update_refund(refund)
    payment = uow.payment(refund.payment_id)
    _update(uow, payment)
    if not payment.known and uow.may_read and not uow.is_history:
        uow.request_lookup("capture" if _is_of_capture(event) else "sale", payment.id, LOOKUP_DELAY)
    if payment.subscription_id:
        subscription.recompute(uow, uow.subscription(payment.subscription_id))
        subscription.request_reread(uow, event, payment.subscription_id)
    return payment


def _new_refund(uow: UnitOfWork, event: Event) -> RefundRow:
    """Add a row for a new refund.

    Raises ParkEvent if the event has no readable amount or time, and NeedsLookup if it does not name its sale.
    """
    amount, currency = event.require("amount")
    created_at = event.require_time("created_at")
    sale = event.facts.get("sale")
    if sale is None:
        raise NeedsLookup("capture_refund" if _is_of_capture(event) else "refund", event.facts["refund"])
    row = RefundRow(event.facts["refund"], {}, sale, "refund", amount, currency, created_at)
    uow.add_refund(row)
    return row


def _is_of_capture(event: Event) -> bool:
    """Return whether the event is about a capture or its refund (Payments v2), not about a sale (v1)."""
    return event.type.startswith(("PAYMENT.CAPTURE.", "PAYMENT.REFUND.", "READ.CAPTURE"))


def _update_refund(row: RefundRow) -> None:
    """Recompute the columns from `known`."""
    row.kind = "reversal" if "reversal" in row.known else "refund"
    row.amount, row.currency = lww_map.value(row.known, "amount")
    row.returned_fee, row.returned_fee_currency = lww_map.value(row.known, "returned_fee") or (None, None)
    row.occurred_at = datetime.fromisoformat(lww_map.value(row.known, "created_at"))


def _merge_status(row: PaymentRow, status: SaleStatus, at: datetime) -> None:
    known, since = lww_map.value(row.known, "status"), lww_map.updated_at(row.known, "status")
    if known is None or since is None:
        row.known = lww_map.merge(row.known, at, {"status": status})
    elif (STATUS_PRIORITY[status], at, status != "denied") > (STATUS_PRIORITY[known], since, known != "denied"):
        kept = {field: entry for field, entry in row.known.items() if field != "status"}
        row.known = lww_map.merge(kept, at, {"status": status})


def _update(uow: UnitOfWork, row: PaymentRow) -> None:
    """Recompute the columns from `known` and the sale's refunds."""
    known = row.known
    row.subscription_id = lww_map.value(known, "subscription")
    uow.index_payment(row)
    row.amount, row.currency = lww_map.value(known, "amount") or (None, None)
    row.fee, row.fee_currency = lww_map.value(known, "fee") or (None, None)
    row.tax, row.shipping = (_part(row, lww_map.value(known, part)) for part in ("tax", "shipping"))
    row.received, row.received_currency = lww_map.value(known, "received") or (None, None)
    row.exchange_rate = lww_map.value(known, "rate")
    created_at = lww_map.value(known, "created_at")
    row.occurred_at = datetime.fromisoformat(created_at) if created_at else None
    row.refunded = uow.refunded_amount(row)
    is_missing = "missing" in known and "read" not in known
    decided = "unconfirmed" if is_missing else lww_map.value(known, "status")
    row.status = _status(decided, row, uow.effective_refunds(row.id))


def _part(row: PaymentRow, money: list[Any] | None) -> int | None:
    """Return a part of the payment's amount; None if it has another currency, because the column has none."""
    return money[0] if money and money[1] == row.currency else None


def _status(decided: str | None, row: PaymentRow, refunds: Sequence[RefundRow]) -> str | None:
    if decided != "completed" or row.refunded == 0 or row.amount is None:
        return decided
    if row.refunded < row.amount:
        return "partially_refunded"
    return "reversed" if any(refund.kind == "reversal" for refund in refunds) else "refunded"


def _check_sign(event: Event) -> None:
    if event.facts["amount"][0] < 0:
        raise ParkEvent(f"{event.type} has a negative amount")
