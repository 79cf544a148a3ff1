"""The arithmetic of one charge: price by quantity or tiers, tax, shipping, set-up fee and outstanding balance.

All amounts are minor units of the plan's currency. PayPal rounds the tax of each charge half up to the currency's minor
unit. The tax applies to the price of the cycle, not to shipping, set-up fee or an earlier balance (assumption: PayPal
documents only that `taxes` belong to the billing cycles).
"""

from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal

from pipeline.simulator.plans import Plan, Tier, Trial


@dataclass(frozen=True, slots=True)
class Charge:
    """The parts of a charge. `tax` is added to the price; `included_tax` and `balance_tax` are parts.

    `cycles` is how many regular cycles it pays. `covers` is false for a set-up fee alone, which pays no time.
    """

    price: int = 0
    tax: int = 0
    included_tax: int = 0
    shipping: int = 0
    setup_fee: int = 0
    balance: int = 0
    balance_tax: int = 0
    cycles: int = 0
    covers: bool = True

    @property
    def total(self) -> int:
        """The amount that PayPal collects."""
        return self.price + self.tax + self.shipping + self.setup_fee + self.balance


@dataclass(slots=True)
class Outstanding:
    """The outstanding balance: its amount, the exclusive tax in it, and the unpaid regular cycles."""

    amount: int = 0
    tax: int = 0
    cycles: int = 0

    def add(self, amount: int, tax: int, cycles: int) -> None:
        """Add an unpaid amount."""
        self.amount, self.tax, self.cycles = self.amount + amount, self.tax + tax, self.cycles + cycles

    def settle(self, amount: int) -> Charge:
        """Take `amount` from the balance. Its cycles count as paid when the whole balance is."""
        whole = amount == self.amount
        tax = self.tax if whole else self.tax * amount // self.amount
        paid = Charge(balance=amount, balance_tax=tax, cycles=self.cycles if whole else 0)
        self.amount, self.tax, self.cycles = self.amount - amount, self.tax - tax, self.cycles - paid.cycles
        return paid


def charge(plan: Plan, quantity: int, trial: Trial | None = None) -> Charge:
    """Return the charge of one trial or regular cycle, without set-up fee and balance. A free cycle is all zero."""
    price = trial.price * quantity if trial else regular_price(plan, quantity)
    if not price and trial:
        return Charge()
    rate = Decimal(plan.tax_percent)
    if plan.tax_inclusive:
        included = price - half_up(Decimal(price) * 100 / (100 + rate))
        return Charge(price, included_tax=included, shipping=plan.shipping, cycles=0 if trial else 1)
    return Charge(price, half_up(price * rate / 100), shipping=plan.shipping, cycles=0 if trial else 1)


def regular_price(plan: Plan, quantity: int) -> int:
    """Return the price of one regular cycle for `quantity` seats, without exclusive tax."""
    if not plan.tiers:
        return plan.price.amount * quantity
    if plan.tier_model == "VOLUME":
        return quantity * next(tier.price for tier in plan.tiers if tier.last is None or quantity <= tier.last)
    return sum(tier.price * _seats_in(tier, quantity) for tier in plan.tiers)


def half_up(value: Decimal) -> int:
    """Round to an integer, halves away from zero."""
    return int(value.quantize(Decimal(1), ROUND_HALF_UP))


def _seats_in(tier: Tier, quantity: int) -> int:
    last = quantity if tier.last is None else min(quantity, tier.last)
    return max(0, last - tier.first + 1)
