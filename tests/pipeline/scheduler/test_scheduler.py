"""What is due: each job at its pace, and word to the operator."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest
from structlog.testing import capture_logs

from pipeline.db.engine import StoreDown
from pipeline.db.models import Event, Mail
from pipeline.inbox import store as inbox
from pipeline.outbox.store import OPERATOR
from pipeline.rendering.templates import Templates, Vendor, default_folder
from tests.support.outbox_fixtures import scheduler
from tests.support.pipeline_under_test import River, delivery, happened

DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)


# When


def test_each_job_runs_at_its_own_pace(brook: River, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: Counter[str] = Counter()

    def count(name: str) -> int:
        ran[name] += 1
        return 1

    jobs = scheduler(brook)
    for job in jobs.jobs:
        object.__setattr__(job, "run", partial(count, job.name))
    for _ in range(121):
        jobs.run_due()
        brook.clock.advance(timedelta(seconds=1))
    assert ran == {
        "free claims of dead mailers": 61,
        "owe renewal reminders": 3,
        "tell the operator of parked events": 3,
    }


@pytest.mark.parametrize("error", [StoreDown("gone"), ValueError("ada@example.com")])
def test_a_job_that_fails_stops_no_other_and_is_due_again(brook: River, error: Exception) -> None:
    jobs, ran = scheduler(brook), list[str]()
    first, *others = jobs.jobs

    def note(name: str) -> int:
        ran.append(name)
        return 0

    def fail() -> int:
        ran.append(first.name)
        raise error

    object.__setattr__(first, "run", fail)
    for job in others:
        object.__setattr__(job, "run", partial(note, job.name))
    with capture_logs() as logs:
        jobs.run_due()
        brook.clock.advance(first.every)
        jobs.run_due()
    assert sorted(ran) == sorted([first.name, *[job.name for job in jobs.jobs]])
    assert [line["job"] for line in logs] == [first.name] * 2
    assert "ada@" not in str(logs)


def test_a_clock_that_was_ahead_and_is_right_again_silences_no_job(brook: River) -> None:
    jobs, ran = scheduler(brook), list[datetime]()

    def note() -> int:
        ran.append(brook.now)
        return 0

    object.__setattr__(jobs.jobs[0], "run", note)
    begin = brook.now
    for step in (DAY, -DAY, timedelta(0)):
        brook.clock.advance(step)
        jobs.run_due()
    assert ran == [begin + DAY, begin]


# Word to the operator


def park(river: River, *names: str) -> None:
    river.store(*[delivery(happened(name), f"T-{name}") for name in names])
    with river.database.transaction() as session:
        inbox.mark(session, names, "parked", river.now, f"nobody knows {names[0]}")


def words(river: River) -> list[dict[str, Any]]:
    """What the mails to the operator say, oldest first."""
    rows = sorted((row for row in river.rows(Mail) if row.key_id == OPERATOR), key=lambda row: row.created_at)
    with river.database.transaction() as session:
        seal = river.keyring(session).own(OPERATOR)
        return [seal.open_json("mail.facts", row.facts) for row in rows]


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
    vendor = Vendor("SMT", "https://smt.example.com", "", "#1d4e89", "SMT-CRM", "help@example.com")
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
