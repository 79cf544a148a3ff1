"""Which received events are due and when, and who may take them."""

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


def test_a_webhooks_id_is_left_to_its_publisher_for_a_while(river: River) -> None:
    river.store(FIRST)
    assert due(river) == []
    river.clock.advance(PUBLISH_GRACE)
    assert due(river) == ["WH-1"]
    assert due(river) == [], "the one who took it has a while, too"
    river.clock.advance(PUBLISH_GRACE)
    assert due(river) == ["WH-1"]


def test_what_waited_longest_is_due_first_and_no_more_than_asked_for(river: River) -> None:
    for number in (3, 1, 2):
        river.store(delivery(happened(f"WH-{number}"), source="import"))
        river.clock.advance(SOON)
    assert due(river, 2) == ["WH-3", "WH-1"]
    assert due(river, 2) == ["WH-2"]


@pytest.mark.parametrize("state", ["handled", "ignored", "parked"])
def test_what_is_done_is_never_due(river: River, state: inbox.State) -> None:
    river.store(FIRST)
    with river.database.transaction() as session:
        inbox.mark_events(session, ["WH-1"], state, river.now, "because")
    river.clock.advance(timedelta(days=365))
    assert due(river) == []
    row = river.event("WH-1")
    assert (row.state, row.reason, row.due_at) == (state, "because", None)
    with river.database.transaction() as session:
        assert inbox.lock_received(session, ["WH-1"]) == []


def test_two_sweeps_at_once_share_what_is_due(stream: River) -> None:
    stream.store(*[delivery(happened(f"WH-{number}"), source="import") for number in range(10)])
    with stream.database.transaction() as one, stream.database.transaction() as two:
        mine, theirs = inbox.lease_due(one, stream.now, 5), inbox.lease_due(two, stream.now, 100)
    assert len(mine) == len(theirs) == 5
    assert not set(mine) & set(theirs)


def test_what_another_worker_holds_is_left_to_it(stream: River) -> None:
    stream.store(FIRST, delivery(happened("WH-2"), "T-2"))
    with stream.database.transaction() as one, stream.database.transaction() as two:
        assert [row.id for row in inbox.lock_received(one, ["WH-2"])] == ["WH-2"]
        assert [row.id for row in inbox.lock_received(two, ["WH-2", "WH-1"])] == ["WH-1"]


def test_a_postponed_event_comes_back_at_its_time_and_counts_only_failures(river: River) -> None:
    river.store(delivery(happened("WH-1"), source="import"))
    for failed in (True, False, True):
        with river.database.transaction() as session:
            inbox.postpone(session, "WH-1", river.now + timedelta(hours=1), "later", failed=failed)
    assert river.event("WH-1").attempts == 2
    assert due(river) == []
    river.clock.advance(timedelta(hours=1))
    assert due(river) == ["WH-1"]


def test_what_was_done_meanwhile_is_not_postponed(river: River) -> None:
    river.store(FIRST)
    with river.database.transaction() as session:
        inbox.mark_events(session, ["WH-1"], "handled", river.now)
        inbox.postpone(session, "WH-1", river.now, "later", failed=True)
    assert river.states() == {"WH-1": "handled"}
    assert river.event("WH-1").attempts == 0


def test_an_answer_wakes_those_who_waited_for_it_and_nobody_else(river: River) -> None:
    river.store(*[delivery(happened(f"WH-{number}")) for number in range(4)])
    tomorrow = river.now + timedelta(days=1)
    with river.database.transaction() as session:
        for name, reason in (("WH-0", "waits for A"), ("WH-1", "waits for B"), ("WH-2", "waits for A")):
            inbox.postpone(session, name, tomorrow, reason, failed=False)
        inbox.mark_events(session, ["WH-2"], "parked", river.now, "waits for A")
        assert inbox.release_waiting(session, "waits for A", river.now) == 1
    assert due(river) == ["WH-0"]


def test_a_person_may_have_parked_and_ignored_events_tried_again(river: River) -> None:
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


def test_the_oldest_unhandled_event_is_known(river: River) -> None:
    def oldest() -> object:
        with river.database.reading() as session:
            return inbox.oldest_unhandled(session)

    assert oldest() is None
    began = river.now
    river.store(FIRST)
    river.clock.advance(SOON)
    river.store(delivery(happened("WH-2"), "T-2"))
    assert oldest() == began
    with river.database.transaction() as session:
        inbox.mark_events(session, ["WH-1"], "handled", river.now)
    assert oldest() == began + SOON
    with river.database.transaction() as session:
        inbox.mark_events(session, ["WH-2"], "parked", river.now, "because")
    assert oldest() is None
