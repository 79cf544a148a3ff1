"""Look-ups run outside any transaction, their answers enter the inbox, and they are not repeated forever."""

from collections.abc import Iterator
from datetime import timedelta
from random import Random
from typing import Any

import pytest

from handlers import HANDLERS
from pipeline.billing.unit_of_work import UnitOfWork
from pipeline.db.models import Payment, PaypalLookup, Refund, Subscription
from pipeline.inbox import lookup_fetcher, lookups
from pipeline.inbox import store as inbox
from pipeline.inbox.event import Event, NeedsLookup, ParkEvent
from pipeline.inbox.store import StoreResult
from pipeline.paypal.api import PaypalApi
from pipeline.paypal.errors import PaypalRejectedError
from pipeline.simulator import scenarios
from pipeline.simulator.people import PEOPLE
from pipeline.simulator.plans import CLOUD
from pipeline.simulator.server.api import FakePaypalApi
from pipeline.simulator.timeline import Delivery
from pipeline.simulator.world import PaypalState
from pipeline.worker.failed_events import RETRY_DELAYS
from tests.support.pipeline_under_test import River, delivery, happened

ADA = PEOPLE[0]


class FakeReader:
    """PayPal's API client, with a fixed answer or error."""

    def __init__(self, answer: dict[str, Any] | Exception) -> None:
        self.answer = answer
        self.requests: list[str] = []

    def get(self, kind: str, id: str) -> dict[str, Any]:
        self.requests.append(f"{kind} {id}")
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def needs_sale(event: Event, uow: UnitOfWork) -> None:
    raise NeedsLookup("sale", "SALE1")


def fetch(river: River, paypal: lookup_fetcher.PaypalReader) -> list[str]:
    return lookup_fetcher.fetch_due(river.database, river.master, river.clock, paypal)


def enqueue(river: River, kind: Any = "sale", id: str = "SALE1", after: timedelta = timedelta()) -> None:
    with river.database.transaction() as session:
        lookups.enqueue(session, [lookups.LookupRequest(kind, id, river.now + after)])


def due(river: River) -> list[str]:
    with river.database.transaction() as session:
        return inbox.lease_due(session, river.now, 100)


def store_event(river: River, event: Delivery) -> StoreResult:
    [stored] = river.store(delivery(event.body))
    return stored


# Fetching


def test_due_look_up_is_made_and_its_answer_is_stored(river: River) -> None:
    reader = FakeReader({"id": "SALE1", "state": "completed", "update_time": "2026-03-01T11:00:00Z"})
    enqueue(river, after=timedelta(minutes=5))
    enqueue(river)  # the pending look-up is not changed
    assert fetch(river, reader) == []
    river.clock.advance(timedelta(minutes=5))
    [event_id] = fetch(river, reader)
    row = river.event(event_id)
    assert (row.type, row.source, row.state, row.signature_verdict) == (
        "READ.SALE",
        "read",
        "received",
        "read from PayPal's API",
    )
    assert row.facts["sale"] == "SALE1"
    assert reader.requests == ["sale SALE1"]
    assert river.count(PaypalLookup) == 0
    assert fetch(river, reader) == []


def test_same_answer_twice_is_one_event(river: River) -> None:
    reader = FakeReader({"id": "SALE1", "state": "pending", "update_time": "2026-03-01T11:00:00Z"})
    ids = []
    for state in ("pending", "pending", "completed"):
        reader.answer = {"id": "SALE1", "state": state, "update_time": "2026-03-01T11:00:00Z"}
        enqueue(river)
        ids += fetch(river, reader)
    assert len(ids) == 2
    assert set(river.states()) == set(ids)


def test_look_up_in_progress_is_not_made_by_another_worker(river: River) -> None:
    class SlowReader(FakeReader):
        def get(self, kind: str, id: str) -> dict[str, Any]:
            if not self.requests:
                self.requests.append("slowly")
                assert fetch(river, self) == []
            return super().get(kind, id)

    reader = SlowReader({"id": "SALE1"})
    enqueue(river)
    fetch(river, reader)
    assert reader.requests == ["slowly", "sale SALE1"]


def test_look_up_of_a_killed_worker_is_made_again(river: River) -> None:
    class DyingReader(FakeReader):
        def get(self, kind: str, id: str) -> dict[str, Any]:
            raise KeyboardInterrupt

    enqueue(river)
    with pytest.raises(KeyboardInterrupt):
        fetch(river, DyingReader({}))
    reader = FakeReader({"id": "SALE1"})
    assert fetch(river, reader) == []
    river.clock.advance(lookup_fetcher.LEASE)
    assert len(fetch(river, reader)) == 1


@pytest.fixture
def world() -> PaypalState:
    return PaypalState()


@pytest.fixture
def fake_api(world: PaypalState) -> FakePaypalApi:
    return FakePaypalApi(world)


@pytest.fixture
def paypal(fake_api: FakePaypalApi) -> Iterator[PaypalApi]:
    with fake_api.serve() as base:
        api = PaypalApi(base, "simulator", "simulator-secret")
        yield api
        api.close()


def test_failed_look_up_is_retried_after_the_delays(brook: River, fake_api: FakePaypalApi, paypal: PaypalApi) -> None:
    fake_api.misbehave("500", times=7)
    enqueue(brook, "plan", CLOUD.id)
    waited = []
    for _ in range(7):
        assert fetch(brook, paypal) == []
        [look_up] = brook.rows(PaypalLookup)
        assert look_up.due_at
        assert look_up.reason
        assert "500" in look_up.reason
        waited.append(look_up.due_at - brook.now)
        brook.clock.move_to(look_up.due_at)
    assert waited == [
        timedelta(minutes=1),
        timedelta(minutes=5),
        timedelta(minutes=30),
        timedelta(hours=3),
        *[timedelta(days=1)] * 3,
    ]
    assert len(fetch(brook, paypal)) == 1


def test_unknown_object_is_not_looked_up_again(brook: River, paypal: PaypalApi, fake_api: FakePaypalApi) -> None:
    enqueue(brook, "sale", "NOSUCHSALE0000000")
    assert fetch(brook, paypal) == []
    with brook.database.reading() as session:
        assert lookups.is_known_missing(session, "sale", "NOSUCHSALE0000000")
    requests = len(fake_api.asked)
    brook.clock.advance(timedelta(days=30))
    assert fetch(brook, paypal) == []
    assert len(fake_api.asked) == requests


@pytest.mark.parametrize("status", [401, 403])
def test_refused_credentials_do_not_end_the_look_up(river: River, status: int) -> None:
    """Look-ups continue after the operator has corrected the credentials."""
    enqueue(river)
    fetch(river, FakeReader(PaypalRejectedError(status, "NOT_AUTHORIZED", "abc")))
    [look_up] = river.rows(PaypalLookup)
    assert look_up.due_at == river.now + timedelta(minutes=1)
    assert look_up.reason
    assert "NOT_AUTHORIZED" in look_up.reason
    river.clock.advance(timedelta(minutes=1))
    assert len(fetch(river, FakeReader({"id": "SALE1"}))) == 1


def test_refused_look_up_is_not_made_again(river: River) -> None:
    enqueue(river)
    fetch(river, FakeReader(PaypalRejectedError(422, "UNPROCESSABLE_ENTITY", "abc")))
    assert river.rows(PaypalLookup)[0].due_at is None


# Events that wait for a look-up


def test_event_is_handled_after_its_look_up_is_answered(river: River, world: PaypalState, paypal: PaypalApi) -> None:
    """A refund made in PayPal's dashboard does not name its sale, so it needs a look-up."""
    events = scenarios.refund(ADA, CLOUD, river.now - timedelta(days=90), Random(1), name_sale=False)
    for each in events:
        world.apply(each)
    [first, *_] = [each for each in events if each.type == "PAYMENT.SALE.REFUNDED"]
    worker = river.worker(HANDLERS, may_read=True)
    assert store_event(river, first).outcome == "stored"
    worker.handle([first.id])
    assert river.event(first.id).reason == f"waits for refund {first.event['resource']['id']} from PayPal"
    [answer] = fetch(river, paypal)
    worker.handle([answer])
    assert due(river) == []
    river.clock.advance(timedelta(seconds=1))
    assert due(river) == [first.id]
    worker.handle([first.id])
    assert set(river.states().values()) == {"handled"}
    [refund] = river.rows(Refund)
    assert refund.payment_id == first.event["resource"].get("sale_id") or refund.payment_id in world.ids("sale")


def test_unknown_subscription_is_looked_up(river: River, world: PaypalState, paypal: PaypalApi) -> None:
    """The first events of the subscription are lost; then a payment arrives and its receipt needs an address."""
    events = scenarios.first_year(ADA, CLOUD, river.now - timedelta(days=2), Random(1))
    [sale] = [each for each in events if each.type == "PAYMENT.SALE.COMPLETED"][:1]
    for each in events[:3]:
        world.apply(each)
    worker = river.worker(HANDLERS, may_read=True)
    store_event(river, sale)
    worker.handle([sale.id])
    [mail] = river.mails().values()
    assert (mail.state, mail.due_at) == ("queued", None)
    river.clock.advance(timedelta(minutes=5))
    for _ in range(3):
        worker.handle([*fetch(river, paypal), *due(river)])
    assert river.rows(Subscription)[0].status == "ACTIVE"
    assert river.rows(Payment)[0].status == "completed"
    assert [row.due_at for row in river.mails().values()] == [river.now] * 2


def test_unknown_object_parks_the_event_until_the_operator_retries_it(river: River) -> None:
    missing, found = FakeReader(PaypalRejectedError(404, "", "")), FakeReader({"id": "SALE1", "state": "completed"})
    worker = river.worker({"TEST.HAPPENED": needs_sale, "READ.SALE": lambda event, uow: None}, may_read=True)
    river.store(delivery(happened()))
    worker.handle(["WH-1"])
    fetch(river, missing)
    river.clock.advance(timedelta(minutes=1))
    worker.handle(due(river))
    row = river.event("WH-1")
    assert (row.state, row.reason) == ("parked", "needs sale SALE1 from PayPal, which does not know it")
    with river.database.transaction() as session:
        assert inbox.retry(session, ["WH-1"], river.now) == ["WH-1"]
    worker.handle(due(river))
    assert river.event("WH-1").state == "received"
    assert len(fetch(river, found)) == 1


def test_insufficient_answer_parks_the_event(river: River) -> None:
    """Without this limit, the look-up would be repeated every two seconds."""
    reader = FakeReader({"id": "SALE1", "state": "completed"})

    def park(event: Event, uow: UnitOfWork) -> None:
        raise ParkEvent("no useful content")

    worker = river.worker({"TEST.HAPPENED": needs_sale, "READ.SALE": park}, may_read=True)
    river.store(delivery(happened()))
    start, row = river.now, river.event("WH-1")
    for _ in range(100):
        worker.handle([*due(river), *fetch(river, reader)])
        row = river.event("WH-1")
        if row.state == "parked":
            break
        river.clock.move_to(min(at for at in (row.due_at, *(each.due_at for each in river.rows(PaypalLookup))) if at))
    assert row.state == "parked"
    assert river.now - start < timedelta(days=1)
    assert row.reason
    assert "the answer does not contain what is missing" in row.reason
    assert len(reader.requests) <= len(RETRY_DELAYS) + 1


def test_event_retried_before_its_answer_is_handled_is_not_parked(river: River) -> None:
    answered: list[str] = []

    def handle(event: Event, uow: UnitOfWork) -> None:
        if not answered:
            raise NeedsLookup("sale", "SALE1")

    worker = river.worker(
        {"TEST.HAPPENED": handle, "READ.SALE": lambda event, uow: answered.append("SALE1")}, may_read=True
    )
    river.store(delivery(happened()))
    worker.handle(["WH-1"])
    [answer] = fetch(river, FakeReader({"id": "SALE1"}))
    river.clock.advance(timedelta(seconds=1))
    worker.handle(["WH-1"])
    assert (river.event("WH-1").state, river.event("WH-1").due_at) == ("received", river.now + RETRY_DELAYS[0])
    worker.handle([answer])
    river.clock.advance(RETRY_DELAYS[0])
    assert "WH-1" in due(river)
    worker.handle(["WH-1"])
    assert river.event("WH-1").state == "handled"
