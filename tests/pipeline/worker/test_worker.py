"""One transaction for a batch, nobody harmed by a bad neighbour, literal delays, and effects that happen once."""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import event as listening
from sqlalchemy import text
from structlog.testing import capture_logs

from pipeline.billing.reminders import Reminders
from pipeline.billing.unit_of_work import Books, Handler
from pipeline.broker import Broker, BrokerDown
from pipeline.crypto.master_key import KeyProblem, MasterKey
from pipeline.db.engine import Database, StoreDown
from pipeline.db.models import Customer, EncryptionKey, Mail, StatusHistoryEntry
from pipeline.db.models import Event as Row
from pipeline.db.models import PaypalLookup as Question
from pipeline.inbox import store as inbox
from pipeline.inbox.event import Event, Park, Read, TryLater
from pipeline.outbox import store as outbox
from pipeline.worker.worker import BATCH, DELAYS, Worker, serve
from tests.support import run_role as role
from tests.support.broker_fixtures import put
from tests.support.pipeline_under_test import River, delivery, happened, make_parts
from tests.support.running_roles import running
from tests.support.subprocesses import Leashed, until

SECRET = "ada@example.com, 4 Mill Lane"


def leave_a_row(event: Event, books: Books) -> None:
    """An effect that shows when it happens twice."""
    books.add_change(
        subscription_id="I-1", at=books.now, old_status=None, new_status="X", reason=event.type, event_id=event.id
    )


def raising(error: Exception) -> Handler:
    def handle(event: Event, books: Books) -> None:
        leave_a_row(event, books)
        raise error

    return handle


HANDLERS: dict[str, Handler] = {
    "TEST.GOOD": leave_a_row,
    "TEST.FAULT": raising(ValueError(SECRET)),
    "TEST.PARK": raising(Park("nobody knows")),
    "TEST.LATER": raising(TryLater(timedelta(minutes=7), "too early")),
    "TEST.READ": raising(Read("sale", "SALE1")),
}


def store(river: River, *kinds: str) -> list[str]:
    """Events of these types, WH-000 and so on."""
    names = [f"WH-{number:03}" for number in range(len(kinds))]
    river.store(*[delivery(happened(name, kind=kind)) for name, kind in zip(names, kinds, strict=True)])
    return names


def effects(river: River) -> list[str]:
    return sorted(row.event_id for row in river.rows(StatusHistoryEntry))


# Handling


def test_an_event_is_handled_with_its_effects(river: River) -> None:
    river.worker(HANDLERS).handle(store(river, "TEST.GOOD"))
    row = river.event("WH-000")
    assert (row.state, row.done_at, row.due_at, row.reason) == ("handled", river.now, None, None)
    assert effects(river) == ["WH-000"]


def test_a_batch_is_one_transaction(river: River) -> None:
    commits: list[object] = []
    names = store(river, *["TEST.GOOD"] * (BATCH + 1))
    listening.listen(river.database.engine, "commit", commits.append)
    river.worker(HANDLERS).handle(names)
    assert len(commits) == 2
    assert effects(river) == names


def test_one_process_handles_a_second_batch_while_the_first_waits(stream: River, empty_broker_url: str) -> None:
    first, second, seen = threading.Event(), threading.Event(), list[bool]()

    def meet(event: Event, books: Books) -> None:
        if event.id == "WH-001":
            first.set()
            seen.append(second.wait(30))
        second.set()

    # Whoever is first makes a key, and the next waits for it.
    stream.worker(HANDLERS).handle(store(stream, "TEST.GOOD"))
    names = [f"WH-{number:03}" for number in range(1, 9)]
    stream.store(*[delivery(happened(name, kind="TEST.MEET")) for name in names])
    parts = make_parts(stream.url, stream.folder, stream.clock, {"TEST.MEET": meet}, broker_url=empty_broker_url)
    with running({"worker": parts}):
        put(parts.broker, names[:1])
        assert first.wait(30)
        for name in names[1:]:
            put(parts.broker, [name])
        until(lambda: set(stream.states().values()) == {"handled"}, 60, "all are handled")
    assert seen == [True]


def test_what_is_done_already_or_unknown_is_passed_over(river: River) -> None:
    worker, names = river.worker(HANDLERS), store(river, "TEST.GOOD", "TEST.GOOD", "TEST.NOBODY")
    worker.handle([names[0], names[0], "WH-unknown"])
    worker.handle([*names, "WH-unknown"])
    worker.handle(names)
    assert effects(river) == names[:2]


def test_a_type_without_a_handler_is_ignored_and_visible(river: River) -> None:
    river.worker(HANDLERS).handle(store(river, "TEST.NOBODY"))
    assert (river.event("WH-000").state, river.event("WH-000").reason) == (
        "ignored",
        "no handler for this type of event",
    )


def test_a_handler_gets_what_the_body_said(river: River) -> None:
    got: list[Event] = []
    resource = {
        "id": "I-ADA", "status": "ACTIVE", "update_time": "2026-03-01T11:00:00Z",
        "subscriber": {"email_address": "ada@example.com", "name": {"given_name": "Ada", "surname": "Whitfield"}},
    }  # fmt: skip
    kind = "BILLING.SUBSCRIPTION.UPDATED"
    river.store(delivery(happened("WH-1", kind=kind, resource=resource)))
    river.worker({kind: lambda event, books: got.append(event)}).handle(["WH-1"])
    [event] = got
    assert (event.id, event.type, event.source) == ("WH-1", kind, "webhook")
    assert event.facts["subscription"] == "I-ADA"
    assert event.person["email"] == "ada@example.com"
    assert event.received_at == river.now
    assert "ada@" not in repr(event)


def test_a_batch_is_handled_in_paypals_order(river: River) -> None:
    seen: list[str] = []
    times = {
        "WH-0": "2026-03-01T11:00:02Z",
        "WH-1": "2026-03-01T11:00:01Z",
        "WH-2": "never",
        "WH-3": "2026-02-01T00:00:00Z",
    }
    river.store(*[delivery(happened(name, create_time=time)) for name, time in times.items()])
    river.worker({"TEST.HAPPENED": lambda event, books: seen.append(event.id)}).handle(list(times))
    assert seen == ["WH-3", "WH-1", "WH-0", "WH-2"]


def test_an_event_whose_person_was_erased_is_handled_by_its_facts(river: River) -> None:
    names = store(river, "TEST.GOOD")
    river.set(
        next(row for row in river.rows(EncryptionKey) if row.key_id == "WH-000"), wrapped_key=None, erased_at=river.now
    )
    river.worker(HANDLERS).handle(names)
    assert river.states() == {"WH-000": "handled"}


def test_mails_that_became_due_are_announced_after_the_commit(river: River) -> None:
    def owe(event: Event, books: Books) -> None:
        books.owe(outbox.Owed("receipt", f"receipt:{event.id}", None, {}))

    announced: list[str] = []

    def announce(mails: list[str]) -> None:
        assert [row.id for row in river.rows(Mail)] == sorted(mails)
        announced.extend(mails)

    river.worker({"TEST.OWE": owe}, on_mail=announce).handle(store(river, "TEST.OWE", "TEST.OWE"))
    assert len(announced) == 2
    river.worker({"TEST.OWE": owe}, on_mail=announce).handle(["WH-000"])
    assert len(announced) == 2


# Neighbours


@pytest.mark.parametrize("bad", ["TEST.FAULT", "TEST.PARK", "TEST.LATER", "TEST.READ"])
@pytest.mark.parametrize("place", [0, 4, 9])
def test_one_bad_event_never_takes_its_neighbours_with_it(river: River, bad: str, place: int) -> None:
    kinds = ["TEST.GOOD"] * 10
    kinds[place] = bad
    names = store(river, *kinds)
    river.worker(HANDLERS, may_read=True).handle(names)
    good = [name for name, kind in zip(names, kinds, strict=True) if kind == "TEST.GOOD"]
    assert [name for name, state in river.states().items() if state == "handled"] == good
    assert effects(river) == good, "of the bad one nothing is left"


def test_bad_events_of_every_kind_in_one_batch_end_each_in_its_own_way(river: River) -> None:
    names = store(river, "TEST.FAULT", "TEST.GOOD", "TEST.PARK", "TEST.LATER", "TEST.NOBODY", "TEST.READ", "TEST.GOOD")
    river.worker(HANDLERS, may_read=True).handle(names)
    assert list(river.states().values()) == [
        "received", "handled", "parked", "received", "ignored", "received", "handled",
    ]  # fmt: skip
    reasons = [river.event(name).reason for name in names]
    assert reasons[2] == "nobody knows"
    assert reasons[3] == "too early"
    assert reasons[5] == "waits for sale SALE1 from PayPal"


def test_a_row_that_cannot_be_opened_harms_nobody_else(river: River) -> None:
    names = store(river, "TEST.GOOD", "TEST.GOOD", "TEST.GOOD")
    river.set(
        next(row for row in river.rows(EncryptionKey) if row.key_id == names[1]),
        wrapped_key=b"a broken row of a good table",
    )
    river.worker(HANDLERS).handle(names)
    assert effects(river) == [names[0], names[2]]
    assert river.event(names[1]).state == "received"


def test_the_wrong_master_key_is_no_events_fault(river: River) -> None:
    """The worker ends, its supervisor sees it, and nothing is parked."""
    names = store(river, "TEST.GOOD", "TEST.GOOD")
    river.master = MasterKey(os.urandom(32))
    with pytest.raises(KeyProblem, match="restore the right key file"):
        river.worker(HANDLERS).handle(names)
    assert set(river.states().values()) == {"received"}
    assert river.event(names[0]).attempts == 0


def test_an_effect_that_the_database_refuses_harms_nobody_else(river: River) -> None:
    def twice(event: Event, books: Books) -> None:
        books._session.add_all(
            [Customer(id=event.id, created_at=books.now), Customer(id=event.id, created_at=books.now)]
        )

    names = store(river, "TEST.GOOD", "TEST.TWICE", "TEST.GOOD")
    river.worker({**HANDLERS, "TEST.TWICE": twice}).handle(names)
    assert effects(river) == [names[0], names[2]]
    assert "IntegrityError" in (river.event(names[1]).reason or "")


# Again, later


def test_a_handler_that_fails_is_tried_again_after_the_delays_and_then_parked(river: River) -> None:
    [name] = store(river, "TEST.FAULT")
    worker, waited = river.worker(HANDLERS), list[timedelta]()
    worker.handle([name])
    while (row := river.event(name)).state == "received":
        assert row.due_at
        waited.append(row.due_at - river.now)
        river.clock.move_to(row.due_at)
        with river.database.transaction() as session:
            assert inbox.take_due(session, river.now, 10) == [name]
        worker.handle([name])
    assert waited == [
        timedelta(seconds=10),
        timedelta(minutes=1),
        timedelta(minutes=10),
        timedelta(hours=1),
        timedelta(hours=6),
    ]
    assert tuple(waited) == DELAYS
    assert (row.state, row.due_at) == ("parked", None)
    assert row.reason
    assert row.reason.startswith("its handler failed 6 times: ValueError at tests.pipeline.worker.test_worker:")


def test_a_handler_that_was_mended_meanwhile_handles_it(river: River) -> None:
    [name] = store(river, "TEST.FAULT")
    river.worker(HANDLERS).handle([name])
    river.worker({"TEST.FAULT": leave_a_row}).handle([name])
    assert (river.event(name).state, river.event(name).reason) == ("handled", None)


def test_what_a_handler_quotes_of_a_person_is_in_no_reason_and_no_log(river: River) -> None:
    [name] = store(river, "TEST.FAULT")
    with capture_logs() as logs:
        river.worker(HANDLERS).handle([name])
    assert [line["event"] for line in logs] == ["handler_failed"]
    assert "ada" not in str(logs)
    assert river.event(name).reason
    assert "ada" not in str(river.event(name).reason)


def test_an_event_that_is_too_early_is_tried_again_as_often_as_it_takes(river: River) -> None:
    [name] = store(river, "TEST.LATER")
    for _ in range(20):
        river.worker(HANDLERS).handle([name])
        row = river.event(name)
        assert (row.state, row.attempts, row.due_at) == ("received", 0, river.now + timedelta(minutes=7))
        river.clock.advance(timedelta(minutes=7))


def test_a_fact_that_lacks_parks_the_event_where_nobody_can_be_asked(river: River) -> None:
    [name] = store(river, "TEST.READ")
    river.worker(HANDLERS, may_read=False).handle([name])
    row = river.event(name)
    assert row.state == "parked"
    assert row.reason
    assert row.reason.startswith("needs sale SALE1 from PayPal, and no API credentials are set (SMT_PAYPAL_CLIENT_ID")
    assert river.count(Question) == 0


def test_a_fact_that_lacks_is_asked_for_once_however_many_lack_it(river: River) -> None:
    names = store(river, "TEST.READ", "TEST.READ")
    worker = river.worker(HANDLERS, may_read=True)
    worker.handle(names)
    river.clock.advance(timedelta(minutes=1))
    worker.handle(names)
    [question] = river.rows(Question)
    assert (question.kind, question.id) == ("sale", "SALE1")
    assert river.event(names[0]).attempts == 0


# When the database is away


@pytest.fixture
def broker(broker_url: str, queue_prefix: str) -> Broker:
    return Broker(broker_url, queue_prefix)


def run_until(worker: Worker, broker: Broker, done: Callable[[], bool]) -> None:
    """Serve until it is done, at most some seconds."""
    left = [3000]

    def stop(seconds: float) -> bool:
        left[0] -= 1
        assert left[0], "it goes on and on"
        return done()

    with broker.inlet("events") as inlet:
        serve(worker, inlet, stop)


@pytest.mark.parametrize("noticed", ["by the handler", "later"])
def test_a_connection_lost_in_the_middle_leaves_nothing_half_done_and_the_batch_comes_again(
    stream: River, broker: Broker, noticed: str
) -> None:
    cuts = [1]

    def cut(event: Event, books: Books) -> None:
        leave_a_row(event, books)
        if cuts:
            cuts.pop()
            books._session.flush()
            own = books._session.execute(text("SELECT pg_backend_pid()")).scalar_one()
            with stream.database.transaction() as other:
                other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": own})
            if noticed == "by the handler":
                books._session.execute(text("SELECT 1"))

    names = store(stream, *["TEST.GOOD"] * 5, "TEST.CUT", *["TEST.GOOD"] * 4)
    put(broker, names)
    with capture_logs() as logs:
        run_until(
            stream.worker({**HANDLERS, "TEST.CUT": cut}), broker, lambda: set(stream.states().values()) == {"handled"}
        )
    assert [line["event"] for line in logs] == ["store_down"]
    assert effects(stream) == names
    assert {row.attempts for row in stream.rows(Row)} == {0}, "it is no fault of any event"


def test_a_store_that_is_down_raises_with_nothing_half_done(river: River) -> None:
    def fail(event: Event, books: Books) -> None:
        raise StoreDown("gone")

    names = store(river, "TEST.GOOD", "TEST.DOWN", "TEST.GOOD")
    with pytest.raises(StoreDown):
        river.worker({**HANDLERS, "TEST.DOWN": fail}).handle(names)
    assert effects(river) == []
    assert set(river.states().values()) == {"received"}
    assert river.event(names[1]).attempts == 0, "it is no fault of the event"


def test_a_broker_that_goes_away_is_waited_for(brook: River) -> None:
    class Away:
        def take(self, limit: int, seconds: float) -> None:
            raise BrokerDown("gone")

    looks = iter([False, False, False, True, True])
    with capture_logs() as logs:
        serve(brook.worker({}), Away(), lambda seconds: next(looks))  # type: ignore[arg-type]
    assert [line["event"] for line in logs] == ["broker_down"] * 2


# Once


@pytest.mark.parametrize("kind", ["memory", "rabbitmq"])
def test_an_acknowledgement_that_is_lost_after_the_commit_brings_no_second_effect(
    river: River, kind: str, request: pytest.FixtureRequest
) -> None:
    broker = Broker("memory://") if kind == "memory" else request.getfixturevalue("broker")
    names, worker = store(river, *["TEST.GOOD"] * 3), river.worker(HANDLERS)
    put(broker, names)
    for _ in range(2):
        with broker.inlet("events") as inlet:
            batch = inlet.take(10, 30)
            assert batch
            assert batch.ids == names
            worker.handle(batch.ids)  # and then the process dies
    assert effects(river) == names


def test_two_workers_on_one_queue_handle_every_event_once(stream: River, broker: Broker) -> None:
    names = [f"WH-{number:03}" for number in range(300)]
    stream.store(*[delivery(happened(name, kind="TEST.GOOD")) for name in names])
    for start in range(0, 300, 30):
        put(broker, names[start : start + 30] * 2)
    handled = threading.Event()

    def done() -> bool:
        if not handled.is_set() and set(stream.states().values()) == {"handled"}:
            handled.set()
        return handled.is_set()

    def run(database: Database) -> int:
        took: list[str] = []

        def note(event: Event, books: Books) -> None:
            leave_a_row(event, books)
            took.append(event.id)

        worker = Worker(
            database, stream.master, stream.clock, {"TEST.GOOD": note}, reminders=Reminders(), may_read=False
        )
        run_until(worker, broker, done)
        database.close()
        return len(took)

    with ThreadPoolExecutor(2) as pool:
        shares = list(pool.map(run, [Database(stream.url), Database(stream.url)]))
    assert effects(stream) == names
    assert sum(shares) >= 300


def test_a_worker_killed_in_the_midst_loses_nothing_and_does_nothing_twice(
    stream: River, empty_broker_url: str, tmp_path: Path
) -> None:
    names = [f"WH-{number:03}" for number in range(400)]
    stream.store(*[delivery(happened(name, kind=role.COUNTED), source="import") for name in names])
    put(Broker(empty_broker_url), names)

    def start() -> Leashed:
        return role.start(
            "worker", tmp_path, data_dir=stream.folder, database_url=stream.url, broker_url=empty_broker_url
        )

    for at_least in (1, 150):
        worker = start()
        until(lambda least=at_least: stream.count(StatusHistoryEntry) >= least, 60, "some are handled")  # type: ignore[misc]
        worker.end(kill=True)
        assert stream.count(StatusHistoryEntry) < 400, "it was killed too late to prove anything"
    worker = start()
    until(lambda: set(stream.states().values()) == {"handled"}, 60, "all are handled")
    assert worker.end() == 0
    assert effects(stream) == names


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    until(lambda: threading.active_count() <= before, 10, "the threads of a test end with it")
