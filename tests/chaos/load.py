"""The posted events of a seed and the expected result: random subscriptions, out of order and with repetitions.

The expected result comes from handling the same events in order, without faults.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

from handlers import HANDLERS
from pipeline.clock import MovableClock
from pipeline.db.models import Mail, Subscription
from pipeline.inbox import lookup_fetcher, lookups
from pipeline.inbox import store as inbox
from pipeline.money import Money, parse_amount
from pipeline.paypal.errors import PaypalNotFoundError
from pipeline.paypal.requests import LookupKind
from pipeline.simulator.random_subscription import random_subscription
from pipeline.simulator.timeline import Delivery
from pipeline.simulator.world import PaypalState
from pipeline.worker.worker import Worker
from tests.support.pipeline_under_test import PipelineUnderTest, delivery

REPEATED = 0.15  # Share of events that are posted twice.
# How far an event can move from its place, as a share of the whole load. Subscriptions overlap and are out of order.
MAX_SHIFT = 0.08
# The subscriptions begin within this time before now, so no event is too old, even if it is posted late.
RECENT = timedelta(hours=20)
PAID = ("completed", "partially_refunded", "refunded", "reversed")


@dataclass(frozen=True)
class Load:
    """Deliveries in the order in which they are posted, and PayPal's state after them."""

    deliveries: list[Delivery]
    world: PaypalState

    @property
    def ids(self) -> set[str]:
        return {delivery.id for delivery in self.deliveries}


@dataclass(frozen=True)
class Expected:
    """The result without faults: a pair, before and after a look-up of each subscription.

    A subscription whose events are out of order is looked up five minutes later, or at once by a worker whose clock is
    ahead. Therefore both results are correct.
    """

    access: tuple[dict[str, datetime | None], dict[str, datetime | None]]  # subscription -> paid-through date
    mails: tuple[set[str], set[str]]  # Idempotency keys.


State = tuple[dict[str, datetime | None], set[str]]


@dataclass(frozen=True)
class Sale:
    """A sale in PayPal's final state."""

    subscription: str
    money: Money
    state: str
    refunded: int


def make(seed: int, events: int, now: datetime) -> Load:
    """Create about `events` deliveries. The same seed and `now` give the same load."""
    rng, world = Random(seed), PaypalState()
    placed: list[tuple[float, Delivery]] = []
    while len(placed) < events:
        subscription = random_subscription(rng, now - RECENT * rng.random(), steps=8)
        begin, length = rng.random() * 0.8, rng.random() * 0.2
        for number, item in enumerate(subscription):
            world.apply(item)
            place = begin + length * number / len(subscription) + MAX_SHIFT * rng.random()
            placed.append((place, item))
            if rng.random() < REPEATED:
                placed.append((place + MAX_SHIFT * rng.random(), replace(item, copy=1)))
    placed.sort(key=lambda item: item[0])
    return Load([item for _, item in placed], world)


def expected_result(load: Load, folder: Path, now: datetime) -> Expected:
    """Handle every event once, in PayPal's order and without faults, and return the result."""
    pipeline = PipelineUnderTest("sqlite:///:memory:", folder, MovableClock(now))
    worker = pipeline.worker(HANDLERS, may_read=True, max_ahead=timedelta(days=36_500))
    once = sorted({item.id: item for item in load.deliveries}.values(), key=lambda item: item.at)
    for start in range(0, len(once), 50):
        group = once[start : start + 50]
        pipeline.store(*(delivery(item.event) for item in group))
        worker.handle([item.id for item in group])
    first = _answered(pipeline, worker, load.world)
    with pipeline.database.transaction() as session:
        lookups.enqueue(session, [lookups.LookupRequest("subscription", id, pipeline.now) for id in first[0]])
    pipeline.clock.advance(timedelta(hours=2))
    last = _answered(pipeline, worker, load.world)
    waiting = {id for id, state in pipeline.states().items() if state != "handled"}
    assert not waiting, f"not handled even without faults: {waiting}"
    pipeline.database.close()
    return Expected((first[0], last[0]), (first[1], last[1]))


def _answered(pipeline: PipelineUnderTest, worker: Worker, world: PaypalState) -> State:
    """Run the due look-ups, handle the events that wait for them, and return the paid-through dates and mail keys."""
    for _ in range(10):
        lookup_fetcher.fetch_due(pipeline.database, pipeline.master, pipeline.clock, _StaticPaypal(world), 1000)
        pipeline.clock.advance(timedelta(seconds=2))
        with pipeline.database.transaction() as session:
            due = inbox.lease_due(session, pipeline.now, 1000)
        worker.handle(due)
    return {row.id: row.paid_through for row in pipeline.rows(Subscription)}, {
        row.idempotency_key for row in pipeline.rows(Mail)
    }


def sales(world: PaypalState) -> dict[str, Sale]:
    """Return every sale that PayPal has, with its refunded amount in minor units."""
    refunded: dict[str, int] = {}
    for refund in _all(world, "refund"):
        amount = parse_amount(refund["amount"]["total"], refund["amount"]["currency"]).amount
        refunded[refund["sale_id"]] = refunded.get(refund["sale_id"], 0) + abs(amount)
    return {
        sale["id"]: Sale(
            sale["billing_agreement_id"],
            parse_amount(sale["amount"]["total"], sale["amount"]["currency"]),
            sale["state"],
            refunded.get(sale["id"], 0),
        )
        for sale in _all(world, "sale")
    }


def statuses(world: PaypalState) -> dict[str, str]:
    """Return the status of every subscription."""
    return {row["id"]: row["status"] for row in _all(world, "subscription")}


def _all(world: PaypalState, kind: LookupKind) -> Sequence[dict[str, Any]]:
    return [shown for name in world.ids(kind) if (shown := world.show(kind, name))]


class _StaticPaypal:
    """PayPal API that answers from the final state."""

    def __init__(self, world: PaypalState) -> None:
        self._world = world

    def get(self, kind: LookupKind, id: str) -> dict[str, Any]:
        shown = self._world.show(kind, id)
        if shown is None:
            raise PaypalNotFoundError(f"PayPal knows no {kind} {id}")
        return shown
