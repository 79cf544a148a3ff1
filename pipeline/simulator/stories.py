"""Named stories of customers. Each is a pure function of a person, a plan, a start and a seeded generator.

A story is told to its end; whoever plays it up to a moment leaves out what comes later (`vendor_months` does). The
plan's interval decides the pace: `first_year` is twelve renewals of a monthly plan and one of a yearly. Every story can
be told of every plan; `trial` and `expires` take a plan of their own where the given one has no trial or no end.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from random import Random
from typing import Protocol

from pipeline.simulator.life import Life, Return, Sale, Way
from pipeline.simulator.people import PEOPLE, Person, crowd
from pipeline.simulator.plans import CLOUD, CLOUD_JAPAN, CLOUD_SEATS, CLOUD_TRIAL, LICENCE, ONBOARDING, PLANS, Plan
from pipeline.simulator.timeline import Delivery, Json, Kept, Kind, by_time, disorder

__all__ = [
    "STORIES", "Delivery", "Json", "Kept", "Kind", "Plan", "Return", "Story", "by_time", "cancel",
    "card_fails_then_recovers", "charged_back", "disorder", "echeck_bounces", "expires", "first_year",
    "held_payment_released", "random_life", "refund", "seats_grow", "suspended_for_non_payment", "trial",
    "vendor_months",
]  # fmt: skip


class Story(Protocol):
    """A customer's story; after its end the customer goes on paying up to `until`."""

    def __call__(
        self, person: Person, plan: Plan, start: datetime, rng: Random, *, until: datetime | None = None
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
    names = list(STORIES)
    deliveries: list[Delivery] = []
    for number, person in enumerate(crowd(subscribers, rng)):
        # The first of each story begin early, so that there is time to tell it; the others arrive as customers do.
        story = names[number % len(names)]
        share = rng.uniform(0.0, 0.25) if number < len(names) else rng.uniform(0.0, 0.85)
        start = opening + (until - opening) * share
        plan = rng.choice(OFFERED.get(story, MONTHLY))
        deliveries += STORIES[story](person, plan, start, rng, until=until)
    told = [delivery for delivery in by_time(deliveries) if delivery.at <= until]
    return disorder(told, rng, duplicates=0.05, delayed=0.1, until=until)


def first_year(
    person: Person, plan: Plan, start: datetime, rng: Random, *, until: datetime | None = None
) -> list[Delivery]:
    """A customer who just pays."""
    life = Life(person, plan, start, rng)
    life.begin()
    _renew_until(life, start + YEAR + timedelta(days=1))
    return _told(life, until)


def card_fails_then_recovers(
    person: Person, plan: Plan, start: datetime, rng: Random, *, until: datetime | None = None
) -> list[Delivery]:
    """A charge and its two retries fail; the next cycle's charge collects both in one sale.

    A plan that tolerates no unpaid cycle would be suspended: there the first retry succeeds.
    """
    life = Life(person, plan, start, rng)
    life.begin()
    if plan.failure_threshold > 1:
        life.miss()
    else:
        life.miss(attempts=1)
        life.pay_balance(life.now + timedelta(days=5))
    _renew(life, 2)
    return _told(life, until)


def suspended_for_non_payment(
    person: Person,
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
    life = Life(person, plan, start, rng)
    life.begin()
    while life.next_billing is not None:
        life.miss()
    if life.status == "SUSPENDED":
        life.pay_balance(life.soon(8))
    if life.status == "SUSPENDED":
        life.reactivate(life.now + timedelta(minutes=2), kind)
    _renew(life, 2)
    return _told(life, until)


def refund(
    person: Person,
    plan: Plan,
    start: datetime,
    rng: Random,
    *,
    until: datetime | None = None,
    tell_sale: bool = True,
    negative: bool = False,
) -> list[Delivery]:
    """A part of the first sale is given back, then the rest. For the options see `Life.refund`."""
    life = Life(person, plan, start, rng)
    life.begin()
    sale = _first_sale(life)
    life.refund(sale, life.soon(12), sale.rest // 3, tell_sale=tell_sale, negative=negative)
    life.refund(sale, life.soon(6), tell_sale=tell_sale, negative=negative)
    _renew(life, 2)
    return _told(life, until)


def cancel(
    person: Person, plan: Plan, start: datetime, rng: Random, *, until: datetime | None = None
) -> list[Delivery]:
    """A customer who leaves in the middle of a period that is paid."""
    life = Life(person, plan, start, rng)
    life.begin()
    _renew_until(life, start + 2.5 * MONTH)
    if life.status == "ACTIVE":
        life.cancel(life.soon(25), "Don't need it anymore, merci à vous")
    return _told(life, until)


def held_payment_released(
    person: Person, plan: Plan, start: datetime, rng: Random, *, until: datetime | None = None
) -> list[Delivery]:
    """The first sale is PENDING and held, COMPLETED all the same, and COMPLETED again three weeks later, released."""
    life = Life(person, plan, start, rng)
    life.begin("held")
    life.release(_first_sale(life, "held"), life.now + timedelta(days=21))
    _renew(life, 3)
    return _told(life, until)


def trial(
    person: Person,
    plan: Plan,
    start: datetime,
    rng: Random,
    *,
    until: datetime | None = None,
    lagging: bool = False,
) -> list[Delivery]:
    """Active without a payment, paying when the trial ends. `lagging` as for `Life.begin`."""
    life = Life(person, plan if plan.trial_days else CLOUD_TRIAL, start, rng)
    life.begin(lagging=lagging)
    _renew(life, 4)
    return _told(life, until)


def expires(
    person: Person, plan: Plan, start: datetime, rng: Random, *, until: datetime | None = None
) -> list[Delivery]:
    """A plan with an end: all cycles are paid, then EXPIRED."""
    life = Life(person, plan if plan.cycles else ONBOARDING, start, rng)
    life.begin()
    while life.next_billing is not None:
        life.renew()
    return _told(life, until)


def seats_grow(
    person: Person, plan: Plan, start: datetime, rng: Random, *, until: datetime | None = None
) -> list[Delivery]:
    """More units from the second renewal on."""
    life = Life(person, plan, start, rng)
    life.begin()
    _renew(life, 1)
    life.revise(life.soon(20), life.quantity + rng.randint(1, 7))
    _renew(life, 3)
    return _told(life, until)


def echeck_bounces(
    person: Person, plan: Plan, start: datetime, rng: Random, *, until: datetime | None = None
) -> list[Delivery]:
    """A renewal by eCheck stays pending, is refused six days later, and is collected with the next cycle."""
    life = Life(person, plan, start, rng)
    life.begin()
    pending = life.renew("echeck")
    life.bounce(pending, life.now + timedelta(days=6))
    _renew(life, 2)
    return _told(life, until)


def charged_back(
    person: Person, plan: Plan, start: datetime, rng: Random, *, until: datetime | None = None
) -> list[Delivery]:
    """PayPal takes a sale back without saying which; the vendor ends the subscription."""
    life = Life(person, plan, start, rng)
    life.begin()
    life.reverse(_first_sale(life), life.soon(25))
    life.cancel(life.soon(2), "Chargeback")
    return _told(life, until)


STORIES: dict[str, Story] = {
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


def ending_by(now: datetime, story: Story, person: Person, plan: Plan, rng: Random) -> list[Delivery]:
    """A whole story that has just ended. Months are not of one length, so where it has to begin is found by telling it."""
    state, begin = rng.getstate(), now
    while True:
        rng.setstate(state)
        told = story(person, plan, begin, rng)
        if told[-1].at < now:
            return told
        begin -= told[-1].at - now + timedelta(hours=1)


def random_life(rng: Random, start: datetime | None = None, steps: int = 8) -> list[Delivery]:
    """A life of up to `steps` happenings in any mixture PayPal allows, in the order they happened."""
    begun = start or datetime.fromisoformat("2025-01-01T00:00:00+00:00") + timedelta(minutes=rng.randrange(525_600))
    life = Life(rng.choice(PEOPLE), rng.choice(list(PLANS.values())), begun, rng)
    life.begin(rng.choice(("instant", "instant", "held")), lagging=rng.random() < 0.2 and bool(life.plan.trial_days))
    for _ in range(rng.randint(0, steps)):
        happening = rng.choice(_possible(life))
        happening(life)
    return by_time(life.deliveries)


Happening = Callable[[Life], object]


def _possible(life: Life) -> list[Happening]:
    """What may happen next. Renewals are named twice: they are what happens most."""
    return [
        *([_renewal, _renewal, _missed, _retried, _echeck, _revised] if life.next_billing else []),
        *([_suspended] if life.status == "ACTIVE" else []),
        *([_reactivated] * 2 if life.status == "SUSPENDED" else []),
        *([_left] if life.status in ("ACTIVE", "SUSPENDED") else []),
        *([_balance] if life.balance and not life.next_billing and life.status in ("ACTIVE", "SUSPENDED") else []),
        *([_refunded, _reversed] if any(sale.rest for sale in life.sales.values()) else []),
        *([_released] if any(sale.held for sale in life.sales.values()) else []),
        _nothing,
    ]


def _renewal(life: Life) -> None:
    life.renew(life.rng.choice(("instant", "instant", "held")))


def _missed(life: Life) -> None:
    life.miss()


def _retried(life: Life) -> None:
    life.miss(attempts=life.rng.randint(1, 2))
    life.pay_balance(life.now + timedelta(days=2))


def _echeck(life: Life) -> None:
    sale = life.renew("echeck")
    settle = life.bounce if life.status == "ACTIVE" and life.rng.random() < 0.5 else life.clear
    settle(sale, life.now + timedelta(days=6))


def _revised(life: Life) -> None:
    life.revise(life.soon(10), life.rng.randint(1, 20))


def _suspended(life: Life) -> None:
    life.suspend(life.soon(10), "Suspended by the buyer")


def _reactivated(life: Life) -> None:
    life.reactivate(life.soon(20), life.rng.choice(("RE-ACTIVATED", "ACTIVATED")))


def _left(life: Life) -> None:
    life.cancel(life.soon(10))


def _balance(life: Life) -> None:
    life.pay_balance(life.soon(10))


def _refunded(life: Life) -> None:
    sale = life.rng.choice([sale for sale in life.sales.values() if sale.rest])
    amount = life.rng.choice((None, max(1, sale.rest // 2)))
    life.refund(sale, life.soon(10), amount, tell_sale=life.rng.random() < 0.8, negative=life.rng.random() < 0.2)


def _reversed(life: Life) -> None:
    life.reverse(life.rng.choice([sale for sale in life.sales.values() if sale.rest]), life.soon(10))


def _released(life: Life) -> None:
    life.release(next(sale for sale in life.sales.values() if sale.held), life.soon(20))


def _nothing(life: Life) -> None:
    life.now = life.soon(3)


def _told(life: Life, until: datetime | None) -> list[Delivery]:
    if until is not None:
        _renew_until(life, until)
    return by_time(life.deliveries)


def _first_sale(life: Life, way: Way = "instant") -> Sale:
    """The first sale, which after a trial is the first renewal."""
    return next(iter(life.sales.values()), None) or life.renew(way)


def _renew(life: Life, times: int) -> None:
    """So many renewals, as far as the plan goes."""
    for _ in range(times):
        if life.next_billing is not None:
            life.renew()


def _renew_until(life: Life, end: datetime) -> None:
    while life.next_billing is not None and life.next_billing < end:
        life.renew()
