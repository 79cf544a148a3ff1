"""Handlers with each possible outcome, events for them, and a worker loop that stops."""

from collections.abc import Callable
from datetime import timedelta

from pipeline.billing.unit_of_work import Handler, UnitOfWork
from pipeline.broker import Broker
from pipeline.db.models import StatusHistoryEntry
from pipeline.inbox.event import Event, NeedsLookup, ParkEvent, RetryLater
from pipeline.worker.worker import Worker, consume_until_stopped
from tests.support.pipeline_under_test import PipelineUnderTest, delivery, happened

SECRET = "ada@example.com, 4 Mill Lane"


def leave_a_row(event: Event, uow: UnitOfWork) -> None:
    """Insert a row, so a second call is visible."""
    uow.add_status_change(
        subscription_id="I-1", at=uow.now, old_status=None, new_status="X", reason=event.type, event_id=event.id
    )


def raising(error: Exception) -> Handler:
    def handle(event: Event, uow: UnitOfWork) -> None:
        leave_a_row(event, uow)
        raise error

    return handle


HANDLERS: dict[str, Handler] = {
    "TEST.GOOD": leave_a_row,
    "TEST.FAULT": raising(ValueError(SECRET)),
    "TEST.PARK": raising(ParkEvent("nobody knows")),
    "TEST.LATER": raising(RetryLater(timedelta(minutes=7), "too early")),
    "TEST.READ": raising(NeedsLookup("sale", "SALE1")),
}


def store(pipeline: PipelineUnderTest, *kinds: str) -> list[str]:
    """Store one event of each type, with the ids WH-000, WH-001 and so on. Return the ids."""
    names = [f"WH-{number:03}" for number in range(len(kinds))]
    pipeline.store(*[delivery(happened(name, kind=kind)) for name, kind in zip(names, kinds, strict=True)])
    return names


def effects(pipeline: PipelineUnderTest) -> list[str]:
    return sorted(row.event_id for row in pipeline.rows(StatusHistoryEntry))


def run_until(worker: Worker, broker: Broker, done: Callable[[], bool]) -> None:
    """Run the worker loop until `done` returns true. Raises AssertionError after 3,000 rounds."""
    left = [3000]

    def stop(seconds: float) -> bool:
        left[0] -= 1
        assert left[0], "the worker loop did not finish within 3,000 rounds"
        return done()

    with broker.consumer("events") as inlet:
        consume_until_stopped(worker, inlet, stop)
