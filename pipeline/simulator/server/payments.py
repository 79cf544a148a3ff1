"""Refunds: of sales in Payments v1, of captures in Payments v2.

Errors of v1 have their own names (https://developer.paypal.com/docs/api/payments/v1/#errors); those of v2 are issues.
"""

from datetime import timedelta

from pipeline.money import InvalidAmountError, Money, parse_amount
from pipeline.simulator import ids, shapes
from pipeline.simulator.server.answers import Answer, ApiError, Call, moment, money_v2, not_found, refused, v1_not_found
from pipeline.simulator.server.feed import EventFeed
from pipeline.simulator.timeline import Json, Kind

REFUNDABLE_FOR = timedelta(days=180)  # after a sale; later PayPal refuses the refund
_REFUSALS = {
    "REFUND_EXCEEDED_TRANSACTION_AMOUNT": (
        "Refund refused - the requested refund amount would exceed the amount of transaction being refunded."
    ),
    "TRANSACTION_ALREADY_REFUNDED": "Refund transaction refused - this transaction has already been refunded.",
    "FULL_REFUND_NOT_ALLOWED_AFTER_PARTIAL_REFUND": (
        "Full refund refused - partial refund has already been done on this payment."
    ),
    "REFUND_TIME_LIMIT_EXCEEDED": "This transaction is too old to refund.",
    "TRANSACTION_REFUSED": "This request was refused.",
}


class Refunds:
    """Refund operations. Without an amount, the whole payment is refunded."""

    def __init__(self, feed: EventFeed) -> None:
        self._feed, self._world = feed, feed.world

    def refund_sale(self, call: Call) -> Answer:
        """Refund a sale. An empty body after a partial refund is refused: name the rest as amount."""
        sale = self._world.show("sale", call.id)
        if sale is None:
            raise v1_not_found()
        whole = parse_amount(sale["amount"]["total"], sale["amount"]["currency"])
        before = self._refunded("refund", "sale_id", call.id)
        amount = _v1_amount(call, whole, before)
        self._check_sale(sale, amount, before, whole)
        return 201, self._refund_sale(sale, amount, before, whole, str(call.body.get("invoice_number", "")))

    def refund_capture(self, call: Call) -> Answer:
        """Refund a capture. Without an amount, what is left of it."""
        capture = self._world.show("capture", call.id)
        if capture is None:
            raise not_found()
        whole = parse_amount(capture["amount"]["value"], capture["amount"]["currency_code"])
        before = self._refunded("capture_refund", "capture", call.id)
        rest = whole.amount - before
        amount = money_v2(call.body["amount"], "/amount") if "amount" in call.body else Money(rest, whole.currency)
        _check_capture(capture, amount, rest)
        full = self._refund_capture(capture, amount, before, call)
        minimal = {key: full[key] for key in ("id", "status", "links")}
        return 201, full if call.wants_representation else minimal

    # Sales -----------------------------------------------------------------------------------------------------------

    def _check_sale(self, sale: Json, amount: Money, before: int, whole: Money) -> None:
        if sale["state"] not in ("completed", "partially_refunded", "refunded") or amount.currency != whole.currency:
            raise _refuse("TRANSACTION_REFUSED")
        if before >= whole.amount:
            raise _refuse("TRANSACTION_ALREADY_REFUNDED")
        if before + amount.amount > whole.amount:
            raise _refuse("REFUND_EXCEEDED_TRANSACTION_AMOUNT")
        if self._feed.now - moment(sale, "create_time") > REFUNDABLE_FOR:
            raise _refuse("REFUND_TIME_LIMIT_EXCEEDED")

    def _refund_sale(self, sale: Json, amount: Money, before: int, whole: Money, invoice: str) -> Json:
        now, total = self._feed.now, before + amount.amount
        refund = shapes.refund(ids.payment(self._feed.rng), sale["id"], amount, Money(total, amount.currency), now)
        refund["invoice_number"] = invoice
        state = "refunded" if total == whole.amount else "partially_refunded"
        changed = {**sale, "state": state, "update_time": shapes.seconds(now)}
        self._feed.change("PAYMENT.SALE.REFUNDED", "refund", refund, {"refund": refund, "sale": changed}, amount)
        return _detailed(refund, sale)

    def _refunded(self, kind: shapes.RefundKind, field: str, payment: str) -> int:
        """Return the sum of a payment's refunds and reversals in minor units, without those that were cancelled."""
        return sum(
            abs(shapes.refunded_amount(each))
            for each in self._world.show_all(kind, lambda each: shapes.refunded_payment(each, field) == payment)
            if each.get("state") != "cancelled"
        )

    # Captures --------------------------------------------------------------------------------------------------------

    def _refund_capture(self, capture: Json, amount: Money, before: int, call: Call) -> Json:
        total, whole = before + amount.amount, capture["amount"]
        texts: Json = {
            name: call.body[name] for name in ("invoice_id", "note_to_payer", "custom_id") if name in call.body
        }
        refund = shapes.capture_refund(
            ids.payment(self._feed.rng), capture, amount, Money(total, amount.currency), self._feed.now, texts
        )
        done = total == parse_amount(whole["value"], whole["currency_code"]).amount
        at = shapes.seconds(self._feed.now)
        changed = {**capture, "status": "REFUNDED" if done else "PARTIALLY_REFUNDED", "update_time": at}
        kept: dict[Kind, Json] = {"capture_refund": refund, "capture": changed}
        self._feed.change("PAYMENT.CAPTURE.REFUNDED", "refund", refund, kept, amount)
        return refund


def _v1_amount(call: Call, whole: Money, before: int) -> Money:
    """Return the amount of a v1 request: `{"amount": {"total", "currency"}}`; without it the whole sale."""
    if "amount" not in call.body:
        if 0 < before < whole.amount:
            raise _refuse("FULL_REFUND_NOT_ALLOWED_AFTER_PARTIAL_REFUND")
        return whole
    sent = call.body["amount"] if isinstance(call.body["amount"], dict) else {}
    try:
        found = parse_amount(sent.get("total"), sent.get("currency"))
    except InvalidAmountError:
        found = Money(0, whole.currency)
    if found.amount <= 0:
        detail = {"field": "amount.total", "issue": "Amount must be greater than zero and a valid decimal number"}
        raise ApiError(400, "VALIDATION_ERROR", "Invalid request - see details.", [detail])
    return found


def _refuse(name: str) -> ApiError:
    return ApiError(400, name, _REFUSALS[name])


def _detailed(refund: Json, sale: Json) -> Json:
    """Return a new refund as the call that made it shows it: these amounts have `value` where the webhook has `total`."""
    shown = dict(refund)
    for field in ("refund_from_received_amount", "refund_from_transaction_fee", "total_refunded_amount"):
        shown[field] = {"currency": refund[field]["currency"], "value": refund[field]["total"]}
    for field in ("refund_to_payer", "refund_reason_code"):
        del shown[field]
    return {**shown, **({"custom": sale["custom"]} if sale.get("custom") else {})}


def _check_capture(capture: Json, amount: Money, rest: int) -> None:
    if capture["status"] == "PENDING":
        description = (
            "Cannot initiate a refund as the capture is pending. Capture is typically pending when the payer has funded "
            "the transaction using e-check/bank funded."
        )
        raise refused("PENDING_CAPTURE", description)
    if capture["status"] not in ("COMPLETED", "PARTIALLY_REFUNDED", "REFUNDED"):
        raise refused("REFUND_NOT_ALLOWED", "Capture cannot be refunded.")
    if rest <= 0:
        raise refused("CAPTURE_FULLY_REFUNDED", "The capture has already been fully refunded")
    if amount.currency != capture["amount"]["currency_code"]:
        raise refused("REFUND_CAPTURE_CURRENCY_MISMATCH", "Refund must be in the same currency as the capture")
    if amount.amount > rest:
        description = (
            "The refund amount must be less than or equal to the capture amount that has not yet been refunded."
        )
        raise refused("REFUND_AMOUNT_EXCEEDED", description)
