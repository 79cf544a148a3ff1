"""One sale at PayPal: a charge, and what became of it."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from pipeline.money import Money
from pipeline.simulator import shapes
from pipeline.simulator.timeline import Json

Way = Literal["instant", "held", "echeck"]

CLEARING = timedelta(days=6)  # how long a bank takes for an eCheck


class InvalidTransitionError(Exception):  # noqa: N818 - what it is, not that it is an error
    """PayPal would not let this happen to a subscription in this status."""


@dataclass(slots=True)
class Sale:
    """A charge; amounts in minor units. `resource` is the sale as PayPal shows it."""

    resource: Json
    amount: Money
    cycles: int
    settled: bool = True
    refunded: int = 0

    @property
    def rest(self) -> int:
        """The amount that can still be refunded."""
        return self.amount.amount - self.refunded if self.settled else 0

    @property
    def held(self) -> bool:
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
        """Pay by eCheck: pending until the bank has decided."""
        del self.resource["transaction_fee"]
        self.resource |= {"state": "pending", "payment_mode": "ECHECK", "reason_code": "ECHECK"}
        self.resource["clearing_time"] = shapes.seconds(at + CLEARING)
        self.settled = False

    def clear(self, at: datetime) -> None:
        """The bank pays a pending eCheck."""
        self.settled = True
        fee = {"value": shapes.v1(shapes.fee(self.amount))["total"], "currency": self.amount.currency}
        self._end_clearing(at, "completed", transaction_fee=fee)

    def deny(self, at: datetime) -> None:
        """The bank refuses a pending eCheck."""
        self._end_clearing(at, "denied")

    def give_back(self, amount: Money, at: datetime) -> None:
        """Refund a part. Raises Impossible for more than is left."""
        if not 0 < amount.amount <= self.rest:
            raise InvalidTransitionError(f"{amount} is not between nothing and what is left of the sale")
        self.refunded += amount.amount
        state = "partially_refunded" if self.rest else "refunded"
        self.resource = {**self.resource, "state": state, "update_time": shapes.seconds(at)}

    def _end_clearing(self, at: datetime, state: str, **more: Json) -> None:
        left_out = ("reason_code", "clearing_time")
        kept = {key: value for key, value in self.resource.items() if key not in left_out}
        self.resource = {**kept, "state": state, "update_time": shapes.seconds(at), **more}
