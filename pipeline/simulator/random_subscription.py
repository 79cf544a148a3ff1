"""Subscriptions to which anything happens that PayPal allows, in any order: for tests that look for surprises."""

from collections.abc import Callable
from datetime import datetime, timedelta
from random import Random

from pipeline.simulator.people import PEOPLE
from pipeline.simulator.plans import PLANS
from pipeline.simulator.subscription import SimulatedSubscription
from pipeline.simulator.timeline import Delivery, by_time


def random_subscription(rng: Random, start: datetime | None = None, steps: int = 8) -> list[Delivery]:
    """A life of up to `steps` happenings in any mixture PayPal allows, in the order they happened."""
    begun = start or datetime.fromisoformat("2025-01-01T00:00:00+00:00") + timedelta(minutes=rng.randrange(525_600))
    life = SimulatedSubscription(rng.choice(PEOPLE), rng.choice(list(PLANS.values())), begun, rng)
    life.start(rng.choice(("instant", "instant", "held")), lagging=rng.random() < 0.2 and bool(life.plan.trial_days))
    for _ in range(rng.randint(0, steps)):
        happening = rng.choice(_possible(life))
        happening(life)
    return by_time(life.deliveries)


Happening = Callable[[SimulatedSubscription], object]


def _possible(life: SimulatedSubscription) -> list[Happening]:
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


def _renewal(life: SimulatedSubscription) -> None:
    life.renew(life.rng.choice(("instant", "instant", "held")))


def _missed(life: SimulatedSubscription) -> None:
    life.fail_payment()


def _retried(life: SimulatedSubscription) -> None:
    life.fail_payment(attempts=life.rng.randint(1, 2))
    life.pay_balance(life.now + timedelta(days=2))


def _echeck(life: SimulatedSubscription) -> None:
    sale = life.renew("echeck")
    settle = life.bounce if life.status == "ACTIVE" and life.rng.random() < 0.5 else life.clear
    settle(sale, life.now + timedelta(days=6))


def _revised(life: SimulatedSubscription) -> None:
    life.revise(life.moment_within(10), life.rng.randint(1, 20))


def _suspended(life: SimulatedSubscription) -> None:
    life.suspend(life.moment_within(10), "Suspended by the buyer")


def _reactivated(life: SimulatedSubscription) -> None:
    life.reactivate(life.moment_within(20), life.rng.choice(("RE-ACTIVATED", "ACTIVATED")))


def _left(life: SimulatedSubscription) -> None:
    life.cancel(life.moment_within(10))


def _balance(life: SimulatedSubscription) -> None:
    life.pay_balance(life.moment_within(10))


def _refunded(life: SimulatedSubscription) -> None:
    sale = life.rng.choice([sale for sale in life.sales.values() if sale.rest])
    amount = life.rng.choice((None, max(1, sale.rest // 2)))
    life.refund(
        sale, life.moment_within(10), amount, tell_sale=life.rng.random() < 0.8, negative=life.rng.random() < 0.2
    )


def _reversed(life: SimulatedSubscription) -> None:
    life.reverse(life.rng.choice([sale for sale in life.sales.values() if sale.rest]), life.moment_within(10))


def _released(life: SimulatedSubscription) -> None:
    life.release(next(sale for sale in life.sales.values() if sale.held), life.moment_within(20))


def _nothing(life: SimulatedSubscription) -> None:
    life.now = life.moment_within(3)
