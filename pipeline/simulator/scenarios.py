"""Named stories of customers. Each is a pure function of a person, a plan, a start and a seeded generator.

A story is told to its end; whoever plays it up to a moment leaves out what comes later (`vendor_months` does). The
plan's interval decides the pace: `first_year` is twelve renewals of a monthly plan and one of a yearly. Every story can
be told of every plan; `trial` and `expires` take a plan of their own where the given one has no trial or no end.
"""

from datetime import datetime, timedelta
from random import Random
from typing import Protocol

from pipeline.simulator.people import SimulatedCustomer, crowd
from pipeline.simulator.plans import CLOUD, CLOUD_JAPAN, CLOUD_SEATS, CLOUD_TRIAL, LICENCE, ONBOARDING, Plan
from pipeline.simulator.sale import Sale, Way
from pipeline.simulator.subscription import Return, SimulatedSubscription
from pipeline.simulator.timeline import Delivery, by_time, disorder


class Scenario(Protocol):
    """A customer's story; after its end the customer goes on paying up to `until`."""

    def __call__(
        self, person: SimulatedCustomer, plan: Plan, start: datetime, rng: Random, *, until: datetime | None = None
    ) -> list[Delivery]: ...


MONTH = timedelta(days=30)
YEAR = timedelta(days=366)

MONTHLY = (CLOUD, CLOUD_JAPAN, CLOUD_SEATS)
# Which plans a story is told of in a vendor's months; the others need renewals within them.
OFFERED: dict[str, tuple[Plan, ...]] = {
    "first_year": (LICENCE, CLOUD, CLOUD_JAPAN),
    "refund": (LICENCE, CLOUD),
    "held_payment_released": (LICENCE, CLOUD),
    "trial": (CLOUD_TRIAL,),
    "expires": (ONBOARDING,),
    "seats_grow": (CLOUD_SEATS,),
}


def vendor_months(seed: int, months: int, until: datetime, subscribers: int) -> list[Delivery]:
    """A vendor's first months, ending at `until`: all stories mixed, some repeated and late deliveries, sorted by time.

    Nothing comes after `until`. Other arguments give other ids, so two runs into one database never meet under one id.
    """
    rng = Random(f"{seed}|{months}|{until.isoformat()}|{subscribers}")  # noqa: S311 - a story, no secret
    opening = until - months * MONTH
    names = list(SCENARIOS)
    deliveries: list[Delivery] = []
    for number, person in enumerate(crowd(subscribers, rng)):
        # The first of each story begin early, so that there is time to tell it; the others arrive as customers do.
        story = names[number % len(names)]
        share = rng.uniform(0.0, 0.25) if number < len(names) else rng.uniform(0.0, 0.85)
        start = opening + (until - opening) * share
        plan = rng.choice(OFFERED.get(story, MONTHLY))
        deliveries += SCENARIOS[story](person, plan, start, rng, until=until)
    told = [delivery for delivery in by_time(deliveries) if delivery.at <= until]
    return disorder(told, rng, duplicates=0.05, delayed=0.1, until=until)


def first_year(
    person: SimulatedCustomer, plan: Plan, start: datetime, rng: Random, *, until: datetime | None = None
) -> list[Delivery]:
    """A customer who just pays."""
    life = SimulatedSubscription(person, plan, start, rng)
    life.start()
    _renew_until(life, start + YEAR + timedelta(days=1))
    return _told(life, until)


def card_fails_then_recovers(
    person: SimulatedCustomer, plan: Plan, start: datetime, rng: Random, *, until: datetime | None = None
) -> list[Delivery]:
    """A charge and its two retries fail; the next cycle's charge collects both in one sale.

    A plan that tolerates no unpaid cycle would be suspended: there the first retry succeeds.
    """
    life = SimulatedSubscription(person, plan, start, rng)
    life.start()
    if plan.failure_threshold > 1:
        life.fail_payment()
    else:
        life.fail_payment(attempts=1)
        life.pay_balance(life.now + timedelta(days=5))
    _renew(life, 2)
    return _told(life, until)


def suspended_for_non_payment(
    person: SimulatedCustomer,
    plan: Plan,
    start: datetime,
    rng: Random,
    *,
    until: datetime | None = None,
    kind: Return = "RE-ACTIVATED",
) -> list[Delivery]:
    """Cycle after cycle stays unpaid until PayPal suspends; the customer pays the balance and comes back.

    `kind` is the event PayPal calls that by; for a subscription it is not documented which.
    """
    life = SimulatedSubscription(person, plan, start, rng)
    life.start()
    while life.next_billing is not None:
        life.fail_payment()
    if life.status == "SUSPENDED":
        life.pay_balance(life.moment_within(8))
    if life.status == "SUSPENDED":
        life.reactivate(life.now + timedelta(minutes=2), kind)
    _renew(life, 2)
    return _told(life, until)


def refund(
    person: SimulatedCustomer,
    plan: Plan,
    start: datetime,
    rng: Random,
    *,
    until: datetime | None = None,
    tell_sale: bool = True,
    negative: bool = False,
) -> list[Delivery]:
    """A part of the first sale is given back, then the rest. For the options see `Life.refund`."""
    life = SimulatedSubscription(person, plan, start, rng)
    life.start()
    sale = _first_sale(life)
    life.refund(sale, life.moment_within(12), sale.rest // 3, tell_sale=tell_sale, negative=negative)
    life.refund(sale, life.moment_within(6), tell_sale=tell_sale, negative=negative)
    _renew(life, 2)
    return _told(life, until)


def cancel(
    person: SimulatedCustomer, plan: Plan, start: datetime, rng: Random, *, until: datetime | None = None
) -> list[Delivery]:
    """A customer who leaves in the middle of a period that is paid."""
    life = SimulatedSubscription(person, plan, start, rng)
    life.start()
    _renew_until(life, start + 2.5 * MONTH)
    if life.status == "ACTIVE":
        life.cancel(life.moment_within(25), "Don't need it anymore, merci à vous")
    return _told(life, until)


def held_payment_released(
    person: SimulatedCustomer, plan: Plan, start: datetime, rng: Random, *, until: datetime | None = None
) -> list[Delivery]:
    """The first sale is PENDING and held, COMPLETED all the same, and COMPLETED again three weeks later, released."""
    life = SimulatedSubscription(person, plan, start, rng)
    life.start("held")
    life.release(_first_sale(life, "held"), life.now + timedelta(days=21))
    _renew(life, 3)
    return _told(life, until)


def trial(
    person: SimulatedCustomer,
    plan: Plan,
    start: datetime,
    rng: Random,
    *,
    until: datetime | None = None,
    lagging: bool = False,
) -> list[Delivery]:
    """Active without a payment, paying when the trial ends. `lagging` as for `Life.begin`."""
    life = SimulatedSubscription(person, plan if plan.trial_days else CLOUD_TRIAL, start, rng)
    life.start(lagging=lagging)
    _renew(life, 4)
    return _told(life, until)


def expires(
    person: SimulatedCustomer, plan: Plan, start: datetime, rng: Random, *, until: datetime | None = None
) -> list[Delivery]:
    """A plan with an end: all cycles are paid, then EXPIRED."""
    life = SimulatedSubscription(person, plan if plan.cycles else ONBOARDING, start, rng)
    life.start()
    while life.next_billing is not None:
        life.renew()
    return _told(life, until)


def seats_grow(
    person: SimulatedCustomer, plan: Plan, start: datetime, rng: Random, *, until: datetime | None = None
) -> list[Delivery]:
    """More units from the second renewal on."""
    life = SimulatedSubscription(person, plan, start, rng)
    life.start()
    _renew(life, 1)
    life.revise(life.moment_within(20), life.quantity + rng.randint(1, 7))
    _renew(life, 3)
    return _told(life, until)


def echeck_bounces(
    person: SimulatedCustomer, plan: Plan, start: datetime, rng: Random, *, until: datetime | None = None
) -> list[Delivery]:
    """A renewal by eCheck stays pending, is refused six days later, and is collected with the next cycle."""
    life = SimulatedSubscription(person, plan, start, rng)
    life.start()
    pending = life.renew("echeck")
    life.bounce(pending, life.now + timedelta(days=6))
    _renew(life, 2)
    return _told(life, until)


def charged_back(
    person: SimulatedCustomer, plan: Plan, start: datetime, rng: Random, *, until: datetime | None = None
) -> list[Delivery]:
    """PayPal takes a sale back without saying which; the vendor ends the subscription."""
    life = SimulatedSubscription(person, plan, start, rng)
    life.start()
    life.reverse(_first_sale(life), life.moment_within(25))
    life.cancel(life.moment_within(2), "Chargeback")
    return _told(life, until)


SCENARIOS: dict[str, Scenario] = {
    "first_year": first_year,
    "card_fails_then_recovers": card_fails_then_recovers,
    "suspended_for_non_payment": suspended_for_non_payment,
    "refund": refund,
    "cancel": cancel,
    "held_payment_released": held_payment_released,
    "trial": trial,
    "expires": expires,
    "seats_grow": seats_grow,
    "echeck_bounces": echeck_bounces,
    "charged_back": charged_back,
}


def ending_by(now: datetime, story: Scenario, person: SimulatedCustomer, plan: Plan, rng: Random) -> list[Delivery]:
    """A whole story that has just ended. Months are not of one length, so where it has to begin is found by telling it."""
    state, begin = rng.getstate(), now
    while True:
        rng.setstate(state)
        told = story(person, plan, begin, rng)
        if told[-1].at < now:
            return told
        begin -= told[-1].at - now + timedelta(hours=1)


def _told(life: SimulatedSubscription, until: datetime | None) -> list[Delivery]:
    if until is not None:
        _renew_until(life, until)
    return by_time(life.deliveries)


def _first_sale(life: SimulatedSubscription, way: Way = "instant") -> Sale:
    """The first sale, which after a trial is the first renewal."""
    return next(iter(life.sales.values()), None) or life.renew(way)


def _renew(life: SimulatedSubscription, times: int) -> None:
    """So many renewals, as far as the plan goes."""
    for _ in range(times):
        if life.next_billing is not None:
            life.renew()


def _renew_until(life: SimulatedSubscription, end: datetime) -> None:
    while life.next_billing is not None and life.next_billing < end:
        life.renew()
