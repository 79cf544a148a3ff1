"""Plans of the API as the simulator's `Plan`, and the overrides of one subscription."""

from datetime import datetime
from typing import get_args

from pipeline.money import Money, parse_amount
from pipeline.simulator.plans import PLANS, Plan, Unit
from pipeline.simulator.server.answers import moment, refused
from pipeline.simulator.timeline import Json


def plan_of(resource: Json) -> Plan:
    """Return the plan with the price that the API shows now. Raises ApiError for units that the simulator cannot charge."""
    cycles = sorted(resource["billing_cycles"], key=lambda cycle: cycle["sequence"])
    regular = cycles[-1]
    unit = regular["frequency"]["interval_unit"]
    known = next((each for each in get_args(Unit) if each == unit), None)
    if known is None:
        raise refused("PLAN_STATUS_INVALID", f"The simulator does not charge plans by {unit}.")
    trials = [cycle["frequency"] for cycle in cycles[:-1] if cycle["frequency"]["interval_unit"] == "DAY"]
    standard = PLANS.get(resource["id"])
    return Plan(
        resource["id"],
        resource["name"],
        price_of(regular),
        known,
        int(regular["frequency"].get("interval_count", 1)),
        int(regular.get("total_cycles", 0)),
        sum(int(trial["interval_count"]) for trial in trials),
        standard.quantity if standard else 1,
        int(resource["payment_preferences"].get("payment_failure_threshold", 0)),
        moment(resource, "create_time"),
    )


def price_of(cycle: Json) -> Money:
    """Return the fixed price of a billing cycle."""
    price = cycle["pricing_scheme"]["fixed_price"]
    return parse_amount(price["value"], price["currency_code"])


def next_billing_after(subscription: Json, plan: Plan, now: datetime) -> datetime:
    """Return the first due date of a subscription after `now`: cycles that fell due before are not charged."""
    anchor, cycle = plan.first_due(moment(subscription, "start_time")), 0
    while plan.due(anchor, cycle) <= now:
        cycle += 1
    return plan.due(anchor, cycle)
