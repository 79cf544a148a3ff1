"""Random subscription histories for tests: any sequence of changes that PayPal allows."""

from collections.abc import Callable
from datetime import datetime, timedelta
from random import Random

from pipeline.simulator.people import PEOPLE
from pipeline.simulator.plans import PLANS
from pipeline.simulator.subscription import SimulatedSubscription
from pipeline.simulator.timeline import Delivery, by_time


def random_subscription(rng: Random, start: datetime | None = None, steps: int = 8) -> list[Delivery]:
    """Return the deliveries of a random subscription with up to `steps` changes, in order of time."""
    started_at = start or datetime.fromisoformat("2025-01-01T00:00:00+00:00") + timedelta(
        minutes=rng.randrange(525_600)
    )
    subscription = SimulatedSubscription(rng.choice(PEOPLE), rng.choice(list(PLANS.values())), started_at, rng)
    subscription.start(
        rng.choice(("instant", "instant", "held")), lagging=rng.random() < 0.2 and bool(subscription.plan.trial_days)
    )
    for _ in range(rng.randint(0, steps)):
        change = rng.choice(possible_changes(subscription))
        change(subscription)
    return by_time(subscription.deliveries)


Change = Callable[[SimulatedSubscription], object]


def possible_changes(subscription: SimulatedSubscription) -> list[Change]:
    """Return the changes that are possible now. Renewals are listed twice, because they are the most frequent."""
    return [
        *([_renewal, _renewal, _missed, _retried, _echeck, _revised] if subscription.next_billing else []),
        *([_suspended] if subscription.status == "ACTIVE" else []),
        *([_reactivated] * 2 if subscription.status == "SUSPENDED" else []),
        *([leave] if subscription.status in ("ACTIVE", "SUSPENDED") else []),
        *(
            [_balance]
            if subscription.balance and not subscription.next_billing and subscription.status in ("ACTIVE", "SUSPENDED")
            else []
        ),
        *([_refunded, _reversed] if any(sale.rest for sale in subscription.sales.values()) else []),
        *([_released] if any(sale.held for sale in subscription.sales.values()) else []),
        _nothing,
    ]


def _renewal(subscription: SimulatedSubscription) -> None:
    subscription.renew(subscription.rng.choice(("instant", "instant", "held")))


def _missed(subscription: SimulatedSubscription) -> None:
    subscription.fail_payment()


def _retried(subscription: SimulatedSubscription) -> None:
    subscription.fail_payment(attempts=subscription.rng.randint(1, 2))
    subscription.pay_balance(subscription.now + timedelta(days=2))


def _echeck(subscription: SimulatedSubscription) -> None:
    sale = subscription.renew("echeck")
    finish = (
        subscription.bounce
        if subscription.status == "ACTIVE" and subscription.rng.random() < 0.5
        else subscription.clear
    )
    finish(sale, subscription.now + timedelta(days=6))


def _revised(subscription: SimulatedSubscription) -> None:
    subscription.revise(subscription.moment_within(10), subscription.rng.randint(1, 20))


def _suspended(subscription: SimulatedSubscription) -> None:
    subscription.suspend(subscription.moment_within(10), "Suspended by the buyer")


def _reactivated(subscription: SimulatedSubscription) -> None:
    subscription.reactivate(subscription.moment_within(20), subscription.rng.choice(("RE-ACTIVATED", "ACTIVATED")))


def leave(subscription: SimulatedSubscription) -> None:
    """Cancel the subscription within ten days."""
    subscription.cancel(subscription.moment_within(10))


def _balance(subscription: SimulatedSubscription) -> None:
    subscription.pay_balance(subscription.moment_within(10))


def _refunded(subscription: SimulatedSubscription) -> None:
    sale = subscription.rng.choice([sale for sale in subscription.sales.values() if sale.rest])
    amount = subscription.rng.choice((None, max(1, sale.rest // 2)))
    subscription.refund(
        sale,
        subscription.moment_within(10),
        amount,
        name_sale=subscription.rng.random() < 0.8,
        negative=subscription.rng.random() < 0.2,
    )


def _reversed(subscription: SimulatedSubscription) -> None:
    subscription.reverse(
        subscription.rng.choice([sale for sale in subscription.sales.values() if sale.rest]),
        subscription.moment_within(10),
    )


def _released(subscription: SimulatedSubscription) -> None:
    subscription.release(
        next(sale for sale in subscription.sales.values() if sale.held), subscription.moment_within(20)
    )


def _nothing(subscription: SimulatedSubscription) -> None:
    subscription.now = subscription.moment_within(3)
