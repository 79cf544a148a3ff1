"""Deliveries of one scenario for several simulated customers, for `smt-billing simulate`."""

from datetime import datetime, timedelta
from random import Random

from pipeline.simulator import plans
from pipeline.simulator.people import SimulatedCustomer, crowd
from pipeline.simulator.plans import Plan
from pipeline.simulator.scenarios import Scenario, scenario_ending_at
from pipeline.simulator.timeline import Delivery, by_time, disorder

DISORDER = timedelta(days=2)  # maximum delay of an event when events are shuffled


def plans_by_name() -> dict[str, Plan]:
    """Return all plans by their names in lower case, in alphabetical order."""
    found = {name.lower(): value for name, value in vars(plans).items() if isinstance(value, Plan)}
    return dict(sorted(found.items()))


def deliveries_of(
    scenario: Scenario,
    plan: Plan,
    customers: int,
    rng: Random,
    begin: datetime | None,
    now: datetime,
    *,
    shuffled: bool,
) -> list[Delivery]:
    """Return the deliveries for all customers, ordered by time; if `shuffled`, disordered and some repeated.

    Without `begin`, each scenario ends now. With a `begin` in the past, deliveries after `now` are omitted.
    """
    deliveries = [each for person in crowd(customers, rng) for each in _run(scenario, person, plan, rng, begin, now)]
    ordered = by_time(deliveries)
    return disorder(ordered, rng, duplicates=0.2, delayed=0.4, shuffle=DISORDER) if shuffled else ordered


def _run(
    scenario: Scenario, person: SimulatedCustomer, plan: Plan, rng: Random, begin: datetime | None, now: datetime
) -> list[Delivery]:
    if begin is None:
        return scenario_ending_at(now, scenario, person, plan, rng)
    deliveries = scenario(person, plan, begin, rng)
    return deliveries if begin >= now else [each for each in deliveries if each.at <= now]
