"""One sale at PayPal: a charge with its holds, clearing and refunds."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from pipeline.money import Money
from pipeline.simulator import shapes
from pipeline.simulator.timeline import Json

PaymentMode = Literal["instant", "held", "echeck"]

CLEARING = timedelta(days=6)  # time until the bank pays or refuses an eCheck


class InvalidTransitionError(Exception):
    """PayPal does not allow this change in the current status."""


@dataclass(slots=True)
class Sale:
    """A charge for `cycles` cycles; `refunded` is in minor units. `resource` is the sale in PayPal's JSON format."""

    resource: Json
    amount: Money
    cycles: int
    settled: bool = True
    refunded: int = 0

    @property
    def rest(self) -> int:
        """The amount that can still be refunded, in minor units."""
        return self.amount.amount - self.refunded if self.settled else 0

    @property
    def held(self) -> bool:
        """Whether PayPal holds the payment."""
        return self.resource.get("payment_hold_status") == "HELD"

    def hold(self) -> None:
        """Hold the payment, as PayPal does with new sellers."""
        self.resource["payment_hold_status"] = "HELD"
        self.resource["payment_hold_reasons"] = [{"payment_hold_reason": "PAYMENT_HOLD"}]

    def release(self, at: datetime) -> None:
        """Release a held payment."""
        self.resource = {**self.resource, "payment_hold_status": "RELEASED", "update_time": shapes.seconds(at)}
        del self.resource["payment_hold_reasons"]

    def await_clearing(self, at: datetime) -> None:
        """Make the sale an eCheck payment, which is pending until the bank pays or refuses."""
        del self.resource["transaction_fee"]
        self.resource |= {"state": "pending", "payment_mode": "ECHECK", "reason_code": "ECHECK"}
        self.resource["clearing_time"] = shapes.seconds(at + CLEARING)
        self.settled = False

    def clear(self, at: datetime) -> None:
        """Complete a pending eCheck."""
        self.settled = True
        fee = {"value": shapes.v1(shapes.fee(self.amount))["total"], "currency": self.amount.currency}
        self._end_clearing(at, "completed", transaction_fee=fee)

    def deny(self, at: datetime) -> None:
        """Deny a pending eCheck."""
        self._end_clearing(at, "denied")

    def refund(self, amount: Money, at: datetime) -> None:
        """Refund an amount. Raises InvalidTransitionError if it exceeds the amount that is left."""
        if not 0 < amount.amount <= self.rest:
            raise InvalidTransitionError(
                f"cannot refund {amount}: the amount must be positive and at most what is left of the sale"
            )
        self.refunded += amount.amount
        state = "partially_refunded" if self.rest else "refunded"
        self.resource = {**self.resource, "state": state, "update_time": shapes.seconds(at)}

    def _end_clearing(self, at: datetime, state: str, **more: Json) -> None:
        removed = ("reason_code", "clearing_time")
        kept = {key: value for key, value in self.resource.items() if key not in removed}
        self.resource = {**kept, "state": state, "update_time": shapes.seconds(at), **more}
