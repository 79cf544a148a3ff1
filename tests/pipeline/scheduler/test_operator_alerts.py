"""Mails to the operator about parked events."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

from pipeline.db.models import Event, Mail
from pipeline.inbox import store as inbox
from pipeline.outbox.store import OPERATOR
from pipeline.rendering.branding import Branding
from pipeline.rendering.templates import Templates, default_folder
from tests.support.outbox_fixtures import scheduler
from tests.support.pipeline_under_test import River, delivery, happened

DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)


def park(river: River, *names: str) -> None:
    river.store(*[delivery(happened(name), f"T-{name}") for name in names])
    with river.database.transaction() as session:
        inbox.mark_events(session, names, "parked", river.now, f"nobody knows {names[0]}")


def words(river: River) -> list[dict[str, Any]]:
    """What the mails to the operator say, oldest first."""
    rows = sorted((row for row in river.rows(Mail) if row.key_id == OPERATOR), key=lambda row: row.created_at)
    with river.database.transaction() as session:
        seal = river.keyring(session).system_key(OPERATOR)
        return [seal.decrypt_json("mail.facts", row.facts) for row in rows]


def test_the_operator_is_told_of_parked_events_at_most_once_an_hour(river: River) -> None:
    jobs = scheduler(river, operator="operator@example.com")
    assert jobs.tell_operator() == 0
    park(river, "WH-1")
    assert jobs.tell_operator() == 1
    assert jobs.tell_operator() == 0
    river.clock.advance(MINUTE)
    park(river, "WH-2", "WH-3")
    assert jobs.tell_operator() == 0
    river.clock.advance(HOUR - 2 * MINUTE)
    assert jobs.tell_operator() == 0
    river.clock.advance(MINUTE)
    park(river, "WH-4")
    assert jobs.tell_operator() == 3
    river.clock.advance(DAY)
    assert jobs.tell_operator() == 0, "they were told of that"
    first, second = words(river)
    assert first == {"count": 1, "events": [{"id": "WH-1", "type": "TEST.HAPPENED", "reason": "nobody knows WH-1"}]}
    assert second["count"] == 3
    assert {event["id"] for event in second["events"]} == {"WH-2", "WH-3", "WH-4"}


def test_an_event_whose_word_is_committed_after_the_look_is_told_of_all_the_same(river: River) -> None:
    """Its time is that of its transaction's beginning, or of another machine's clock."""
    jobs = scheduler(river, operator="operator@example.com")
    park(river, "WH-1")
    jobs.tell_operator()
    park(river, "WH-2")
    [late] = [row for row in river.rows(Event) if row.id == "WH-2"]
    river.set(late, done_at=river.now - timedelta(seconds=1))
    river.clock.advance(HOUR)
    assert jobs.tell_operator() == 1
    assert [event["id"] for event in words(river)[1]["events"]] == ["WH-2"]
    river.clock.advance(HOUR)
    assert jobs.tell_operator() == 0


def test_an_event_that_is_parked_when_it_is_stored_is_told_too(river: River) -> None:
    jobs = scheduler(river, operator="operator@example.com")
    park(river, "WH-1")
    jobs.tell_operator()
    river.clock.advance(HOUR)
    [unreadable] = river.store(delivery(b"<html>no event</html>"))
    assert river.event(unreadable.event_id).done_at == river.now
    assert jobs.tell_operator() == 1
    assert [event["id"] for event in words(river)[1]["events"]] == [unreadable.event_id]


def test_where_no_operator_is_named_nobody_is_told(river: River) -> None:
    park(river, "WH-1")
    assert scheduler(river).tell_operator() == 0
    assert river.count(Mail) == 0


def test_of_many_parked_events_the_newest_are_named_and_all_counted(river: River) -> None:
    for number in range(30):
        park(river, f"WH-{number:02}")
        river.clock.advance(MINUTE)
    scheduler(river, operator="operator@example.com").tell_operator()
    [word] = words(river)
    assert word["count"] == 30
    assert [event["id"] for event in word["events"]] == [f"WH-{number:02}" for number in range(29, 9, -1)]
    vendor = Branding("SMT", "https://smt.example.com", "", "#1d4e89", "SMT-CRM", "help@example.com")
    rendered = Templates(default_folder(), vendor, "en_US").render("event_parked", word | {"customer_name": ""})
    assert "WH-29" in rendered.text
    assert "30" in rendered.subject + rendered.text


def test_two_schedulers_tell_the_operator_once(river: River) -> None:
    park(river, "WH-1")
    met = threading.Barrier(2, timeout=30)

    def tell(_: int) -> None:
        jobs = scheduler(river, operator="operator@example.com")
        met.wait()
        jobs.tell_operator()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(tell, range(2)))
    assert len(words(river)) == 1
