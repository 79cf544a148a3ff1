"""Each effect happens once in spite of lost acknowledgements, concurrent workers and killed workers."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.billing.reminders import ReminderPolicy
from pipeline.billing.unit_of_work import UnitOfWork
from pipeline.broker import Broker
from pipeline.db.engine import Database
from pipeline.db.models import StatusHistoryEntry
from pipeline.inbox.event import Event
from pipeline.worker.worker import Worker
from tests.support import run_role
from tests.support.broker_fixtures import put
from tests.support.pipeline_under_test import River, delivery, happened
from tests.support.subprocesses import Leashed, until
from tests.support.worker_fixtures import HANDLERS, effects, leave_a_row, run_until, store


@pytest.mark.parametrize("kind", ["memory", "rabbitmq"])
def test_lost_acknowledgement_causes_no_second_effect(river: River, kind: str, request: pytest.FixtureRequest) -> None:
    broker = Broker("memory://") if kind == "memory" else request.getfixturevalue("broker")
    names, worker = store(river, *["TEST.GOOD"] * 3), river.worker(HANDLERS)
    put(broker, names)
    for _ in range(2):
        with broker.consumer("events") as consumer:
            batch = consumer.receive(10, 30)
            assert batch
            assert batch.ids == names
            worker.handle(batch.ids)  # the process dies before the acknowledgement
    assert effects(river) == names


def test_two_workers_handle_every_event_once(stream: River, broker: Broker) -> None:
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
        handled_ids: list[str] = []

        def record(event: Event, uow: UnitOfWork) -> None:
            leave_a_row(event, uow)
            handled_ids.append(event.id)

        worker = Worker(
            database, stream.master, stream.clock, {"TEST.GOOD": record}, reminders=ReminderPolicy(), may_read=False
        )
        run_until(worker, broker, done)
        database.close()
        return len(handled_ids)

    with ThreadPoolExecutor(2) as pool:
        counts = list(pool.map(run, [Database(stream.url), Database(stream.url)]))
    assert effects(stream) == names
    assert sum(counts) >= 300


def test_killed_worker_neither_loses_nor_repeats_an_event(stream: River, empty_broker_url: str, tmp_path: Path) -> None:
    names = [f"WH-{number:03}" for number in range(400)]
    stream.store(*[delivery(happened(name, kind=run_role.COUNTED), source="import") for name in names])
    put(Broker(empty_broker_url), names)

    def start() -> Leashed:
        return run_role.start(
            "worker", tmp_path, data_dir=stream.folder, database_url=stream.url, broker_url=empty_broker_url
        )

    for at_least in (1, 150):
        worker = start()
        until(lambda least=at_least: stream.count(StatusHistoryEntry) >= least, 60, "some events are handled")  # type: ignore[misc]
        worker.end(kill=True)
        assert stream.count(StatusHistoryEntry) < 400, "the worker had handled every event before it was killed"
    worker = start()
    until(lambda: set(stream.states().values()) == {"handled"}, 60, "all events are handled")
    assert worker.end() == 0
    assert effects(stream) == names
