"""The terms of a subscription: its billing cycle, and what PayPal charges for each.

Both the subscription and its plan carry terms. Those of the subscription hold if they belong to its current plan and the
vendor overrode them, or if they are newer than the plan's.
"""

from dataclasses import dataclass
from datetime import timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from pipeline.billing.entitlement import BillingCycle
from pipeline.clock import parse_time
from pipeline.db import lww_map
from pipeline.db.models import Plan, Subscription
from pipeline.db.rows import PlanRow, SubscriptionRow
from pipeline.money import Money

# PayPal charges existing subscribers a new price for charges more than ten days after the change, plus a day of margin.
NEW_PRICE_AFTER = timedelta(days=11)
AnySubscription = SubscriptionRow | Subscription
AnyPlan = PlanRow | Plan


@dataclass(frozen=True, slots=True)
class Charge:
    """What PayPal charges for one cycle. `total` is the sum; `tax` and `shipping` are zero if nothing is added."""

    price: Money
    tax: Money
    shipping: Money

    @property
    def price_with_tax(self) -> Money:
        return Money(self.price.amount + self.tax.amount, self.price.currency)

    @property
    def total(self) -> Money:
        return Money(self.price.amount + self.tax.amount + self.shipping.amount, self.price.currency)


def terms_of(row: AnySubscription, plan: AnyPlan | None) -> dict[str, Any]:
    """Return the terms that hold, in the format of `paypal.subscription_resources`; {} if PayPal has reported none."""
    own = lww_map.value(row.known, "terms") or {}
    of_plan = (plan and lww_map.value(plan.known, "terms")) or {}
    if not own or own.get("plan", row.plan_id) != row.plan_id:
        return dict(of_plan)
    own_at, plan_at = lww_map.updated_at(row.known, "terms"), plan and lww_map.updated_at(plan.known, "terms")
    is_outdated = of_plan and own_at and plan_at and plan_at > own_at and not own.get("is_overridden")
    return dict(of_plan if is_outdated else own)


def billing_cycle_of(row: AnySubscription, plan: AnyPlan | None) -> BillingCycle | None:
    """Return the regular cycle with what PayPal charges for it, None if PayPal has reported no terms."""
    terms = terms_of(row, plan)
    if not terms:
        return None
    charge, start = regular_charge(row, plan), parse_time(lww_map.value(row.known, "start_at"))
    return BillingCycle(terms["unit"], terms["count"], charge.total if charge else None, start.day if start else 0)


def regular_charge(row: AnySubscription, plan: AnyPlan | None) -> Charge | None:
    """Return the charge of a regular cycle without any outstanding balance, None if its amount is not certain."""
    terms = terms_of(row, plan)
    quantity = quantity_of(row)
    if _may_have_old_price(row, terms):
        return None
    if terms.get("tiers"):
        price = _tiered(terms["tiers"], quantity, is_graduated=bool(terms.get("is_graduated")))
    else:
        price = _times(terms.get("price"), quantity)
    return _charge(row, terms, price)


def trial_charge(row: AnySubscription, plan: AnyPlan | None) -> Charge | None:
    """Return the next charge of a trial that PayPal still charges, None if there is none or its amount is not certain."""
    trial, terms = next_trial(row, plan), terms_of(row, plan)
    if trial is None or "unit" not in trial:
        return None
    regular = terms.get("price")
    price = trial["price"] or (regular and [0, regular[1]])
    return _charge(row, terms, _times(price, quantity_of(row)))


def next_trial(row: AnySubscription, plan: AnyPlan | None) -> dict[str, Any] | None:
    """Return the terms of the trial cycle that PayPal charges next, None if it charges a regular one or that is unknown."""
    left, trials = lww_map.value(row.known, "cycles_left"), terms_of(row, plan).get("trials") or []
    remaining = {sequence for sequence, cycles in (left or {}).get("trials", []) if cycles > 0}
    return next((trial for trial in trials if trial["sequence"] in remaining), None)


def may_be_in_trial(row: AnySubscription, plan: AnyPlan | None) -> bool:
    """Return whether the next charge may be one of a trial, with its own price and period."""
    left = lww_map.value(row.known, "cycles_left")
    return left["trial"] > 0 if left else bool(terms_of(row, plan).get("has_trial"))


def quantity_of(row: AnySubscription) -> int:
    """Return the number of units; 1 if PayPal reports none."""
    return int(lww_map.value(row.known, "quantity") or 1)


def _charge(row: AnySubscription, terms: dict[str, Any], price: Money | None) -> Charge | None:
    if price is None or terms.get("has_surcharge"):
        return None
    shipping = _shipping(row, price.currency)
    tax = _tax(price, terms.get("tax") or "0")
    if tax.amount and shipping.amount:  # PayPal does not document whether shipping is taxed
        return None
    return Charge(price, tax, shipping)


def _may_have_old_price(row: AnySubscription, terms: dict[str, Any]) -> bool:
    """Return whether PayPal may still charge an earlier price of the plan.

    PayPal may report the version of the price that it charges a subscriber; otherwise the date of the change decides.
    """
    charged, newest = (lww_map.value(row.known, "cycles_left") or {}).get("version"), terms.get("version")
    if newest is None or newest == 1 or terms.get("is_overridden"):
        return False
    if charged is not None:
        return bool(charged != newest)
    changed_at = parse_time(terms.get("price_at"))
    return bool(changed_at and row.next_billing_at and row.next_billing_at - changed_at <= NEW_PRICE_AFTER)


def _times(price: list[Any] | None, quantity: int) -> Money | None:
    return Money(price[0] * quantity, price[1]) if price else None


def _tiered(tiers: list[list[Any]], quantity: int, *, is_graduated: bool) -> Money | None:
    """Return the price of a quantity: of all units in the tier that the last one is in, or of each unit in its own tier."""
    amount, currency, counted = 0, tiers[0][2][1], 0
    for first, last, price in tiers:
        units = min(quantity, last or quantity) - first + 1
        if price[1] != currency:
            return None
        if units <= 0:
            continue
        if first != counted + 1 and is_graduated and first != 0:
            return None  # the tiers have a gap, so the price of some units is unknown
        amount = amount + units * price[0] if is_graduated else quantity * price[0]
        counted = min(quantity, last or quantity)
    return Money(amount, currency) if counted == quantity else None


def _tax(price: Money, percentage: str) -> Money:
    """Return the tax on a price. PayPal rounds it to the currency's minor unit, half up."""
    exact = Decimal(price.amount) * Decimal(percentage) / 100
    return Money(int(exact.quantize(Decimal(1), ROUND_HALF_UP)), price.currency)


def _shipping(row: AnySubscription, currency: str) -> Money:
    """Return what PayPal adds to each charge for shipping."""
    amount, of = lww_map.value(row.known, "shipping") or (0, currency)
    return Money(int(amount) if of == currency else 0, currency)
