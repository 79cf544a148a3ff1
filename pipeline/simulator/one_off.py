"""A one-off payment: an order that the buyer approves, its capture, and the capture's refunds and reversal (v2 formats).

Source: https://developer.paypal.com/docs/api/payments/v2/ and https://developer.paypal.com/docs/api/orders/v2/
"""

from datetime import datetime, timedelta
from random import Random
from typing import Literal

from pipeline.money import Money
from pipeline.simulator import ids, shapes
from pipeline.simulator.event_source import EventSource
from pipeline.simulator.people import SimulatedCustomer
from pipeline.simulator.sale import InvalidTransitionError
from pipeline.simulator.timeline import Json, Kind

CaptureStatus = Literal["COMPLETED", "PENDING", "DECLINED", "PARTIALLY_REFUNDED", "REFUNDED"]
Refunded = Literal["COMPLETED", "PENDING", "FAILED"]


class OneOffPayment(EventSource):
    """One order of one person. `capture_status` is None before the capture; `refunded` is in minor units."""

    def __init__(
        self, person: SimulatedCustomer, amount: Money, start: datetime, rng: Random, *, invoice_id: str = "INVOICE-1"
    ) -> None:
        super().__init__(rng, start)
        self.person, self.amount, self.invoice_id = person, amount, invoice_id
        self.order_id, self.capture_id = ids.payment(rng), ids.payment(rng)
        self.created = self.updated = self.captured_at = self.now
        self.order_status, self.refunded = "CREATED", 0
        self.capture_status: CaptureStatus | None = None
        self.refunds: dict[str, Json] = {}

    @property
    def fee(self) -> Money | None:
        """PayPal's fee; None before the capture is completed."""
        return (
            shapes.fee(self.amount) if self.capture_status in ("COMPLETED", "PARTIALLY_REFUNDED", "REFUNDED") else None
        )

    @property
    def rest(self) -> int:
        """The amount that can still be refunded, in minor units."""
        return self.amount.amount - self.refunded if self.fee else 0

    def approve(self, at: datetime) -> None:
        """Let the buyer approve the order."""
        self.order_status, self.updated = "APPROVED", at
        self._add_order("APPROVED", at)

    def capture(self, at: datetime, status: Literal["COMPLETED", "PENDING", "DECLINED"] = "COMPLETED") -> None:
        """Capture the order. PENDING waits for PayPal's review; DECLINED moves no money."""
        self.capture_status, self.captured_at = status, at
        self._set_capture(status, at)
        if status == "COMPLETED":
            self._complete_order(at)

    def finish(self, at: datetime, status: Literal["COMPLETED", "DENIED"] = "COMPLETED") -> None:
        """End the review of a pending capture. The event is DENIED, but the capture's status is DECLINED."""
        if self.capture_status != "PENDING":
            raise InvalidTransitionError(f"the capture is {self.capture_status}, not PENDING")
        self.capture_status = "DECLINED" if status == "DENIED" else status
        self._set_capture(status, at)
        if status == "COMPLETED":
            self._complete_order(at)

    def refund(self, at: datetime, amount: int | None = None, *, status: Refunded = "COMPLETED") -> str:
        """Refund `amount` minor units or the rest. A PENDING or FAILED refund moves no money. Return the refund's id."""
        return self._take(at, self.rest if amount is None else amount, "REFUNDED", status)

    def reverse(self, at: datetime) -> str:
        """Let PayPal take the rest back. Return the id of the reversal."""
        return self._take(at, self.rest, "REVERSED", "COMPLETED")

    def shape(self) -> Json:
        """Return the capture as the API shows it."""
        url = f"{shapes.API}/v2/payments/captures/{self.capture_id}"
        order = shapes.link(f"{shapes.API}/v2/checkout/orders/{self.order_id}", "up")
        return {
            "id": self.capture_id,
            "status": self.capture_status,
            **({"status_details": {"reason": "PENDING_REVIEW"}} if self.capture_status == "PENDING" else {}),
            "amount": shapes.decimals(self.amount),
            "final_capture": True,
            "seller_protection": {
                "status": "ELIGIBLE",
                "dispute_categories": ["ITEM_NOT_RECEIVED", "UNAUTHORIZED_TRANSACTION"],
            },
            "seller_receivable_breakdown": self._breakdown(),
            "invoice_id": self.invoice_id,
            "custom_id": self.person.custom_id,
            "supplementary_data": {"related_ids": {"order_id": self.order_id}},
            "create_time": shapes.seconds(self.captured_at),
            "update_time": shapes.seconds(self.updated),
            "links": [shapes.link(url, "self"), shapes.link(url + "/refund", "refund", "POST"), order],
        }

    def order(self) -> Json:
        """Return the order as the API shows it."""
        url = f"{shapes.API}/v2/checkout/orders/{self.order_id}"
        unit: Json = {
            "reference_id": "default",
            "custom_id": self.person.custom_id,
            "amount": {**shapes.decimals(self.amount), "breakdown": {}},
            "payee": {"email_address": "vendor@example.com"},
        }
        payer = shapes.subscriber(self.person)
        if address := payer.pop("shipping_address", None):
            unit["shipping"] = address
        if self.order_status == "COMPLETED":
            unit["payments"] = {"captures": [self.shape()]}
        return {
            "id": self.order_id,
            "intent": "CAPTURE",
            "status": self.order_status,
            "payer": payer,
            "purchase_units": [unit],
            "create_time": shapes.seconds(self.created),
            "update_time": shapes.seconds(self.updated),
            "links": [shapes.link(url, "self"), shapes.link(url + "/capture", "capture", "POST")],
        }

    def _breakdown(self) -> Json:
        gross = shapes.decimals(self.amount)
        if self.fee is None:
            return {"gross_amount": gross, "net_amount": gross}
        net = Money(self.amount.amount - self.fee.amount, self.amount.currency)
        return {"gross_amount": gross, "paypal_fee": shapes.decimals(self.fee), "net_amount": shapes.decimals(net)}

    def _take(self, at: datetime, amount: int, kind: Literal["REFUNDED", "REVERSED"], status: Refunded) -> str:
        if not 0 < amount <= self.rest:
            raise InvalidTransitionError(f"cannot refund {amount}: {self.rest} is left of the capture")
        money, name = Money(amount, self.amount.currency), ids.payment(self.rng)
        moved = amount if status == "COMPLETED" else 0
        self.refunded += moved
        total = Money(self.refunded, self.amount.currency)
        shown = shapes.capture_refund(name, self.shape(), money, total, at, {"invoice_id": self.invoice_id})
        shown["status"] = status
        self.refunds[name] = shown
        if moved:
            self.capture_status, self.updated = ("PARTIALLY_REFUNDED" if self.rest else "REFUNDED"), at
        event = f"PAYMENT.CAPTURE.{kind}" if moved else f"PAYMENT.REFUND.{status}"
        kept: list[tuple[Kind, Json]] = [("capture", self.shape()), ("capture_refund", shown)]
        self.emit(event, at, "refund", shown, money, kept)
        return name

    def _set_capture(self, status: str, at: datetime) -> None:
        self.updated = at
        shown = self.shape()
        self.emit(f"PAYMENT.CAPTURE.{status}", at, "capture", shown, self.amount, [("capture", shown)])

    def _complete_order(self, at: datetime) -> None:
        self.order_status = "COMPLETED"
        self._add_order("COMPLETED", at + timedelta(seconds=2))

    def _add_order(self, status: str, at: datetime) -> None:
        self.emit(f"CHECKOUT.ORDER.{status}", at, "checkout-order", self.order(), self.amount, [])
