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
from tests.support.pipeline_under_test import PipelineUnderTest, delivery, happened
from tests.support.subprocesses import ManagedProcess, until
from tests.support.worker_fixtures import HANDLERS, effects, leave_a_row, run_until, store


@pytest.mark.parametrize("kind", ["memory", "rabbitmq"])
def test_lost_acknowledgement_causes_no_second_effect(
    pipeline: PipelineUnderTest, kind: str, request: pytest.FixtureRequest
) -> None:
    broker = Broker("memory://") if kind == "memory" else request.getfixturevalue("broker")
    names, worker = store(pipeline, *["TEST.GOOD"] * 3), pipeline.worker(HANDLERS)
    put(broker, names)
    for _ in range(2):
        with broker.consumer("events") as consumer:
            batch = consumer.receive(10, 30)
            assert batch
            assert batch.ids == names
            worker.handle(batch.ids)  # the process dies before the acknowledgement
    assert effects(pipeline) == names


def test_two_workers_handle_every_event_once(postgresql_pipeline: PipelineUnderTest, broker: Broker) -> None:
    names = [f"WH-{number:03}" for number in range(300)]
    postgresql_pipeline.store(*[delivery(happened(name, kind="TEST.GOOD")) for name in names])
    for start in range(0, 300, 30):
        put(broker, names[start : start + 30] * 2)
    handled = threading.Event()

    def done() -> bool:
        if not handled.is_set() and set(postgresql_pipeline.states().values()) == {"handled"}:
            handled.set()
        return handled.is_set()

    def run(database: Database) -> int:
        handled_ids: list[str] = []

        def record(event: Event, uow: UnitOfWork) -> None:
            leave_a_row(event, uow)
            handled_ids.append(event.id)

        worker = Worker(
            database,
            postgresql_pipeline.master,
            postgresql_pipeline.clock,
            {"TEST.GOOD": record},
            reminders=ReminderPolicy(),
            may_read=False,
        )
        run_until(worker, broker, done)
        database.close()
        return len(handled_ids)

    with ThreadPoolExecutor(2) as pool:
        counts = list(pool.map(run, [Database(postgresql_pipeline.url), Database(postgresql_pipeline.url)]))
    assert effects(postgresql_pipeline) == names
    assert sum(counts) >= 300


def test_killed_worker_neither_loses_nor_repeats_an_event(
    postgresql_pipeline: PipelineUnderTest, empty_broker_url: str, tmp_path: Path
) -> None:
    names = [f"WH-{number:03}" for number in range(400)]
    postgresql_pipeline.store(*[delivery(happened(name, kind=run_role.COUNTED), source="import") for name in names])
    put(Broker(empty_broker_url), names)

    def start() -> ManagedProcess:
        return run_role.start(
            "worker",
            tmp_path,
            data_dir=postgresql_pipeline.folder,
            database_url=postgresql_pipeline.url,
            broker_url=empty_broker_url,
        )

    count = postgresql_pipeline.count
    for at_least in (1, 150):
        worker = start()
        until(lambda least=at_least: count(StatusHistoryEntry) >= least, 60, "some events are handled")  # type: ignore[misc]
        worker.end(kill=True)
        assert postgresql_pipeline.count(StatusHistoryEntry) < 400, (
            "the worker had handled every event before it was killed"
        )
    worker = start()
    until(lambda: set(postgresql_pipeline.states().values()) == {"handled"}, 60, "all events are handled")
    assert worker.end() == 0
    assert effects(postgresql_pipeline) == names
