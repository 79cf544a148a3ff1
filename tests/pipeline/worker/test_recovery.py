"""Inbox recovery handles events that no message delivered: in time, once, and by one worker."""

from collections.abc import Mapping
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from pipeline.billing.unit_of_work import Handler, UnitOfWork
from pipeline.broker import Broker
from pipeline.db.engine import DatabaseUnavailableError
from pipeline.inbox import store as inbox
from pipeline.inbox.event import Event, RetryLater
from pipeline.inbox.store import PUBLISH_GRACE, QUIET_BROKER_GRACE
from pipeline.worker.recovery import QUIET_SECONDS, InboxRecovery
from pipeline.worker.worker import BATCH
from tests.support.broker_fixtures import put
from tests.support.pipeline_under_test import HAPPENED, PipelineUnderTest, delivery, happened

LATER = timedelta(minutes=7)


def do_nothing(event: Event, uow: UnitOfWork) -> None:
    """A handler without effects."""


def retry_later(event: Event, uow: UnitOfWork) -> None:
    raise RetryLater(LATER, "too early")


def recovery_of(
    pipeline: PipelineUnderTest, handlers: Mapping[str, Handler] | None = None, quiet: float = 0.0
) -> InboxRecovery:
    return InboxRecovery(
        pipeline.worker(handlers or {HAPPENED: do_nothing}), pipeline.database, pipeline.clock, lambda: quiet
    )


def webhooks(pipeline: PipelineUnderTest, count: int) -> None:
    pipeline.store(*[delivery(happened(f"WH-{number}"), f"T-{number}") for number in range(count)])


def test_imported_event_is_handled_at_once(pipeline: PipelineUnderTest) -> None:
    pipeline.store(delivery(happened(), source="import"))
    assert recovery_of(pipeline).once() == 1
    assert pipeline.states() == {"WH-1": "handled"}
    assert recovery_of(pipeline).once() == 0


def test_postponed_event_is_retried_on_time_while_broker_is_quiet(pipeline: PipelineUnderTest) -> None:
    webhooks(pipeline, 1)
    recovery = recovery_of(pipeline, {HAPPENED: retry_later}, QUIET_SECONDS)
    pipeline.clock.advance(QUIET_BROKER_GRACE)
    assert recovery.once() == 1
    for advance in (timedelta(0), LATER - PUBLISH_GRACE, PUBLISH_GRACE - timedelta(seconds=1)):
        pipeline.clock.advance(advance)
        assert recovery.once() == 0
    pipeline.clock.advance(timedelta(seconds=1))
    assert recovery_of(pipeline).once() == 1
    assert pipeline.states() == {"WH-0": "handled"}


def test_recovery_leaves_new_events_to_a_working_broker(pipeline: PipelineUnderTest) -> None:
    webhooks(pipeline, 3)
    recovery = recovery_of(pipeline, quiet=QUIET_SECONDS - 0.1)
    pipeline.clock.advance(PUBLISH_GRACE - timedelta(seconds=1))
    assert recovery.once() == 0
    pipeline.clock.advance(timedelta(seconds=1))
    assert recovery.once() == 3


def test_recovery_takes_new_events_while_the_broker_is_quiet(pipeline: PipelineUnderTest) -> None:
    webhooks(pipeline, 3)
    recovery = recovery_of(pipeline, quiet=QUIET_SECONDS)
    pipeline.clock.advance(QUIET_BROKER_GRACE - timedelta(seconds=1))
    assert recovery.once() == 0, "its message may still arrive"
    pipeline.clock.advance(timedelta(seconds=1))
    assert recovery.once() == 3
    assert set(pipeline.states().values()) == {"handled"}


def test_recovery_skips_events_that_another_worker_has_locked(postgresql_pipeline: PipelineUnderTest) -> None:
    postgresql_pipeline.store(*[delivery(happened(f"WH-{number}"), source="import") for number in range(4)])
    with postgresql_pipeline.database.transaction() as session:
        assert len(inbox.lock_received(session, ["WH-0", "WH-1"])) == 2
        assert recovery_of(postgresql_pipeline).once() == 2
        assert recovery_of(postgresql_pipeline).once() == 0
    assert recovery_of(postgresql_pipeline).once() == 2


def test_recovery_waits_only_after_an_incomplete_batch(pipeline: PipelineUnderTest) -> None:
    pipeline.store(*[delivery(happened(f"WH-{number}"), source="import") for number in range(BATCH + 1)])
    waited: list[float] = []

    def stop(seconds: float) -> bool:
        waited.append(seconds)
        return len(waited) > 3

    recovery_of(pipeline).run(stop)
    assert [seconds > 0 for seconds in waited] == [True, False, True, True]
    assert set(pipeline.states().values()) == {"handled"}


def test_recovery_survives_a_database_outage(pipeline: PipelineUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    recovery, answers = recovery_of(pipeline), [False, False, True]

    def fail() -> int:
        raise DatabaseUnavailableError("gone")

    monkeypatch.setattr(recovery, "once", fail)
    with capture_logs() as logs:
        recovery.run(lambda _: answers.pop(0))
    assert [line["event"] for line in logs] == ["store_down"] * 2


def test_consumer_reports_seconds_since_the_last_message() -> None:
    broker = Broker("memory://")
    with broker.consumer("events") as consumer:
        assert consumer.receive(10, 0.05) is None
        quiet = consumer.idle_seconds()
        assert quiet >= 0.05
        put(broker, ["WH-1"])
        assert consumer.receive(10, 1.0) is not None
        assert consumer.idle_seconds() < quiet
