"""The customers of a simulated vendor: random lives that end at a given time, with what was true at each moment."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Any

from pipeline.money import Money
from pipeline.simulator.people import SimulatedCustomer, crowd
from pipeline.simulator.plans import Plan
from pipeline.simulator.random_life import Life, random_life
from pipeline.simulator.subscription import SimulatedSubscription
from pipeline.simulator.timeline import Delivery, by_time
from pipeline.simulator.truth import paid_until

MOST_CHANGES = 200
NEWEST = timedelta(days=35)  # the last customer comes this long before the end
LEAVING = 0.4  # share of the customers who may cancel; the others stay


@dataclass(frozen=True, slots=True)
class Moment:
    """What was true from `at` on. `next_charge` is None if PayPal will not charge."""

    at: datetime
    next_at: datetime | None
    next_charge: Money | None
    paid_until: datetime | None
    balance: int


class TracedSubscription(SimulatedSubscription):
    """A simulated subscription that records the truth after each of its changes."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.moments: list[Moment] = []
        super().__init__(*arguments, **options)

    def add_event(self, *arguments: Any, **options: Any) -> None:
        super().add_event(*arguments, **options)
        self._record(self.deliveries[-1].at)

    def change_price(self, plan: Plan, at: datetime) -> None:
        super().change_price(plan, at)
        self._record(at)

    def at(self, moment: datetime) -> Moment | None:
        """Return what was true at this moment, None before the first event."""
        # A dispute is played to its end before the changes that come meanwhile, so the last record counts.
        return next((each for each in reversed(self.moments) if each.at <= moment), None)

    def _record(self, at: datetime) -> None:
        charge = self.next_charge
        total = Money(charge.total, self.plan.currency) if charge else None
        self.moments.append(Moment(at, self.next_billing, total, paid_until(self), self.balance))


def population(count: int, start: datetime, end: datetime, seed: int) -> Iterator[Life]:
    """Yield the lives of this many customers between two times. A quarter begins in the first month."""
    rng = Random(seed)
    for number, person in enumerate(crowd(count, rng)):
        latest = timedelta(days=30) if number % 4 == 0 else end - NEWEST - start
        begins = start + (latest * rng.random())
        yield life_until(rng.randrange(2**32), person, begins, end, stays=rng.random() >= LEAVING)


def life_until(seed: int, person: SimulatedCustomer, begins: datetime, end: datetime, *, stays: bool = False) -> Life:
    """Return a random life whose last change is before the end: what is true then is all that happened."""
    months, most = -(-(end - begins).days // 30), MOST_CHANGES
    while True:
        life = random_life(
            Random(seed), begins.replace(microsecond=0), months, person,
            most_changes=most, stays=stays, kind=TracedSubscription,
        )  # fmt: skip
        if life.subscription.now <= end or not life.changes:
            return life
        most = life.changes - 1


def traced(life: Life) -> TracedSubscription:
    """Return the life's subscription with its record."""
    if not isinstance(life.subscription, TracedSubscription):
        raise TypeError("the life was not made with TracedSubscription")
    return life.subscription


def all_deliveries(lives: Iterable[Life]) -> list[Delivery]:
    """Return the events of all customers, in order of arrival."""
    return by_time(delivery for life in lives for delivery in life.deliveries)
