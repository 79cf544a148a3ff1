"""Named scenarios of customers. Each is a pure function of a person, a plan, a start time and a seeded generator.

A scenario always returns all its deliveries; `vendor_months` omits those after its end. The plan's interval sets the
pace: `first_year` has twelve renewals of a monthly plan and one of a yearly plan. Every scenario works with every plan;
`trial` and `expires` use another plan if the given one has no trial or no end.
"""

from dataclasses import replace
from datetime import datetime, timedelta
from random import Random
from typing import Protocol

from pipeline.money import Money
from pipeline.simulator import ids
from pipeline.simulator.account_events import VendorAccount
from pipeline.simulator.dispute import SimulatedDispute
from pipeline.simulator.people import SimulatedCustomer, crowd
from pipeline.simulator.plans import CLOUD, CLOUD_JAPAN, CLOUD_SEATS, CLOUD_TRIAL, LICENCE, ONBOARDING, Plan
from pipeline.simulator.sale import PaymentMode, Sale
from pipeline.simulator.subscription import ReactivationType, SimulatedSubscription
from pipeline.simulator.timeline import Delivery, by_time, disorder


class Scenario(Protocol):
    """A scenario for one customer. With `until`, the customer continues to pay until then."""

    def __call__(
        self, person: SimulatedCustomer, plan: Plan, start: datetime, rng: Random, *, until: datetime | None = None
    ) -> list[Delivery]: ...


MONTH = timedelta(days=30)
YEAR = timedelta(days=366)

MONTHLY = (CLOUD, CLOUD_JAPAN, CLOUD_SEATS)
# Plans for each scenario in `vendor_months`. All other scenarios use MONTHLY, because they need renewals.
PLANS_BY_SCENARIO: dict[str, tuple[Plan, ...]] = {
    "first_year": (LICENCE, CLOUD, CLOUD_JAPAN),
    "refund": (LICENCE, CLOUD),
    "held_payment_released": (LICENCE, CLOUD),
    "trial": (CLOUD_TRIAL,),
    "expires": (ONBOARDING,),
    "seats_grow": (CLOUD_SEATS,),
}


def vendor_months(seed: int, months: int, until: datetime, subscribers: int) -> list[Delivery]:
    """Return the deliveries of a vendor's first months: all scenarios mixed, some late or repeated, sorted by time.

    No delivery is after `until`. Different arguments give different ids, so two runs in one database do not collide.
    """
    rng = Random(f"{seed}|{months}|{until.isoformat()}|{subscribers}")  # noqa: S311 - simulation data, not a secret
    opening = until - months * MONTH
    names = list(SCENARIOS)
    deliveries: list[Delivery] = []
    for number, person in enumerate(crowd(subscribers, rng)):
        # The first customer of each scenario starts early, so that it can finish; the others start at any time.
        scenario = names[number % len(names)]
        share = rng.uniform(0.0, 0.25) if number < len(names) else rng.uniform(0.0, 0.85)
        start = opening + (until - opening) * share
        plan = rng.choice(PLANS_BY_SCENARIO.get(scenario, MONTHLY))
        deliveries += SCENARIOS[scenario](person, plan, start, rng, until=until)
    arrived = [delivery for delivery in by_time(deliveries) if delivery.at <= until]
    return disorder(arrived, rng, duplicates=0.05, delayed=0.1, until=until)


def first_year(
    person: SimulatedCustomer, plan: Plan, start: datetime, rng: Random, *, until: datetime | None = None
) -> list[Delivery]:
    """All payments of the first year succeed."""
    subscription = SimulatedSubscription(person, plan, start, rng)
    subscription.start()
    _renew_until(subscription, start + YEAR + timedelta(days=1))
    return _deliveries_until(subscription, until)


def card_fails_then_recovers(
    person: SimulatedCustomer, plan: Plan, start: datetime, rng: Random, *, until: datetime | None = None
) -> list[Delivery]:
    """A charge and its two retries fail; the next cycle's charge collects both amounts in one sale.

    For a plan that is suspended after one unpaid cycle, the first retry succeeds instead.
    """
    subscription = SimulatedSubscription(person, plan, start, rng)
    subscription.start()
    if plan.failure_threshold > 1:
        subscription.fail_payment()
    else:
        subscription.fail_payment(attempts=1)
        subscription.pay_balance(subscription.now + timedelta(days=5))
    _renew(subscription, 2)
    return _deliveries_until(subscription, until)


def suspended_for_non_payment(
    person: SimulatedCustomer,
    plan: Plan,
    start: datetime,
    rng: Random,
    *,
    until: datetime | None = None,
    kind: ReactivationType = "RE-ACTIVATED",
) -> list[Delivery]:
    """All charges fail until PayPal suspends the subscription. The customer pays the balance and reactivates it.

    `kind` is the event type of the reactivation. PayPal's documentation does not say which one it sends.
    """
    subscription = SimulatedSubscription(person, plan, start, rng)
    subscription.start()
    while subscription.next_billing is not None:
        subscription.fail_payment()
    if subscription.status == "SUSPENDED":
        subscription.pay_balance(subscription.moment_within(8))
    if subscription.status == "SUSPENDED":
        subscription.reactivate(subscription.now + timedelta(minutes=2), kind)
    _renew(subscription, 2)
    return _deliveries_until(subscription, until)


def refund(
    person: SimulatedCustomer,
    plan: Plan,
    start: datetime,
    rng: Random,
    *,
    until: datetime | None = None,
    name_sale: bool = True,
    negative: bool = False,
) -> list[Delivery]:
    """A part of the first sale is refunded, then the rest. For the options see `SimulatedSubscription.refund`."""
    subscription = SimulatedSubscription(person, plan, start, rng)
    subscription.start()
    sale = _first_sale(subscription)
    subscription.refund(sale, subscription.moment_within(12), sale.rest // 3, name_sale=name_sale, negative=negative)
    subscription.refund(sale, subscription.moment_within(6), name_sale=name_sale, negative=negative)
    _renew(subscription, 2)
    return _deliveries_until(subscription, until)


def cancel(
    person: SimulatedCustomer, plan: Plan, start: datetime, rng: Random, *, until: datetime | None = None
) -> list[Delivery]:
    """The customer cancels in the middle of a paid period."""
    subscription = SimulatedSubscription(person, plan, start, rng)
    subscription.start()
    _renew_until(subscription, start + 2.5 * MONTH)
    if subscription.status == "ACTIVE":
        subscription.cancel(subscription.moment_within(25), "Don't need it anymore, merci à vous")
    return _deliveries_until(subscription, until)


def held_payment_released(
    person: SimulatedCustomer, plan: Plan, start: datetime, rng: Random, *, until: datetime | None = None
) -> list[Delivery]:
    """The first sale is PENDING (held), then COMPLETED, and COMPLETED again when it is released three weeks later."""
    subscription = SimulatedSubscription(person, plan, start, rng)
    subscription.start("held")
    subscription.release(_first_sale(subscription, "held"), subscription.now + timedelta(days=21))
    _renew(subscription, 3)
    return _deliveries_until(subscription, until)


def trial(
    person: SimulatedCustomer,
    plan: Plan,
    start: datetime,
    rng: Random,
    *,
    until: datetime | None = None,
    lagging: bool = False,
) -> list[Delivery]:
    """A trial without payment; payments begin when it ends. For `lagging` see `SimulatedSubscription.start`."""
    subscription = SimulatedSubscription(person, plan if plan.trial_days else CLOUD_TRIAL, start, rng)
    subscription.start(lagging=lagging)
    _renew(subscription, 4)
    return _deliveries_until(subscription, until)


def expires(
    person: SimulatedCustomer, plan: Plan, start: datetime, rng: Random, *, until: datetime | None = None
) -> list[Delivery]:
    """A plan with a fixed number of cycles: all are paid, then the subscription is EXPIRED."""
    subscription = SimulatedSubscription(person, plan if plan.cycles else ONBOARDING, start, rng)
    subscription.start()
    while subscription.next_billing is not None:
        subscription.renew()
    return _deliveries_until(subscription, until)


def seats_grow(
    person: SimulatedCustomer, plan: Plan, start: datetime, rng: Random, *, until: datetime | None = None
) -> list[Delivery]:
    """The quantity increases from the second renewal on."""
    subscription = SimulatedSubscription(person, plan, start, rng)
    subscription.start()
    _renew(subscription, 1)
    subscription.revise(subscription.moment_within(20), subscription.quantity + rng.randint(1, 7))
    _renew(subscription, 3)
    return _deliveries_until(subscription, until)


def echeck_bounces(
    person: SimulatedCustomer, plan: Plan, start: datetime, rng: Random, *, until: datetime | None = None
) -> list[Delivery]:
    """A renewal by eCheck is pending, is denied six days later, and is collected with the next cycle."""
    subscription = SimulatedSubscription(person, plan, start, rng)
    subscription.start()
    pending = subscription.renew("echeck")
    subscription.bounce(pending, subscription.now + timedelta(days=6))
    _renew(subscription, 2)
    return _deliveries_until(subscription, until)


def charged_back(
    person: SimulatedCustomer, plan: Plan, start: datetime, rng: Random, *, until: datetime | None = None
) -> list[Delivery]:
    """PayPal reverses a sale in an event that does not name the sale; the vendor cancels the subscription."""
    subscription = SimulatedSubscription(person, plan, start, rng)
    subscription.start()
    subscription.reverse(_first_sale(subscription), subscription.moment_within(25))
    subscription.cancel(subscription.moment_within(2), "Chargeback")
    return _deliveries_until(subscription, until)


def disputed(
    person: SimulatedCustomer, plan: Plan, start: datetime, rng: Random, *, until: datetime | None = None
) -> list[Delivery]:
    """The buyer disputes two sales: the vendor wins the first dispute and loses the second, a chargeback, in part."""
    subscription = SimulatedSubscription(person, plan, start, rng)
    subscription.start()
    sale = _first_sale(subscription)
    won = SimulatedDispute(subscription, sale, subscription.moment_within(5))
    won.respond(subscription.now + timedelta(days=2))
    won.resolve("RESOLVED_SELLER_FAVOUR", subscription.now + timedelta(days=6))
    _renew(subscription, 1)
    last = list(subscription.sales.values())[-1]
    lost = SimulatedDispute(
        subscription, last, subscription.moment_within(5), amount=last.rest // 2, stage="CHARGEBACK"
    )
    lost.resolve("RESOLVED_BUYER_FAVOUR", subscription.now + timedelta(days=10))
    return _deliveries_until(subscription, until)


def price_change(
    person: SimulatedCustomer, plan: Plan, start: datetime, rng: Random, *, until: datetime | None = None
) -> list[Delivery]:
    """The plan's price rises by a quarter five days before a charge: the charge after that one has the new price.

    The plan has an id of its own, because a price change reaches every subscriber of a plan.
    """
    own = replace(plan, id=ids.plan(rng))
    subscription = SimulatedSubscription(person, own, start, rng)
    subscription.start()
    account = VendorAccount(subscription.now, rng)
    if subscription.next_billing is not None:
        at = subscription.next_billing - timedelta(days=5)
        changed = account.change_price(own, Money(own.price.amount * 5 // 4, own.currency), at)
        subscription.change_price(changed, at)
    _renew(subscription, 3)
    return by_time([*_deliveries_until(subscription, until), *account.deliveries])


def upgrade(
    person: SimulatedCustomer, plan: Plan, start: datetime, rng: Random, *, until: datetime | None = None
) -> list[Delivery]:
    """The customer changes to a plan at twice the price from the next charge on, and back a month later."""
    subscription = SimulatedSubscription(person, plan, start, rng)
    subscription.start()
    _renew(subscription, 1)
    if subscription.next_billing is not None:
        larger = replace(plan, id=ids.plan(rng), name=f"{plan.name}, large", price=_times(plan.price, 2), trial_days=0)
        subscription.revise(subscription.moment_within(20), plan=larger)
        _renew(subscription, 2)
    if subscription.next_billing is not None:
        subscription.revise(subscription.moment_within(20), plan=plan)
        _renew(subscription, 2)
    return _deliveries_until(subscription, until)


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
    "disputed": disputed,
    "price_change": price_change,
    "upgrade": upgrade,
}


def scenario_ending_at(
    now: datetime, scenario: Scenario, person: SimulatedCustomer, plan: Plan, rng: Random
) -> list[Delivery]:
    """Return the deliveries of a complete scenario that ends just before `now`.

    Months differ in length, so the start time is found by trying.
    """
    state, begin = rng.getstate(), now
    while True:
        rng.setstate(state)
        deliveries = scenario(person, plan, begin, rng)
        if deliveries[-1].at < now:
            return deliveries
        begin -= deliveries[-1].at - now + timedelta(hours=1)


def _deliveries_until(subscription: SimulatedSubscription, until: datetime | None) -> list[Delivery]:
    if until is not None:
        _renew_until(subscription, until)
    return by_time(subscription.deliveries)


def _times(price: Money, factor: int) -> Money:
    return Money(price.amount * factor, price.currency)


def _first_sale(subscription: SimulatedSubscription, mode: PaymentMode = "instant") -> Sale:
    """Return the first sale; after a trial, that is the first renewal."""
    return next(iter(subscription.sales.values()), None) or subscription.renew(mode)


def _renew(subscription: SimulatedSubscription, times: int) -> None:
    """Renew up to `times` times, while the plan has further cycles."""
    for _ in range(times):
        if subscription.next_billing is not None:
            subscription.renew()


def _renew_until(subscription: SimulatedSubscription, end: datetime) -> None:
    while subscription.next_billing is not None and subscription.next_billing < end:
        subscription.renew()
