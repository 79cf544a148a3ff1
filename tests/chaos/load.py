"""What is posted, and what must come of it: many random lives, out of order and repeated, and the same told calmly."""

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

REPEATED = 0.15  # the share of events that come once more
# How far an event may stray from its place, in shares of the whole load: lives overlap, and each comes out of order.
STRAY = 0.08
# A day of lives before now: nothing is old news, whatever is told late; all that follows is to come.
LATELY = timedelta(hours=20)
PAID = ("completed", "partially_refunded", "refunded", "reversed")


@dataclass(frozen=True)
class Load:
    """Deliveries in the order they are posted, and the world they tell of."""

    deliveries: list[Delivery]
    world: PaypalState

    @property
    def ids(self) -> set[str]:
        return {delivery.id for delivery in self.deliveries}


@dataclass(frozen=True)
class Expected:
    """What calm would have made of it: first and last, before and after PayPal was asked about each subscription.

    Whose events come in disorder is asked about, five minutes later, or at once by a worker whose clock is ahead: so
    either is right.
    """

    access: tuple[dict[str, datetime | None], dict[str, datetime | None]]  # subscription -> paid through
    mails: tuple[set[str], set[str]]  # their keys


Books = tuple[dict[str, datetime | None], set[str]]


@dataclass(frozen=True)
class Told:
    """A sale as PayPal has it at the end."""

    subscription: str
    money: Money
    state: str
    refunded: int


def make(seed: int, events: int, now: datetime) -> Load:
    """About so many deliveries. The same seed and `now` make the same."""
    rng, world = Random(seed), PaypalState()
    placed: list[tuple[float, Delivery]] = []
    while len(placed) < events:
        life = random_subscription(rng, now - LATELY * rng.random(), steps=8)
        begin, length = rng.random() * 0.8, rng.random() * 0.2
        for number, told in enumerate(life):
            world.apply(told)
            place = begin + length * number / len(life) + STRAY * rng.random()
            placed.append((place, told))
            if rng.random() < REPEATED:
                placed.append((place + STRAY * rng.random(), replace(told, copy=1)))
    placed.sort(key=lambda item: item[0])
    return Load([told for _, told in placed], world)


def calmly(load: Load, folder: Path, now: datetime) -> Expected:
    """Every event once, in PayPal's order, in a river of its own where nothing goes wrong."""
    pipeline = PipelineUnderTest("sqlite:///:memory:", folder, MovableClock(now))
    worker = pipeline.worker(HANDLERS, may_read=True)
    once = sorted({told.id: told for told in load.deliveries}.values(), key=lambda told: told.at)
    for start in range(0, len(once), 50):
        group = once[start : start + 50]
        pipeline.store(*(delivery(told.event) for told in group))
        worker.handle([told.id for told in group])
    first = _answered(pipeline, worker, load.world)
    with pipeline.database.transaction() as session:
        lookups.enqueue(session, [lookups.LookupRequest("subscription", id, pipeline.now) for id in first[0]])
    pipeline.clock.advance(timedelta(hours=2))
    last = _answered(pipeline, worker, load.world)
    waiting = {id for id, state in pipeline.states().items() if state != "handled"}
    assert not waiting, f"even calmly these come to nothing: {waiting}"
    pipeline.database.close()
    return Expected((first[0], last[0]), (first[1], last[1]))


def _answered(pipeline: PipelineUnderTest, worker: Worker, world: PaypalState) -> Books:
    """What the books say when the questions to PayPal that are due are answered, and what waited for them is handled."""
    for _ in range(10):
        lookup_fetcher.fetch_due(pipeline.database, pipeline.master, pipeline.clock, _Asked(world), 1000)
        pipeline.clock.advance(timedelta(seconds=2))
        with pipeline.database.transaction() as session:
            due = inbox.lease_due(session, pipeline.now, 1000)
        worker.handle(due)
    return {row.id: row.paid_through for row in pipeline.rows(Subscription)}, {
        row.idempotency_key for row in pipeline.rows(Mail)
    }


def sales(world: PaypalState) -> dict[str, Told]:
    """Every sale PayPal knows, with what was given back of it."""
    given: dict[str, int] = {}
    for refund in _all(world, "refund"):
        amount = parse_amount(refund["amount"]["total"], refund["amount"]["currency"]).amount
        given[refund["sale_id"]] = given.get(refund["sale_id"], 0) + abs(amount)
    return {
        sale["id"]: Told(
            sale["billing_agreement_id"],
            parse_amount(sale["amount"]["total"], sale["amount"]["currency"]),
            sale["state"],
            given.get(sale["id"], 0),
        )
        for sale in _all(world, "sale")
    }


def statuses(world: PaypalState) -> dict[str, str]:
    """The status of every subscription."""
    return {row["id"]: row["status"] for row in _all(world, "subscription")}


def _all(world: PaypalState, kind: LookupKind) -> Sequence[dict[str, Any]]:
    return [shown for name in world.ids(kind) if (shown := world.show(kind, name))]


class _Asked:
    """PayPal's API as the calm river asks it."""

    def __init__(self, world: PaypalState) -> None:
        self._world = world

    def get(self, kind: LookupKind, id: str) -> dict[str, Any]:
        shown = self._world.show(kind, id)
        if shown is None:
            raise PaypalNotFoundError(f"PayPal knows no {kind} {id}")
        return shown
