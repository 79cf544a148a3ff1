"""Plans of the API as the simulator's `Plan`, and the dates and prices of subscriptions to them."""

from dataclasses import replace
from datetime import datetime
from typing import get_args

from pipeline.money import Money, parse_amount
from pipeline.simulator.plans import PLANS, Plan, Unit
from pipeline.simulator.server.answers import moment, refused
from pipeline.simulator.timeline import Json


def plan_of(resource: Json) -> Plan:
    """Return the plan with the price that the API shows now. Raises ApiError for units that the simulator cannot charge."""
    known = PLANS.get(resource["id"]) or _new_plan(resource)
    threshold = int(resource["payment_preferences"].get("payment_failure_threshold", 0))
    price = fixed_price(resource["billing_cycles"][-1]) or known.price
    return replace(known, name=resource["name"], price=price, failure_threshold=threshold)


def fixed_price(cycle: Json) -> Money | None:
    """Return the fixed price of a billing cycle; None if it has tiers or is free."""
    price = cycle.get("pricing_scheme", {}).get("fixed_price")
    return parse_amount(price["value"], price["currency_code"]) if price else None


def next_billing_after(subscription: Json, plan: Plan, now: datetime) -> datetime:
    """Return the first due date of a subscription after `now`: cycles that fell due before are not charged."""
    anchor, cycle = plan.first_due(moment(subscription, "start_time")), 0
    while plan.due(anchor, cycle) <= now:
        cycle += 1
    return plan.due(anchor, cycle)


def _new_plan(resource: Json) -> Plan:
    """Return a plan that was created through the API, with one free trial at most."""
    *trials, regular = resource["billing_cycles"]
    unit = next((each for each in get_args(Unit) if each == regular["frequency"]["interval_unit"]), None)
    price = fixed_price(regular)
    days = [each["frequency"] for each in trials if each["frequency"]["interval_unit"] == "DAY"]
    if unit is None or price is None or len(days) < len(trials):
        description = "The simulator charges a fixed price each month or year, after a trial in days. Use such a plan."
        raise refused("PLAN_STATUS_INVALID", description)
    return Plan(
        resource["id"],
        resource["name"],
        price,
        unit,
        int(regular["frequency"].get("interval_count", 1)),
        int(regular.get("total_cycles", 0)),
        sum(int(each["interval_count"]) for each in days),
        since=moment(resource, "create_time"),
    )
