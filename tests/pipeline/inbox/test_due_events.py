"""Received events become due at their time, and only one worker takes each."""

from datetime import timedelta

import pytest

from pipeline.inbox import store as inbox
from pipeline.inbox.store import PUBLISH_GRACE
from tests.support.pipeline_under_test import River, delivery, happened

FIRST = delivery(happened("WH-1"), "T-1")
SOON = timedelta(seconds=1)


def due(river: River, limit: int = 100) -> list[str]:
    with river.database.transaction() as session:
        return inbox.lease_due(session, river.now, limit)


def test_webhook_is_due_after_the_publish_grace(river: River) -> None:
    river.store(FIRST)
    assert due(river) == []
    river.clock.advance(PUBLISH_GRACE)
    assert due(river) == ["WH-1"]
    assert due(river) == [], "the lease lasts as long as the first wait"
    river.clock.advance(PUBLISH_GRACE)
    assert due(river) == ["WH-1"]


def test_longest_due_events_come_first_up_to_the_limit(river: River) -> None:
    for number in (3, 1, 2):
        river.store(delivery(happened(f"WH-{number}"), source="import"))
        river.clock.advance(SOON)
    assert due(river, 2) == ["WH-3", "WH-1"]
    assert due(river, 2) == ["WH-2"]


@pytest.mark.parametrize("state", ["handled", "ignored", "parked"])
def test_finished_event_is_never_due(river: River, state: inbox.State) -> None:
    river.store(FIRST)
    with river.database.transaction() as session:
        inbox.mark_events(session, ["WH-1"], state, river.now, "because")
    river.clock.advance(timedelta(days=365))
    assert due(river) == []
    row = river.event("WH-1")
    assert (row.state, row.reason, row.due_at) == (state, "because", None)
    with river.database.transaction() as session:
        assert inbox.lock_received(session, ["WH-1"]) == []


def test_two_recoveries_share_the_due_events(stream: River) -> None:
    stream.store(*[delivery(happened(f"WH-{number}"), source="import") for number in range(10)])
    with stream.database.transaction() as one, stream.database.transaction() as two:
        first_ids, second_ids = inbox.lease_due(one, stream.now, 5), inbox.lease_due(two, stream.now, 100)
    assert len(first_ids) == len(second_ids) == 5
    assert not set(first_ids) & set(second_ids)


def test_event_locked_by_another_worker_is_skipped(stream: River) -> None:
    stream.store(FIRST, delivery(happened("WH-2"), "T-2"))
    with stream.database.transaction() as one, stream.database.transaction() as two:
        assert [row.id for row in inbox.lock_received(one, ["WH-2"])] == ["WH-2"]
        assert [row.id for row in inbox.lock_received(two, ["WH-2", "WH-1"])] == ["WH-1"]


def test_postponed_event_is_due_on_time_and_counts_only_failures(river: River) -> None:
    river.store(delivery(happened("WH-1"), source="import"))
    for failed in (True, False, True):
        with river.database.transaction() as session:
            inbox.postpone(session, "WH-1", river.now + timedelta(hours=1), "later", failed=failed)
    assert river.event("WH-1").attempts == 2
    assert due(river) == []
    river.clock.advance(timedelta(hours=1))
    assert due(river) == ["WH-1"]


def test_handled_event_is_not_postponed(river: River) -> None:
    river.store(FIRST)
    with river.database.transaction() as session:
        inbox.mark_events(session, ["WH-1"], "handled", river.now)
        inbox.postpone(session, "WH-1", river.now, "later", failed=True)
    assert river.states() == {"WH-1": "handled"}
    assert river.event("WH-1").attempts == 0


def test_answer_releases_only_events_that_wait_for_it(river: River) -> None:
    river.store(*[delivery(happened(f"WH-{number}")) for number in range(4)])
    tomorrow = river.now + timedelta(days=1)
    with river.database.transaction() as session:
        for name, reason in (("WH-0", "waits for A"), ("WH-1", "waits for B"), ("WH-2", "waits for A")):
            inbox.postpone(session, name, tomorrow, reason, failed=False)
        inbox.mark_events(session, ["WH-2"], "parked", river.now, "waits for A")
        assert inbox.release_waiting(session, "waits for A", river.now) == 1
    assert due(river) == ["WH-0"]


def test_operator_can_retry_parked_and_ignored_events(river: River) -> None:
    river.store(*[delivery(happened(f"WH-{number}")) for number in range(4)])
    with river.database.transaction() as session:
        inbox.postpone(session, "WH-0", river.now, "failed", failed=True)
        inbox.mark_events(session, ["WH-0"], "parked", river.now, "failed")
        inbox.mark_events(session, ["WH-1"], "ignored", river.now, "no handler")
        inbox.mark_events(session, ["WH-2"], "handled", river.now)
    with river.database.transaction() as session:
        assert sorted(inbox.retry(session, [f"WH-{number}" for number in range(5)], river.now)) == ["WH-0", "WH-1"]
    row = river.event("WH-0")
    assert (row.state, row.reason, row.attempts, row.done_at) == ("received", None, 0, None)
    assert sorted(due(river)) == ["WH-0", "WH-1"]
    assert river.event("WH-2").state == "handled"


def test_oldest_unhandled_event_is_found(river: River) -> None:
    def oldest() -> object:
        with river.database.reading() as session:
            return inbox.oldest_unhandled(session)

    assert oldest() is None
    start = river.now
    river.store(FIRST)
    river.clock.advance(SOON)
    river.store(delivery(happened("WH-2"), "T-2"))
    assert oldest() == start
    with river.database.transaction() as session:
        inbox.mark_events(session, ["WH-1"], "handled", river.now)
    assert oldest() == start + SOON
    with river.database.transaction() as session:
        inbox.mark_events(session, ["WH-2"], "parked", river.now, "because")
    assert oldest() is None
