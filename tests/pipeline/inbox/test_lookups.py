"""Look-ups run outside any transaction, their answers enter the inbox, and they are not repeated forever."""

from collections.abc import Iterator
from datetime import timedelta
from random import Random
from typing import Any

import pytest

from handlers import HANDLERS
from pipeline.billing.unit_of_work import UnitOfWork
from pipeline.db.models import Event as EventRow
from pipeline.db.models import Payment, PaypalLookup, Refund, Subscription
from pipeline.inbox import lookup_fetcher, lookups
from pipeline.inbox import store as inbox
from pipeline.inbox.event import Event, NeedsLookup, ParkEvent
from pipeline.inbox.store import StoreResult
from pipeline.paypal.api import PaypalApi
from pipeline.paypal.errors import PaypalNotFoundError, PaypalRejectedError, PaypalUnavailableError
from pipeline.paypal.rate_limit import TokenBucket
from pipeline.simulator import scenarios
from pipeline.simulator.people import PEOPLE
from pipeline.simulator.plans import CLOUD
from pipeline.simulator.server.api import FakePaypalApi
from pipeline.simulator.timeline import Delivery
from pipeline.simulator.world import PaypalState
from pipeline.worker.failed_events import RETRY_DELAYS
from tests.support.pipeline_under_test import PipelineUnderTest, delivery, happened

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


def fetch(pipeline: PipelineUnderTest, paypal: lookup_fetcher.PaypalReader) -> list[str]:
    return lookup_fetcher.fetch_due(pipeline.database, pipeline.master, pipeline.clock, paypal)


def enqueue(pipeline: PipelineUnderTest, kind: Any = "sale", id: str = "SALE1", after: timedelta = timedelta()) -> None:
    with pipeline.database.transaction() as session:
        lookups.enqueue(session, [lookups.LookupRequest(kind, id, pipeline.now + after, pipeline.now)])


def due(pipeline: PipelineUnderTest) -> list[str]:
    with pipeline.database.transaction() as session:
        return inbox.lease_due(session, pipeline.now, 100)


def store_event(pipeline: PipelineUnderTest, event: Delivery) -> StoreResult:
    [stored] = pipeline.store(delivery(event.body))
    return stored


# Fetching


def test_due_look_up_is_made_and_its_answer_is_stored(pipeline: PipelineUnderTest) -> None:
    reader = FakeReader({"id": "SALE1", "state": "completed", "update_time": "2026-03-01T11:00:00Z"})
    enqueue(pipeline, after=timedelta(minutes=5))
    enqueue(pipeline, after=timedelta(minutes=9))  # the earlier time counts
    assert fetch(pipeline, reader) == []
    pipeline.clock.advance(timedelta(minutes=5))
    [event_id] = fetch(pipeline, reader)
    row = pipeline.event(event_id)
    assert (row.type, row.source, row.state, row.signature_verdict) == (
        "READ.SALE",
        "read",
        "received",
        "read from PayPal's API",
    )
    assert row.facts["sale"] == "SALE1"
    assert reader.requests == ["sale SALE1"]
    assert pipeline.count(PaypalLookup) == 0
    assert fetch(pipeline, reader) == []


def test_same_answer_twice_is_one_event(pipeline: PipelineUnderTest) -> None:
    reader = FakeReader({"id": "SALE1", "state": "pending", "update_time": "2026-03-01T11:00:00Z"})
    ids = []
    for state in ("pending", "pending", "completed"):
        reader.answer = {"id": "SALE1", "state": state, "update_time": "2026-03-01T11:00:00Z"}
        enqueue(pipeline)
        ids += fetch(pipeline, reader)
    assert len(ids) == 2
    assert set(pipeline.states()) == set(ids)


def test_look_up_in_progress_is_not_made_by_another_worker(pipeline: PipelineUnderTest) -> None:
    class SlowReader(FakeReader):
        def get(self, kind: str, id: str) -> dict[str, Any]:
            if not self.requests:
                self.requests.append("slowly")
                assert fetch(pipeline, self) == []
            return super().get(kind, id)

    reader = SlowReader({"id": "SALE1"})
    enqueue(pipeline)
    fetch(pipeline, reader)
    assert reader.requests == ["slowly", "sale SALE1"]


def test_look_up_of_a_killed_worker_is_made_again(pipeline: PipelineUnderTest) -> None:
    class DyingReader(FakeReader):
        def get(self, kind: str, id: str) -> dict[str, Any]:
            raise KeyboardInterrupt

    enqueue(pipeline)
    with pytest.raises(KeyboardInterrupt):
        fetch(pipeline, DyingReader({}))
    reader = FakeReader({"id": "SALE1"})
    assert fetch(pipeline, reader) == []
    pipeline.clock.advance(lookup_fetcher.LEASE)
    assert len(fetch(pipeline, reader)) == 1


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


def test_failed_look_up_is_retried_after_the_delays(
    sqlite_pipeline: PipelineUnderTest, fake_api: FakePaypalApi, paypal: PaypalApi
) -> None:
    fake_api.misbehave("500", times=7)
    enqueue(sqlite_pipeline, "plan", CLOUD.id)
    waited = []
    for _ in range(7):
        assert fetch(sqlite_pipeline, paypal) == []
        [look_up] = sqlite_pipeline.rows(PaypalLookup)
        assert look_up.due_at
        assert look_up.reason
        assert "500" in look_up.reason
        waited.append(look_up.due_at - sqlite_pipeline.now)
        sqlite_pipeline.clock.move_to(look_up.due_at)
    assert waited == [
        timedelta(minutes=1),
        timedelta(minutes=5),
        timedelta(minutes=30),
        timedelta(hours=3),
        *[timedelta(days=1)] * 3,
    ]
    assert len(fetch(sqlite_pipeline, paypal)) == 1


def test_unknown_object_is_looked_up_for_a_day_and_then_given_up(
    sqlite_pipeline: PipelineUnderTest, paypal: PaypalApi, fake_api: FakePaypalApi
) -> None:
    start = sqlite_pipeline.now
    enqueue(sqlite_pipeline, "sale", "NOSUCHSALE0000000")
    waited = []
    while (row := sqlite_pipeline.rows(PaypalLookup)[0]).due_at:
        sqlite_pipeline.clock.move_to(row.due_at)
        waited.append(sqlite_pipeline.now - start)
        assert fetch(sqlite_pipeline, paypal) == []
    assert waited[1:3] == [timedelta(minutes=1), timedelta(minutes=6)]
    assert waited[-1] == timedelta(days=1)
    with sqlite_pipeline.database.reading() as session:
        assert lookups.is_given_up(session, "sale", "NOSUCHSALE0000000")
    requests = len(fake_api.asked)
    sqlite_pipeline.clock.advance(timedelta(days=30))
    assert fetch(sqlite_pipeline, paypal) == []
    assert len(fake_api.asked) == requests


def test_request_of_a_process_whose_clock_is_ahead_is_not_repeated_until_then(pipeline: PipelineUnderTest) -> None:
    with pipeline.database.transaction() as session:
        tomorrow = pipeline.now + timedelta(days=1)
        lookups.enqueue(session, [lookups.LookupRequest("sale", "SALE1", pipeline.now, tomorrow)])
    reader = FakeReader({"id": "SALE1"})
    for _ in range(3):
        fetch(pipeline, reader)
        pipeline.clock.advance(timedelta(minutes=1))
    assert reader.requests == ["sale SALE1"]
    pipeline.clock.move_to(tomorrow)
    fetch(pipeline, reader)
    assert reader.requests == ["sale SALE1"] * 2
    assert pipeline.count(PaypalLookup) == 0


def test_given_up_look_up_starts_again_when_it_is_requested(pipeline: PipelineUnderTest) -> None:
    enqueue(pipeline)
    fetch(pipeline, FakeReader(PaypalRejectedError(422, "UNPROCESSABLE_ENTITY", "abc")))
    pipeline.clock.advance(timedelta(days=30))
    enqueue(pipeline)
    [row] = pipeline.rows(PaypalLookup)
    assert (row.due_at, row.first_due_at, row.attempts) == (pipeline.now, pipeline.now, 0)
    assert len(fetch(pipeline, FakeReader({"id": "SALE1"}))) == 1


def test_request_during_a_look_up_is_answered_by_another_one(pipeline: PipelineUnderTest) -> None:
    """The answer that is on the way may be older than what the second event reports."""

    class SlowReader(FakeReader):
        def get(self, kind: str, id: str) -> dict[str, Any]:
            if not self.requests:
                pipeline.clock.advance(timedelta(seconds=1))
                enqueue(pipeline)
            return super().get(kind, id) | {"state": f"state {len(self.requests)}"}

    reader = SlowReader({"id": "SALE1"})
    enqueue(pipeline)
    assert len(fetch(pipeline, reader)) == 1
    assert len(fetch(pipeline, reader)) == 1
    assert fetch(pipeline, reader) == []
    assert len(reader.requests) == 2


def test_failed_look_up_is_not_hastened_by_a_request(pipeline: PipelineUnderTest) -> None:
    enqueue(pipeline)
    fetch(pipeline, FakeReader(PaypalUnavailableError("away")))
    [before] = pipeline.rows(PaypalLookup)
    enqueue(pipeline)
    [after] = pipeline.rows(PaypalLookup)
    assert (after.due_at, after.attempts) == (before.due_at, 1)


def test_requests_before_a_look_up_share_it(pipeline: PipelineUnderTest) -> None:
    for seconds in range(3):
        enqueue(pipeline, after=timedelta(seconds=3 - seconds))
        pipeline.clock.advance(timedelta(seconds=1))
    reader = FakeReader({"id": "SALE1"})
    assert len(fetch(pipeline, reader)) == 1
    assert pipeline.count(PaypalLookup) == 0


@pytest.mark.parametrize("error", [RuntimeError("jane@example.com"), TypeError(), RecursionError()])
def test_failing_look_up_does_not_stop_the_others(pipeline: PipelineUnderTest, error: Exception) -> None:
    class OddReader(FakeReader):
        def get(self, kind: str, id: str) -> dict[str, Any]:
            if id == "SALE1":
                raise error
            return {"id": id, "state": "completed"}

    for id in ("SALE1", "SALE2"):
        enqueue(pipeline, id=id)
    assert len(fetch(pipeline, OddReader({}))) == 1
    [row] = pipeline.rows(PaypalLookup)
    assert (row.id, row.due_at) == ("SALE1", pipeline.now + timedelta(minutes=1))
    assert str(row.reason).startswith("the answer cannot be stored: internal error at ")


def test_rounds_without_look_ups_use_up_no_rate(sqlite_pipeline: PipelineUnderTest) -> None:
    pipeline, reader = sqlite_pipeline, FakeReader({"id": "SALE1"})
    bucket = TokenBucket(pipeline.clock, burst=2)
    for _ in range(5):
        lookup_fetcher.fetch_due(pipeline.database, pipeline.master, pipeline.clock, reader, 20, bucket)
    enqueue(pipeline)
    lookup_fetcher.fetch_due(pipeline.database, pipeline.master, pipeline.clock, reader, 20, bucket)
    assert reader.requests == ["sale SALE1"]


def test_look_ups_keep_to_the_rate_and_pause_when_paypal_asks_for_it(sqlite_pipeline: PipelineUnderTest) -> None:
    pipeline, bucket = sqlite_pipeline, TokenBucket(sqlite_pipeline.clock, per_second=5, burst=20)
    busy = PaypalUnavailableError("busy")
    busy.retry_after = timedelta(seconds=30)
    for number in range(100):
        enqueue(pipeline, id=f"SALE{number}")

    def fetch_some(reader: FakeReader) -> int:
        lookup_fetcher.fetch_due(pipeline.database, pipeline.master, pipeline.clock, reader, 1000, bucket)
        return len(reader.requests)

    assert fetch_some(FakeReader({"id": "SALE1"})) == 20
    pipeline.clock.advance(timedelta(seconds=2))
    assert fetch_some(FakeReader({"id": "SALE1"})) == 10
    pipeline.clock.advance(timedelta(seconds=1))
    assert fetch_some(FakeReader(busy)) == 5
    pipeline.clock.advance(timedelta(seconds=29))
    assert fetch_some(FakeReader({"id": "SALE1"})) == 0
    assert bucket.seconds_until_next() == 1
    pipeline.clock.advance(timedelta(seconds=1))
    assert fetch_some(FakeReader({"id": "SALE1"})) == 20


@pytest.mark.parametrize("status", [401, 403])
def test_refused_credentials_do_not_end_the_look_up(pipeline: PipelineUnderTest, status: int) -> None:
    """Look-ups continue after the operator has corrected the credentials."""
    enqueue(pipeline)
    fetch(pipeline, FakeReader(PaypalRejectedError(status, "NOT_AUTHORIZED", "abc")))
    [look_up] = pipeline.rows(PaypalLookup)
    assert look_up.due_at == pipeline.now + timedelta(minutes=1)
    assert look_up.reason
    assert "NOT_AUTHORIZED" in look_up.reason
    pipeline.clock.advance(timedelta(minutes=1))
    assert len(fetch(pipeline, FakeReader({"id": "SALE1"}))) == 1


def test_refused_look_up_is_not_made_again(pipeline: PipelineUnderTest) -> None:
    enqueue(pipeline)
    fetch(pipeline, FakeReader(PaypalRejectedError(422, "UNPROCESSABLE_ENTITY", "abc")))
    assert pipeline.rows(PaypalLookup)[0].due_at is None


# Events that wait for a look-up


def test_event_is_handled_after_its_look_up_is_answered(
    pipeline: PipelineUnderTest, world: PaypalState, paypal: PaypalApi
) -> None:
    """A refund made in PayPal's dashboard does not name its sale, so it needs a look-up."""
    events = scenarios.refund(ADA, CLOUD, pipeline.now - timedelta(days=90), Random(1), name_sale=False)
    for each in events:
        world.apply(each)
    [first, *_] = [each for each in events if each.type == "PAYMENT.SALE.REFUNDED"]
    worker = pipeline.worker(HANDLERS, may_read=True)
    assert store_event(pipeline, first).outcome == "stored"
    worker.handle([first.id])
    assert pipeline.event(first.id).reason == f"waits for refund {first.event['resource']['id']} from PayPal"
    [answer] = fetch(pipeline, paypal)
    worker.handle([answer])
    assert due(pipeline) == []
    pipeline.clock.advance(timedelta(seconds=1))
    assert due(pipeline) == [first.id]
    worker.handle([first.id])
    assert set(pipeline.states().values()) == {"handled"}
    [refund] = pipeline.rows(Refund)
    assert refund.payment_id == first.event["resource"].get("sale_id") or refund.payment_id in world.ids("sale")


def test_unknown_subscription_is_looked_up(pipeline: PipelineUnderTest, world: PaypalState, paypal: PaypalApi) -> None:
    """The first events of the subscription are lost; then a payment arrives and its receipt needs an address."""
    events = scenarios.first_year(ADA, CLOUD, pipeline.now - timedelta(days=2), Random(1))
    [sale] = [each for each in events if each.type == "PAYMENT.SALE.COMPLETED"][:1]
    for each in events[:3]:
        world.apply(each)
    worker = pipeline.worker(HANDLERS, may_read=True)
    store_event(pipeline, sale)
    worker.handle([sale.id])
    [mail] = pipeline.mails().values()
    assert (mail.state, mail.due_at) == ("queued", None)
    pipeline.clock.advance(timedelta(minutes=5))
    for _ in range(3):
        worker.handle([*fetch(pipeline, paypal), *due(pipeline)])
    assert pipeline.rows(Subscription)[0].status == "ACTIVE"
    assert pipeline.rows(Payment)[0].status == "completed"
    assert [row.due_at for row in pipeline.mails().values()] == [pipeline.now] * 2


def test_unknown_object_parks_the_event_until_the_operator_retries_it(pipeline: PipelineUnderTest) -> None:
    missing, found = FakeReader(PaypalRejectedError(422, "", "")), FakeReader({"id": "SALE1", "state": "completed"})
    worker = pipeline.worker({"TEST.HAPPENED": needs_sale, "READ.SALE": lambda event, uow: None}, may_read=True)
    pipeline.store(delivery(happened()))
    worker.handle(["WH-1"])
    fetch(pipeline, missing)
    worker.handle(due(pipeline))
    row = pipeline.event("WH-1")
    assert (row.state, row.reason) == ("parked", "needs sale SALE1 from PayPal, which does not have it")
    with pipeline.database.transaction() as session:
        assert inbox.retry(session, ["WH-1"], pipeline.now) == ["WH-1"]
    worker.handle(due(pipeline))
    assert pipeline.event("WH-1").state == "received"
    assert len(fetch(pipeline, found)) == 1


def test_insufficient_answer_parks_the_event(pipeline: PipelineUnderTest) -> None:
    """Without this limit, the look-up would be repeated every two seconds."""
    reader = FakeReader({"id": "SALE1", "state": "completed"})

    def park(event: Event, uow: UnitOfWork) -> None:
        raise ParkEvent("no useful content")

    worker = pipeline.worker({"TEST.HAPPENED": needs_sale, "READ.SALE": park}, may_read=True)
    pipeline.store(delivery(happened()))
    start, row = pipeline.now, pipeline.event("WH-1")
    for _ in range(100):
        worker.handle([*due(pipeline), *fetch(pipeline, reader)])
        row = pipeline.event("WH-1")
        if row.state == "parked":
            break
        pipeline.clock.move_to(
            min(at for at in (row.due_at, *(each.due_at for each in pipeline.rows(PaypalLookup))) if at)
        )
    assert row.state == "parked"
    assert pipeline.now - start < timedelta(days=1)
    assert row.reason
    assert "the answer does not contain what is missing" in row.reason
    assert len(reader.requests) <= len(RETRY_DELAYS) + 1


def test_event_retried_before_its_answer_is_handled_is_not_parked(pipeline: PipelineUnderTest) -> None:
    answered: list[str] = []

    def handle(event: Event, uow: UnitOfWork) -> None:
        if not answered:
            raise NeedsLookup("sale", "SALE1")

    worker = pipeline.worker(
        {"TEST.HAPPENED": handle, "READ.SALE": lambda event, uow: answered.append("SALE1")}, may_read=True
    )
    pipeline.store(delivery(happened()))
    worker.handle(["WH-1"])
    [answer] = fetch(pipeline, FakeReader({"id": "SALE1"}))
    pipeline.clock.advance(timedelta(seconds=1))
    worker.handle(["WH-1"])
    assert (pipeline.event("WH-1").state, pipeline.event("WH-1").due_at) == ("received", pipeline.now + RETRY_DELAYS[0])
    worker.handle([answer])
    pipeline.clock.advance(RETRY_DELAYS[0])
    assert "WH-1" in due(pipeline)
    worker.handle(["WH-1"])
    assert pipeline.event("WH-1").state == "handled"


# Payments in the second of PayPal's APIs


class TwoApis:
    """PayPal's API client. `known` are the objects that it has, by kind and id."""

    def __init__(self, **known: dict[str, Any]) -> None:
        self.known, self.requests = known, list[str]()

    def get(self, kind: str, id: str) -> dict[str, Any]:
        self.requests.append(kind)
        if kind not in self.known:
            raise PaypalNotFoundError(f"no {kind} {id}")
        return self.known[kind]


@pytest.mark.parametrize(
    ("kind", "second", "type"),
    [("sale", "capture", "READ.CAPTURE"), ("refund", "capture_refund", "READ.CAPTURE_REFUND")],
)
def test_payment_is_asked_of_the_second_api_if_the_first_does_not_know_it(
    sqlite_pipeline: PipelineUnderTest, kind: str, second: str, type: str
) -> None:
    enqueue(sqlite_pipeline, kind)
    paypal = TwoApis(**{second: {"id": "SALE1"}})
    [stored] = fetch(sqlite_pipeline, paypal)
    assert paypal.requests == [kind, second]
    assert sqlite_pipeline.event(stored).type == type
    assert sqlite_pipeline.count(PaypalLookup) == 0


def test_first_api_is_enough_if_it_answers(sqlite_pipeline: PipelineUnderTest) -> None:
    enqueue(sqlite_pipeline)
    paypal = TwoApis(sale={"id": "SALE1"}, capture={"id": "SALE1"})
    fetch(sqlite_pipeline, paypal)
    assert paypal.requests == ["sale"]


@pytest.mark.parametrize("kind", ["subscription", "plan", "dispute"])
def test_other_objects_have_one_api(sqlite_pipeline: PipelineUnderTest, kind: str) -> None:
    enqueue(sqlite_pipeline, kind)
    paypal = TwoApis()
    fetch(sqlite_pipeline, paypal)
    assert paypal.requests == [kind]
    assert sqlite_pipeline.count(PaypalLookup) == 1


@pytest.mark.parametrize(("kind", "answers"), [("sale", ["READ.SALE"]), ("refund", []), ("plan", [])])
def test_only_a_stored_sale_that_paypal_does_not_know_gets_an_answer(
    sqlite_pipeline: PipelineUnderTest, kind: str, answers: list[str]
) -> None:
    """Whoever forged the payment is not believed. Of another object nothing is stored that could be wrong."""
    with sqlite_pipeline.database.transaction() as session:
        session.add(Payment(id="SALE1", known={}, refunded=0))
    enqueue(sqlite_pipeline, kind)
    for _ in range(8):
        fetch(sqlite_pipeline, TwoApis())
        sqlite_pipeline.clock.advance(lookup_fetcher.MISSING_AFTER / 4)
    assert [row.type for row in sqlite_pipeline.rows(EventRow)] == answers


def test_sale_that_is_not_stored_gets_no_answer(sqlite_pipeline: PipelineUnderTest) -> None:
    enqueue(sqlite_pipeline)
    for _ in range(8):
        fetch(sqlite_pipeline, TwoApis())
        sqlite_pipeline.clock.advance(lookup_fetcher.MISSING_AFTER / 4)
    assert sqlite_pipeline.rows(EventRow) == []
