"""One sale at PayPal: a charge with its holds, clearing and refunds."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Literal, Protocol

from pipeline.money import Money, digits, format_amount
from pipeline.simulator import shapes
from pipeline.simulator.pricing import Charge, half_up
from pipeline.simulator.timeline import Json

PaymentMode = Literal["instant", "held", "echeck"]

CLEARING = timedelta(days=6)  # time until the bank pays or refuses an eCheck


class InvalidTransitionError(Exception):
    """PayPal does not allow this change in the current status."""


class Dispute(Protocol):
    """A dispute about a sale, as `pipeline.simulator.dispute` implements it."""

    id: str
    sale: "Sale"
    status: str
    amount: Money
    due_at: datetime | None
    fee: Money | None

    @property
    def held(self) -> Money: ...

    def shape(self) -> Json: ...


@dataclass(frozen=True, slots=True)
class Settlement:
    """The vendor's account: PayPal converts a sale to `currency` at `rate` (account units for one unit of the sale)."""

    currency: str
    rate: str
    fee_in_account_currency: bool = False

    def convert(self, amount: Money) -> Money:
        """Return the amount in the account's currency, rounded half up."""
        units = Decimal(amount.amount).scaleb(digits(self.currency) - digits(amount.currency))
        return Money(half_up(units * Decimal(self.rate)), self.currency)


@dataclass(slots=True)
class Sale:
    """A charge at PayPal. `resource` is its JSON as the API shows it; `refunded` is in minor units.

    `covers_until` is the end of the time that it pays; None for a set-up fee or a part of a balance.
    """

    resource: Json
    amount: Money
    charge: Charge
    at: datetime
    settlement: Settlement | None = None
    covers_until: datetime | None = None
    settled: bool = True
    refunded: int = 0
    refunds: dict[str, Json] = field(default_factory=dict)
    reversed_ids: set[str] = field(default_factory=set)

    @property
    def cycles(self) -> int:
        """How many regular cycles it pays."""
        return self.charge.cycles

    @property
    def id(self) -> str:
        """The sale's id."""
        return str(self.resource["id"])

    @property
    def fee(self) -> Money | None:
        """PayPal's fee; None while the sale is pending or after it was denied."""
        if not self.settled:
            return None
        fee = shapes.fee(self.amount)
        return self.settlement.convert(fee) if self.settlement and self.settlement.fee_in_account_currency else fee

    @property
    def receivable(self) -> Money | None:
        """What reaches the vendor's account in its own currency; None without conversion."""
        if self.settlement is None or not self.settled:
            return None
        return self.settlement.convert(Money(self.amount.amount - shapes.fee(self.amount).amount, self.amount.currency))

    def set_mode(self, mode: PaymentMode, at: datetime) -> None:
        """Hold the payment or let it wait for the bank; add the conversion of a completed one."""
        if mode == "held":
            self.hold()
        if mode == "echeck":
            self.await_clearing(at)
        self.resource |= self._conversion()

    def _conversion(self) -> Json:
        if self.settlement is None or self.fee is None or self.receivable is None:
            return {}
        in_account = self.settlement.convert(shapes.fee(self.amount))
        return {
            "transaction_fee": _value(self.fee),
            "receivable_amount": _value(self.receivable),
            "exchange_rate": self.settlement.rate,
            "transaction_fee_in_receivable_currency": _value(in_account),
        }

    def reinstate(self, reversal: str, at: datetime) -> None:
        """Give a reversed amount back to the vendor after a won dispute."""
        amount = abs(shapes.refunded_amount(self.refunds[reversal]))
        self.refunded -= amount
        self.refunds[reversal] = {**self.refunds[reversal], "state": "cancelled", "update_time": shapes.seconds(at)}
        state = "partially_refunded" if self.refunded else "completed"
        self.resource = {**self.resource, "state": state, "update_time": shapes.seconds(at)}

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
        self._end_clearing(
            at, "completed", **({"transaction_fee": _value(shapes.fee(self.amount))} | self._conversion())
        )

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


def _value(amount: Money) -> Json:
    return {"value": format_amount(amount), "currency": amount.currency}
