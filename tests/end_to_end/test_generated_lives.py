"""Generated lives of months: what the product stores and announces equals the simulator's truth, to the cent.

Each life mixes trials, taxes, tiers, set-up fees, shipping, failures, refunds, chargebacks, disputes, changes of plan,
price and quantity, and other currencies. The simulator knows the truth; PayPal's events and answers are made from it.
"""

import os
from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest

from handlers import HANDLERS
from pipeline.clock import MovableClock
from pipeline.inbox import lookup_fetcher
from pipeline.inbox import store as inbox
from pipeline.paypal.api import PaypalApi
from pipeline.paypal.errors import PaypalNotFoundError
from pipeline.paypal.requests import LookupKind
from pipeline.reconciliation.run import Reconciliation
from pipeline.simulator.random_life import Life, random_life
from pipeline.simulator.server.api import FakePaypalApi
from pipeline.simulator.world import PaypalState
from tests.support.pipeline_under_test import PipelineUnderTest, delivery
from tests.support.true_state import differences

SEEDS = int(os.environ.get("SMT_TEST_LIVES", "12"))
LOST = 0.08  # share of the webhooks; about as many were reported lost for cancellations
SETTLE = timedelta(seconds=7)  # longer than the delay of a re-read


class World:
    """PayPal's API, with the state of the simulated world."""

    def __init__(self) -> None:
        self.state = PaypalState()

    def get(self, kind: LookupKind, id: str) -> dict[str, Any]:
        found = self.state.show(kind, id)
        if found is None:
            raise PaypalNotFoundError(f"no {kind} {id}")
        return found


def play(pipeline: PipelineUnderTest, life: Life, lost: Collection[str] = ()) -> World:
    """Deliver the life's events in order, without those that are lost. After each, make the look-ups that it caused."""
    world = World()
    for each in life.deliveries:
        pipeline.clock.move_to(max(pipeline.now, each.at))
        world.state.apply(each)
        work(pipeline, world, rounds=1)  # what became due since the last event
        if each.id not in lost:
            stored = pipeline.store(delivery(each.body))
            pipeline.worker(HANDLERS, may_read=True).handle([item.event_id for item in stored if item.publish])
            work(pipeline, world)
    pipeline.clock.advance(timedelta(hours=2))
    work(pipeline, world)
    return world


def work(pipeline: PipelineUnderTest, paypal: lookup_fetcher.PaypalReader, rounds: int = 4) -> None:
    """Make the due look-ups, and handle the events that are due."""
    worker = pipeline.worker(HANDLERS, may_read=True)
    for _ in range(rounds):
        pipeline.clock.advance(SETTLE)
        worker.handle(lookup_fetcher.fetch_due(pipeline.database, pipeline.master, pipeline.clock, paypal, limit=500))
        with pipeline.database.transaction() as session:
            due = inbox.lease_due(session, pipeline.now, 500)
        worker.handle(due)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PipelineUnderTest]:
    folder = tmp_path_factory.mktemp("lives")
    made = PipelineUnderTest(
        f"sqlite:///{folder / 'lives.db'}", folder, MovableClock(datetime(2024, 12, 1, tzinfo=UTC))
    )
    yield made
    made.database.close()


@pytest.mark.parametrize("seed", range(SEEDS))
def test_stored_state_equals_the_truth(pipeline: PipelineUnderTest, seed: int) -> None:
    life = random_life(Random(seed))
    pipeline.empty()
    pipeline.clock.move_to(life.deliveries[0].at)
    play(pipeline, life)
    assert differences(pipeline, [(life.truth, life.subscription.now)]) == []


@pytest.mark.parametrize("seed", range(1000, 1000 + SEEDS // 3))
def test_lost_events_are_made_up_for(pipeline: PipelineUnderTest, seed: int) -> None:
    """8 % of the webhooks never arrive, in any month. Then one reconciliation, over HTTP, and its look-ups."""
    life, rng = random_life(Random(seed)), Random(seed)
    lost = {each.id for each in life.deliveries if rng.random() < LOST}
    pipeline.empty()
    pipeline.clock.move_to(life.deliveries[0].at)
    world = play(pipeline, life, lost)
    with FakePaypalApi(world.state, clock=pipeline.clock).serve() as base:
        api = PaypalApi(base, "simulator", "simulator-secret")
        for _ in range(2):
            pipeline.clock.advance(timedelta(hours=4))
            Reconciliation(pipeline.database, pipeline.master, pipeline.clock, api).run(life.deliveries[0].at)
            work(pipeline, world)
        api.close()
    assert differences(pipeline, [(life.truth, life.subscription.now)]) == []
