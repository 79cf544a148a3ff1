"""Random lives of months for tests: everything that can happen to a subscription, mixed, with its truth.

`random_subscription` is the smaller mix: renewals, failures, refunds and status changes of simple plans.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from random import Random

from pipeline.money import Money
from pipeline.simulator import ids
from pipeline.simulator.account_events import VendorAccount
from pipeline.simulator.dispute import Outcome, SimulatedDispute, Stage
from pipeline.simulator.one_off import OneOffPayment
from pipeline.simulator.people import PEOPLE, SimulatedCustomer
from pipeline.simulator.plans import PLANS, Plan
from pipeline.simulator.random_subscription import Change, leave, possible_changes
from pipeline.simulator.sale import PaymentMode, Sale, Settlement
from pipeline.simulator.subscription import SimulatedSubscription
from pipeline.simulator.timeline import Delivery, by_time
from pipeline.simulator.truth import Truth, truth_of
from pipeline.simulator.varied_plans import VARIED_PLANS

MAX_CHANGES = 60
_FIRST_STAGES: tuple[Stage, ...] = ("INQUIRY", "CHARGEBACK")
_OUTCOMES: tuple[Outcome, ...] = ("RESOLVED_SELLER_FAVOUR", "RESOLVED_BUYER_FAVOUR")
_CONVERSIONS = {"USD": "0.88", "GBP": "1.15", "JPY": "0.0061", "HUF": "0.0025", "TWD": "0.029"}


@dataclass(frozen=True, slots=True)
class Life:
    """One subscription with its vendor's account and its person's one-off payments. `deliveries` are all their events.

    `changes` is how many random changes were made after the start.
    """

    subscription: SimulatedSubscription
    account: VendorAccount
    payments: tuple[OneOffPayment, ...]
    changes: int

    @property
    def deliveries(self) -> list[Delivery]:
        """All events in order of arrival. For delays and repeats see `disorder`, for losses `lose`."""
        sources = (self.subscription, self.account, *self.payments)
        return by_time(delivery for source in sources for delivery in source.deliveries)

    @property
    def truth(self) -> Truth:
        """The truth about the subscription after all of it."""
        return truth_of(self.subscription)


def random_life(
    rng: Random,
    start: datetime | None = None,
    months: int = 9,
    person: SimulatedCustomer | None = None,
    *,
    most_changes: int = MAX_CHANGES,
    stays: bool = False,
    kind: type[SimulatedSubscription] = SimulatedSubscription,
) -> Life:
    """Return a random life of about `months` months. The same generator state gives the same bytes.

    The last change may end later than that. `stays`: the customer does not cancel. `kind` is the class to simulate.
    """
    begins = start or datetime(2025, 1, 1, tzinfo=UTC) + timedelta(minutes=rng.randrange(525_600))
    subscription = _subscription(rng, person or rng.choice(PEOPLE), begins, kind)
    account = VendorAccount(begins, rng)
    _start(subscription)
    end, changes = begins + timedelta(days=30 * months), 0
    while subscription.now < end and changes < most_changes:
        possible = [each for each in _possible(subscription, account) if not (stays and each is leave)]
        rng.choice(possible)(subscription)
        changes += 1
    return Life(subscription, account, _payments(subscription, end), changes)


def _subscription(
    rng: Random, person: SimulatedCustomer, begins: datetime, kind: type[SimulatedSubscription]
) -> SimulatedSubscription:
    plan = rng.choice([*PLANS.values(), *VARIED_PLANS.values()])
    # A price change reaches every subscriber of a plan, so each life has a plan of its own.
    own = replace(plan, id=ids.plan(rng))
    rate = _CONVERSIONS.get(plan.currency)
    converted = Settlement("EUR", rate, rng.random() < 0.3) if rate and rng.random() < 0.3 else None
    later = begins + timedelta(days=rng.randint(3, 20)) if rng.random() < 0.1 else None
    overridden = rng.random() < 0.1
    return kind(person, own, begins, rng, begins=later, settlement=converted, overridden=overridden)


def _start(subscription: SimulatedSubscription) -> None:
    rng = subscription.rng
    modes: tuple[PaymentMode, ...] = ("instant", "instant", "held")
    mode = rng.choice(modes)
    lagging = bool(subscription.plan.trial_steps) and rng.random() < 0.2
    fails = bool(subscription.plan.setup_fee) and rng.random() < 0.2
    subscription.start(mode, lagging=lagging, setup_fee_fails=fails)


def _possible(subscription: SimulatedSubscription, account: VendorAccount) -> list[Change]:
    billed = subscription.next_billing is not None
    refundable = any(sale.rest for sale in subscription.sales.values())
    owes = subscription.balance > 0 and subscription.activated
    return [
        *possible_changes(subscription),
        *([_renewal] * 3 if billed else []),
        *([_upgraded, _upgraded_at_once, _priced(account)] if billed else []),
        *([_seats_reduced] if billed and refundable and subscription.quantity > 1 else []),
        *([_part_captured] if owes else []),
        *([_waived] if owes and subscription.status in ("ACTIVE", "SUSPENDED") else []),
        *([_disputed, _fee_returned] if refundable else []),
    ]


def _renewal(subscription: SimulatedSubscription) -> None:
    """Charge on time, early or late."""
    shift = subscription.rng.choice((None, None, timedelta(hours=-3), timedelta(hours=30)))
    subscription.renew(shift=shift)


def _other_plan(subscription: SimulatedSubscription) -> Plan:
    percent = subscription.rng.choice((50, 150, 300))
    price = Money(max(100, subscription.plan.price.amount * percent // 100), subscription.plan.currency)
    changed = replace(subscription.plan, id=ids.plan(subscription.rng), price=price, tiers=(), setup_fee=0)
    return replace(changed, trials=(), trial_days=0)


def _upgraded(subscription: SimulatedSubscription) -> None:
    subscription.revise(subscription.moment_within(10), plan=_other_plan(subscription))


def _upgraded_at_once(subscription: SimulatedSubscription) -> None:
    subscription.revise(subscription.moment_within(10), plan=_other_plan(subscription), at_once=True)


def _priced(account: VendorAccount) -> Callable[[SimulatedSubscription], None]:
    def change(subscription: SimulatedSubscription) -> None:
        at = subscription.moment_within(25)
        listed = subscription.listed_plan
        price = Money(listed.price.amount * subscription.rng.choice((80, 110, 250)) // 100, listed.currency)
        subscription.change_price(account.change_price(listed, price, at), at)
        subscription.now = max(subscription.now, at)

    return change


def _seats_reduced(subscription: SimulatedSubscription) -> None:
    """Reduce the seats, then refund a part of the last sale, as a vendor does."""
    subscription.revise(subscription.moment_within(10), subscription.quantity - 1)
    sale = _refundable(subscription)
    subscription.refund(sale, subscription.now + timedelta(hours=1), max(1, sale.rest // subscription.quantity // 2))


def _part_captured(subscription: SimulatedSubscription) -> None:
    amount = subscription.rng.choice((subscription.balance, max(1, subscription.balance // 3)))
    subscription.pay_balance(subscription.moment_within(5), amount)


def _waived(subscription: SimulatedSubscription) -> None:
    subscription.waive_balance(subscription.moment_within(5))


def _fee_returned(subscription: SimulatedSubscription) -> None:
    sale = _refundable(subscription)
    subscription.refund(sale, subscription.moment_within(5), returned_fee=min(35, sale.rest))


def _disputed(subscription: SimulatedSubscription) -> None:
    rng, sale = subscription.rng, _refundable(subscription)
    amount = rng.choice((sale.rest, max(1, sale.rest // 2)))
    stage = rng.choice(_FIRST_STAGES)
    dispute = SimulatedDispute(subscription, sale, subscription.moment_within(5), amount=amount, stage=stage)
    if rng.random() < 0.6:
        dispute.respond(subscription.now + timedelta(days=2))
    if rng.random() < 0.3:
        dispute.escalate("PRE_ARBITRATION", subscription.now + timedelta(days=1))
    if rng.random() < 0.8:
        outcome = rng.choice(_OUTCOMES)
        dispute.resolve(outcome, subscription.now + timedelta(days=4))


def _refundable(subscription: SimulatedSubscription) -> Sale:
    return subscription.rng.choice([sale for sale in subscription.sales.values() if sale.rest])


def _payments(subscription: SimulatedSubscription, end: datetime) -> tuple[OneOffPayment, ...]:
    """Return up to two one-off payments of the same person."""
    rng, found = subscription.rng, []
    for number in range(rng.choice((0, 0, 1, 2))):
        at = subscription.created + (end - subscription.created) * rng.random()
        amount = Money(rng.randint(500, 90_000), subscription.plan.currency)
        payment = OneOffPayment(subscription.person, amount, at, rng, invoice_id=f"INVOICE-{number + 1}")
        payment.approve(payment.now + timedelta(minutes=2))
        payment.capture(payment.now, rng.choice(("COMPLETED", "COMPLETED", "PENDING", "DECLINED")))
        if payment.capture_status == "PENDING":
            payment.finish(payment.now + timedelta(days=1), rng.choice(("COMPLETED", "DENIED")))
        if payment.rest and rng.random() < 0.5:
            payment.refund(payment.now + timedelta(days=2), max(1, payment.rest // 3))
        if payment.rest and rng.random() < 0.2:
            payment.reverse(payment.now + timedelta(days=2))
        found.append(payment)
    return tuple(found)
