"""Received events become due at their time, and only one worker takes each."""

from datetime import timedelta

import pytest

from pipeline.inbox import store as inbox
from pipeline.inbox.store import PUBLISH_GRACE
from tests.support.pipeline_under_test import PipelineUnderTest, delivery, happened

FIRST = delivery(happened("WH-1"), "T-1")
SOON = timedelta(seconds=1)


def due(pipeline: PipelineUnderTest, limit: int = 100) -> list[str]:
    with pipeline.database.transaction() as session:
        return inbox.lease_due(session, pipeline.now, limit)


def test_webhook_is_due_after_the_publish_grace(pipeline: PipelineUnderTest) -> None:
    pipeline.store(FIRST)
    assert due(pipeline) == []
    pipeline.clock.advance(PUBLISH_GRACE)
    assert due(pipeline) == ["WH-1"]
    assert due(pipeline) == [], "the lease lasts as long as the first wait"
    pipeline.clock.advance(PUBLISH_GRACE)
    assert due(pipeline) == ["WH-1"]


def test_longest_due_events_come_first_up_to_the_limit(pipeline: PipelineUnderTest) -> None:
    for number in (3, 1, 2):
        pipeline.store(delivery(happened(f"WH-{number}"), source="import"))
        pipeline.clock.advance(SOON)
    assert due(pipeline, 2) == ["WH-3", "WH-1"]
    assert due(pipeline, 2) == ["WH-2"]


@pytest.mark.parametrize("state", ["handled", "ignored", "parked"])
def test_finished_event_is_never_due(pipeline: PipelineUnderTest, state: inbox.State) -> None:
    pipeline.store(FIRST)
    with pipeline.database.transaction() as session:
        inbox.mark_events(session, ["WH-1"], state, pipeline.now, "because")
    pipeline.clock.advance(timedelta(days=365))
    assert due(pipeline) == []
    row = pipeline.event("WH-1")
    assert (row.state, row.reason, row.due_at) == (state, "because", None)
    with pipeline.database.transaction() as session:
        assert inbox.lock_received(session, ["WH-1"]) == []


def test_two_recoveries_share_the_due_events(postgresql_pipeline: PipelineUnderTest) -> None:
    postgresql_pipeline.store(*[delivery(happened(f"WH-{number}"), source="import") for number in range(10)])
    with postgresql_pipeline.database.transaction() as one, postgresql_pipeline.database.transaction() as two:
        first_ids, second_ids = (
            inbox.lease_due(one, postgresql_pipeline.now, 5),
            inbox.lease_due(two, postgresql_pipeline.now, 100),
        )
    assert len(first_ids) == len(second_ids) == 5
    assert not set(first_ids) & set(second_ids)


def test_event_locked_by_another_worker_is_skipped(postgresql_pipeline: PipelineUnderTest) -> None:
    postgresql_pipeline.store(FIRST, delivery(happened("WH-2"), "T-2"))
    with postgresql_pipeline.database.transaction() as one, postgresql_pipeline.database.transaction() as two:
        assert [row.id for row in inbox.lock_received(one, ["WH-2"])] == ["WH-2"]
        assert [row.id for row in inbox.lock_received(two, ["WH-2", "WH-1"])] == ["WH-1"]


def test_postponed_event_is_due_on_time_and_counts_only_failures(pipeline: PipelineUnderTest) -> None:
    pipeline.store(delivery(happened("WH-1"), source="import"))
    for failed in (True, False, True):
        with pipeline.database.transaction() as session:
            inbox.postpone(session, "WH-1", pipeline.now + timedelta(hours=1), "later", failed=failed)
    assert pipeline.event("WH-1").attempts == 2
    assert due(pipeline) == []
    pipeline.clock.advance(timedelta(hours=1))
    assert due(pipeline) == ["WH-1"]


def test_handled_event_is_not_postponed(pipeline: PipelineUnderTest) -> None:
    pipeline.store(FIRST)
    with pipeline.database.transaction() as session:
        inbox.mark_events(session, ["WH-1"], "handled", pipeline.now)
        inbox.postpone(session, "WH-1", pipeline.now, "later", failed=True)
    assert pipeline.states() == {"WH-1": "handled"}
    assert pipeline.event("WH-1").attempts == 0


def test_answer_releases_only_events_that_wait_for_it(pipeline: PipelineUnderTest) -> None:
    pipeline.store(*[delivery(happened(f"WH-{number}")) for number in range(4)])
    tomorrow = pipeline.now + timedelta(days=1)
    with pipeline.database.transaction() as session:
        for name, reason in (("WH-0", "waits for A"), ("WH-1", "waits for B"), ("WH-2", "waits for A")):
            inbox.postpone(session, name, tomorrow, reason, failed=False)
        inbox.mark_events(session, ["WH-2"], "parked", pipeline.now, "waits for A")
        assert inbox.release_waiting(session, "waits for A", pipeline.now) == 1
    assert due(pipeline) == ["WH-0"]


def test_operator_can_retry_parked_and_ignored_events(pipeline: PipelineUnderTest) -> None:
    pipeline.store(*[delivery(happened(f"WH-{number}")) for number in range(4)])
    with pipeline.database.transaction() as session:
        inbox.postpone(session, "WH-0", pipeline.now, "failed", failed=True)
        inbox.mark_events(session, ["WH-0"], "parked", pipeline.now, "failed")
        inbox.mark_events(session, ["WH-1"], "ignored", pipeline.now, "no handler")
        inbox.mark_events(session, ["WH-2"], "handled", pipeline.now)
    with pipeline.database.transaction() as session:
        assert sorted(inbox.retry(session, [f"WH-{number}" for number in range(5)], pipeline.now)) == ["WH-0", "WH-1"]
    row = pipeline.event("WH-0")
    assert (row.state, row.reason, row.attempts, row.done_at) == ("received", None, 0, None)
    assert sorted(due(pipeline)) == ["WH-0", "WH-1"]
    assert pipeline.event("WH-2").state == "handled"
