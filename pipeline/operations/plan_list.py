"""Describe PayPal's plans for the operator, and compare those of SMT_PLANS with PayPal."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.money import InvalidAmountError, Money, format_money, parse_amount
from pipeline.paypal import catalog
from pipeline.paypal.api import PaypalApi


@dataclass(frozen=True, slots=True)
class ListedPlan:
    """A plan at PayPal. `cycles` describes each billing cycle in words; `offered_as` is its name in SMT_PLANS or ""."""

    id: str
    name: str
    product: str
    status: str
    cycles: tuple[str, ...]
    offered_as: str

    @property
    def price(self) -> str:
        """All billing cycles, such as `free for 1 month, then €10.00 every month`."""
        return ", then ".join(self.cycles)


def list_plans(paypal: PaypalApi, offered: Mapping[str, str], locale: str) -> list[ListedPlan]:
    """Return the plans at PayPal, by name. Raises PaypalRejectedError or PaypalUnavailableError."""
    names = {id: name for name, id in offered.items()}
    found = [_listed(each, names, locale) for each in catalog.list_plans(paypal)]
    return sorted(found, key=lambda each: (each.name, each.id))


def plan_problems(plans: Iterable[ListedPlan], offered: Mapping[str, str]) -> list[str]:
    """Return a sentence for each plan of SMT_PLANS that nobody can subscribe to."""
    status = {each.id: each.status for each in plans}
    problems = []
    for name, id in offered.items():
        if id not in status:
            problems.append(f"SMT_PLANS offers {name}={id}, but PayPal has no such plan; correct SMT_PLANS")
        elif status[id] != "ACTIVE":
            problems.append(
                f"SMT_PLANS offers {name}={id}, but the plan is {status[id]} at PayPal, so every order fails; "
                "activate it at PayPal or remove it from SMT_PLANS"
            )
    return problems


def _listed(plan: dict[str, Any], names: Mapping[str, str], locale: str) -> ListedPlan:
    cycles = plan.get("billing_cycles")
    ordered = sorted(
        (each for each in cycles if isinstance(each, dict)) if isinstance(cycles, list) else [],
        key=lambda each: each["sequence"] if isinstance(each.get("sequence"), int) else 0,
    )
    id = str(plan["id"])
    return ListedPlan(
        id,
        str(plan.get("name") or ""),
        str(plan.get("product_id") or ""),
        str(plan.get("status") or ""),
        tuple(_describe(each, locale) for each in ordered),
        names.get(id, ""),
    )


def _describe(cycle: dict[str, Any], locale: str) -> str:
    price = _price(cycle)
    amount = "free" if price is None or price.amount == 0 else format_money(price, locale)
    if price is None and cycle.get("tenure_type") == "REGULAR":
        amount = "a price that depends on the quantity"
    total = cycle.get("total_cycles") or 0
    if cycle.get("tenure_type") == "TRIAL" and total == 1:
        return f"{amount} for {_interval(cycle, '1 ')}"
    return f"{amount} every {_interval(cycle, '')}" + (f" ({total} times)" if total else "")


def _price(cycle: dict[str, Any]) -> Money | None:
    scheme = cycle.get("pricing_scheme")
    fixed = scheme.get("fixed_price") if isinstance(scheme, dict) else None
    if not isinstance(fixed, dict):
        return None
    try:
        return parse_amount(fixed.get("value"), fixed.get("currency_code"))
    except InvalidAmountError:
        return None


def _interval(cycle: dict[str, Any], one: str) -> str:
    frequency = cycle.get("frequency")
    of = frequency if isinstance(frequency, dict) else {}
    unit, count = str(of.get("interval_unit") or "").lower(), of.get("interval_count") or 1
    return f"{one}{unit}" if count == 1 else f"{count} {unit}s"
