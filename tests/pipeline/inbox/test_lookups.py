"""Questions to PayPal: asked outside any transaction, answered through the inbox, and never for ever."""

from collections.abc import Iterator
from datetime import timedelta
from random import Random
from typing import Any

import pytest

from handlers import HANDLERS
from pipeline.billing.unit_of_work import UnitOfWork
from pipeline.db.models import Payment, Refund, Subscription
from pipeline.db.models import PaypalLookup as Question
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


class Oracle:
    """PayPal, as far as it is told what to say."""

    def __init__(self, answer: dict[str, Any] | Exception) -> None:
        self.answer = answer
        self.asked: list[str] = []

    def get(self, kind: str, id: str) -> dict[str, Any]:
        self.asked.append(f"{kind} {id}")
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def wanting(event: Event, uow: UnitOfWork) -> None:
    raise NeedsLookup("sale", "SALE1")


def ask(river: River, paypal: lookup_fetcher.PaypalReader) -> list[str]:
    return lookup_fetcher.fetch_due(river.database, river.master, river.clock, paypal)


def owe(river: River, kind: Any = "sale", id: str = "SALE1", after: timedelta = timedelta()) -> None:
    with river.database.transaction() as session:
        lookups.enqueue(session, [lookups.LookupRequest(kind, id, river.now + after)])


def due(river: River) -> list[str]:
    with river.database.transaction() as session:
        return inbox.lease_due(session, river.now, 100)


def tell(river: River, told: Delivery) -> StoreResult:
    [stored] = river.store(delivery(told.body))
    return stored


# Asking


def test_a_question_is_asked_when_it_is_due_and_its_answer_comes_in_by_the_inbox(river: River) -> None:
    oracle = Oracle({"id": "SALE1", "state": "completed", "update_time": "2026-03-01T11:00:00Z"})
    owe(river, after=timedelta(minutes=5))
    owe(river)  # it stays as it was
    assert ask(river, oracle) == []
    river.clock.advance(timedelta(minutes=5))
    [event_id] = ask(river, oracle)
    row = river.event(event_id)
    assert (row.type, row.source, row.state, row.signature_verdict) == (
        "READ.SALE",
        "read",
        "received",
        "read from PayPal's API",
    )
    assert row.facts["sale"] == "SALE1"
    assert oracle.asked == ["sale SALE1"]
    assert river.count(Question) == 0
    assert ask(river, oracle) == []


def test_the_same_answer_twice_is_one_event_and_another_answer_another(river: River) -> None:
    oracle = Oracle({"id": "SALE1", "state": "pending", "update_time": "2026-03-01T11:00:00Z"})
    told = []
    for state in ("pending", "pending", "completed"):
        oracle.answer = {"id": "SALE1", "state": state, "update_time": "2026-03-01T11:00:00Z"}
        owe(river)
        told += ask(river, oracle)
    assert len(told) == 2
    assert set(river.states()) == set(told)


def test_a_question_that_somebody_is_asking_is_not_asked_by_another(river: River) -> None:
    class Slow(Oracle):
        def get(self, kind: str, id: str) -> dict[str, Any]:
            if not self.asked:
                self.asked.append("slowly")
                assert ask(river, self) == []
            return super().get(kind, id)

    oracle = Slow({"id": "SALE1"})
    owe(river)
    ask(river, oracle)
    assert oracle.asked == ["slowly", "sale SALE1"]


def test_a_question_whose_asker_died_is_asked_again(river: River) -> None:
    class Deadly(Oracle):
        def get(self, kind: str, id: str) -> dict[str, Any]:
            raise KeyboardInterrupt

    owe(river)
    with pytest.raises(KeyboardInterrupt):
        ask(river, Deadly({}))
    oracle = Oracle({"id": "SALE1"})
    assert ask(river, oracle) == []
    river.clock.advance(lookup_fetcher.LEASE)
    assert len(ask(river, oracle)) == 1


@pytest.fixture
def world() -> PaypalState:
    return PaypalState()


@pytest.fixture
def pretence(world: PaypalState) -> FakePaypalApi:
    return FakePaypalApi(world)


@pytest.fixture
def paypal(pretence: FakePaypalApi) -> Iterator[PaypalApi]:
    with pretence.serve() as base:
        api = PaypalApi(base, "simulator", "simulator-secret")
        yield api
        api.close()


def test_a_paypal_that_is_away_is_asked_again_after_the_delays(
    brook: River, pretence: FakePaypalApi, paypal: PaypalApi
) -> None:
    pretence.misbehave("500", times=7)
    owe(brook, "plan", CLOUD.id)
    waited = []
    for _ in range(7):
        assert ask(brook, paypal) == []
        [question] = brook.rows(Question)
        assert question.due_at
        assert question.reason
        assert "500" in question.reason
        waited.append(question.due_at - brook.now)
        brook.clock.move_to(question.due_at)
    assert waited == [
        timedelta(minutes=1),
        timedelta(minutes=5),
        timedelta(minutes=30),
        timedelta(hours=3),
        *[timedelta(days=1)] * 3,
    ]
    assert len(ask(brook, paypal)) == 1


def test_what_paypal_does_not_know_is_not_asked_again(brook: River, paypal: PaypalApi, pretence: FakePaypalApi) -> None:
    owe(brook, "sale", "NOSUCHSALE0000000")
    assert ask(brook, paypal) == []
    with brook.database.reading() as session:
        assert lookups.is_known_missing(session, "sale", "NOSUCHSALE0000000")
    asked = len(pretence.asked)
    brook.clock.advance(timedelta(days=30))
    assert ask(brook, paypal) == []
    assert len(pretence.asked) == asked


@pytest.mark.parametrize("status", [401, 403])
def test_credentials_that_are_refused_say_nothing_of_what_was_asked_for(river: River, status: int) -> None:
    """An operator who puts them right must not find every question given up."""
    owe(river)
    ask(river, Oracle(PaypalRejectedError(status, "NOT_AUTHORIZED", "abc")))
    [question] = river.rows(Question)
    assert question.due_at == river.now + timedelta(minutes=1)
    assert question.reason
    assert "NOT_AUTHORIZED" in question.reason
    river.clock.advance(timedelta(minutes=1))
    assert len(ask(river, Oracle({"id": "SALE1"}))) == 1


def test_what_paypal_refuses_for_another_reason_is_not_asked_again(river: River) -> None:
    owe(river)
    ask(river, Oracle(PaypalRejectedError(422, "UNPROCESSABLE_ENTITY", "abc")))
    assert river.rows(Question)[0].due_at is None


# The event that asked


def test_an_event_waits_for_its_answer_and_is_handled_after_it(
    river: River, world: PaypalState, paypal: PaypalApi
) -> None:
    """A refund from PayPal's dashboard does not say of which sale it is: PayPal is asked."""
    told = scenarios.refund(ADA, CLOUD, river.now - timedelta(days=90), Random(1), name_sale=False)
    for each in told:
        world.apply(each)
    [first, *_] = [each for each in told if each.type == "PAYMENT.SALE.REFUNDED"]
    worker = river.worker(HANDLERS, may_read=True)
    assert tell(river, first).outcome == "stored"
    worker.handle([first.id])
    assert river.event(first.id).reason == f"waits for refund {first.event['resource']['id']} from PayPal"
    [answer] = ask(river, paypal)
    worker.handle([answer])
    assert due(river) == []
    river.clock.advance(timedelta(seconds=1))
    assert due(river) == [first.id]
    worker.handle([first.id])
    assert set(river.states().values()) == {"handled"}
    [refund] = river.rows(Refund)
    assert refund.payment_id == first.event["resource"].get("sale_id") or refund.payment_id in world.ids("sale")


def test_who_an_unknown_subscription_belongs_to_is_found_out(
    river: River, world: PaypalState, paypal: PaypalApi
) -> None:
    """Its first events never came; money does, and a receipt is owed to somebody."""
    told = scenarios.first_year(ADA, CLOUD, river.now - timedelta(days=2), Random(1))
    [sale] = [each for each in told if each.type == "PAYMENT.SALE.COMPLETED"][:1]
    for each in told[:3]:
        world.apply(each)
    worker = river.worker(HANDLERS, may_read=True)
    tell(river, sale)
    worker.handle([sale.id])
    [mail] = river.mails().values()
    assert (mail.state, mail.due_at) == ("queued", None)
    river.clock.advance(timedelta(minutes=5))
    for _ in range(3):
        worker.handle([*ask(river, paypal), *due(river)])
    assert river.rows(Subscription)[0].status == "ACTIVE"
    assert river.rows(Payment)[0].status == "completed"
    assert [row.due_at for row in river.mails().values()] == [river.now] * 2


def test_what_paypal_does_not_know_parks_the_event_and_a_person_may_have_it_asked_again(river: River) -> None:
    unknowing, knowing = Oracle(PaypalRejectedError(404, "", "")), Oracle({"id": "SALE1", "state": "completed"})
    worker = river.worker({"TEST.HAPPENED": wanting, "READ.SALE": lambda event, books: None}, may_read=True)
    river.store(delivery(happened()))
    worker.handle(["WH-1"])
    ask(river, unknowing)
    river.clock.advance(timedelta(minutes=1))
    worker.handle(due(river))
    row = river.event("WH-1")
    assert (row.state, row.reason) == ("parked", "needs sale SALE1 from PayPal, which does not know it")
    with river.database.transaction() as session:
        assert inbox.retry(session, ["WH-1"], river.now) == ["WH-1"]
    worker.handle(due(river))
    assert river.event("WH-1").state == "received"
    assert len(ask(river, knowing)) == 1


def test_an_answer_that_does_not_help_is_not_asked_for_for_ever(river: River) -> None:
    """Without an end PayPal would be asked every two seconds."""
    oracle = Oracle({"id": "SALE1", "state": "completed"})

    def useless(event: Event, uow: UnitOfWork) -> None:
        raise ParkEvent("this tells nothing")

    worker = river.worker({"TEST.HAPPENED": wanting, "READ.SALE": useless}, may_read=True)
    river.store(delivery(happened()))
    began, row = river.now, river.event("WH-1")
    for _ in range(100):
        worker.handle([*due(river), *ask(river, oracle)])
        row = river.event("WH-1")
        if row.state == "parked":
            break
        river.clock.move_to(min(at for at in (row.due_at, *(each.due_at for each in river.rows(Question))) if at))
    assert row.state == "parked"
    assert river.now - began < timedelta(days=1)
    assert row.reason
    assert "does not tell what is missing" in row.reason
    assert len(oracle.asked) <= len(RETRY_DELAYS) + 1


def test_an_event_that_looks_again_before_its_answer_has_been_handled_is_not_given_up(river: River) -> None:
    known: list[str] = []

    def handle(event: Event, uow: UnitOfWork) -> None:
        if not known:
            raise NeedsLookup("sale", "SALE1")

    worker = river.worker(
        {"TEST.HAPPENED": handle, "READ.SALE": lambda event, books: known.append("SALE1")}, may_read=True
    )
    river.store(delivery(happened()))
    worker.handle(["WH-1"])
    [answer] = ask(river, Oracle({"id": "SALE1"}))
    river.clock.advance(timedelta(seconds=1))
    worker.handle(["WH-1"])
    assert (river.event("WH-1").state, river.event("WH-1").due_at) == ("received", river.now + RETRY_DELAYS[0])
    worker.handle([answer])
    river.clock.advance(RETRY_DELAYS[0])
    assert "WH-1" in due(river)
    worker.handle(["WH-1"])
    assert river.event("WH-1").state == "handled"
