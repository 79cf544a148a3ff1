"""A story told of several pretend customers, as `smt-billing simulate` posts it."""

from datetime import datetime, timedelta
from random import Random

from pipeline.simulator import plans
from pipeline.simulator.people import SimulatedCustomer, crowd
from pipeline.simulator.plans import Plan
from pipeline.simulator.scenarios import Scenario, ending_by
from pipeline.simulator.timeline import Delivery, by_time, disorder

DISORDER = timedelta(days=2)  # how far an event is moved at most when events are shuffled


def plans_by_name() -> dict[str, Plan]:
    """All plans by their names in lower case, in alphabetical order."""
    found = {name.lower(): value for name, value in vars(plans).items() if isinstance(value, Plan)}
    return dict(sorted(found.items()))


def deliveries_of(
    story: Scenario, plan: Plan, customers: int, rng: Random, begin: datetime | None, now: datetime, *, shuffled: bool
) -> list[Delivery]:
    """The deliveries of all customers, ordered by time, or shuffled with some sent twice.

    Without `begin` each story ends now. A story that begins in the past is told up to now.
    """
    told = [each for person in crowd(customers, rng) for each in _tell(story, person, plan, rng, begin, now)]
    ordered = by_time(told)
    return disorder(ordered, rng, duplicates=0.2, delayed=0.4, shuffle=DISORDER) if shuffled else ordered


def _tell(
    story: Scenario, person: SimulatedCustomer, plan: Plan, rng: Random, begin: datetime | None, now: datetime
) -> list[Delivery]:
    if begin is None:
        return ending_by(now, story, person, plan, rng)
    told = story(person, plan, begin, rng)
    return told if begin >= now else [each for each in told if each.at <= now]
