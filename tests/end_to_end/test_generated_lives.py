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
from pipeline.billing.next_charge import next_charge
from pipeline.clock import MovableClock
from pipeline.db.models import Event, Payment, Plan, Subscription
from pipeline.inbox import lookup_fetcher
from pipeline.inbox import store as inbox
from pipeline.paypal.api import PaypalApi
from pipeline.paypal.errors import PaypalNotFoundError
from pipeline.paypal.requests import LookupKind
from pipeline.reconciliation.run import Reconciliation
from pipeline.simulator.random_life import Life, random_life
from pipeline.simulator.server.api import FakePaypalApi
from pipeline.simulator.truth import Truth
from pipeline.simulator.world import PaypalState
from tests.support.pipeline_under_test import PipelineUnderTest, delivery

SEEDS = int(os.environ.get("SMT_TEST_LIVES", "12"))
LOST = 0.08  # share of the webhooks; about as many were reported lost for cancellations
SETTLE = timedelta(seconds=7)  # longer than the delay of a re-read
SAME_DAY = timedelta(days=1, hours=3)  # PayPal charges up to a day before or hours after the billing time


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


def differences(pipeline: PipelineUnderTest, life: Life) -> Iterator[str]:
    """Yield each difference between the stored state and the truth."""
    truth = life.truth
    row = next(row for row in pipeline.rows(Subscription) if row.id == truth.id)
    if (row.status, row.plan_id) != (truth.status, truth.plan_id):
        yield f"{row.status} on {row.plan_id}, not {truth.status} on {truth.plan_id}"
    if row.outstanding is not None and row.outstanding != truth.outstanding.amount:
        yield f"outstanding {row.outstanding}, not {truth.outstanding}"
    yield from _access(row, truth, life.subscription.now)
    yield from _next_charge(pipeline, row, truth)
    yield from _payments({each.id: each for each in pipeline.rows(Payment) if each.subscription_id == row.id}, truth)
    yield from (
        f"{each.type} is {each.state}: {each.reason}" for each in pipeline.rows(Event) if each.state == "parked"
    )


def _access(row: Subscription, truth: Truth, now: datetime) -> Iterator[str]:
    """Access counts from now on: an end in the past is as good as another."""
    ours, right = (max(until or now, now) for until in (row.paid_through, truth.paid_until))
    if abs(ours - right) > SAME_DAY:
        yield f"paid through {row.paid_through}, not {truth.paid_until}"


def _next_charge(pipeline: PipelineUnderTest, row: Subscription, truth: Truth) -> Iterator[str]:
    """A figure may be missing, but a wrong one is never named."""
    if row.status != "ACTIVE":
        return
    found = next_charge(row, next((plan for plan in pipeline.rows(Plan) if plan.id == row.plan_id), None))
    right = truth.next_billing
    if found.at != (right.at if right else None):
        yield f"next charge at {found.at}, not {right}"
    if found.total and right and (found.total.amount, found.total.currency) != (right.total, right.currency):
        yield f"next charge of {found.total}, not {right}"


def _payments(rows: dict[str, Payment], truth: Truth) -> Iterator[str]:
    if rows.keys() != truth.transactions.keys():
        yield f"payments {sorted(rows)}, not {sorted(truth.transactions)}"
    for id, right in truth.transactions.items():
        found = rows[id]
        if (found.amount, found.currency) != (right.gross, right.currency):
            yield f"{id} of {found.amount} {found.currency}, not {right.gross} {right.currency}"
        if found.refunded != right.refunded:
            yield f"{id} refunded {found.refunded}, not {right.refunded}"
        status = "refunded" if found.status == "reversed" else found.status
        if status != right.status and not right.held:
            yield f"{id} is {found.status}, not {right.status}"


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
    assert list(differences(pipeline, life)) == []


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
    assert list(differences(pipeline, life)) == []
