"""The operator gets mails about parked events, at most one an hour."""

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
from tests.support.pipeline_under_test import PipelineUnderTest, delivery, happened

DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)


def park(pipeline: PipelineUnderTest, *names: str) -> None:
    pipeline.store(*[delivery(happened(name), f"T-{name}") for name in names])
    with pipeline.database.transaction() as session:
        inbox.mark_events(session, names, "parked", pipeline.now, f"no rule for {names[0]}")


def alert_facts(pipeline: PipelineUnderTest) -> list[dict[str, Any]]:
    """Return the facts of the mails to the operator, oldest first."""
    rows = sorted((row for row in pipeline.rows(Mail) if row.key_id == OPERATOR), key=lambda row: row.created_at)
    with pipeline.database.transaction() as session:
        key = pipeline.keyring(session).system_key(OPERATOR)
        return [key.decrypt_json("mail.facts", row.facts) for row in rows]


def test_operator_is_alerted_at_most_once_an_hour(pipeline: PipelineUnderTest) -> None:
    jobs = scheduler(pipeline, operator="operator@example.com")
    assert jobs.tell_operator() == 0
    park(pipeline, "WH-1")
    assert jobs.tell_operator() == 1
    assert jobs.tell_operator() == 0
    pipeline.clock.advance(MINUTE)
    park(pipeline, "WH-2", "WH-3")
    assert jobs.tell_operator() == 0
    pipeline.clock.advance(HOUR - 2 * MINUTE)
    assert jobs.tell_operator() == 0
    pipeline.clock.advance(MINUTE)
    park(pipeline, "WH-4")
    assert jobs.tell_operator() == 3
    pipeline.clock.advance(DAY)
    assert jobs.tell_operator() == 0, "the second mail counted all of them"
    first, second = alert_facts(pipeline)
    assert first == {"count": 1, "events": [{"id": "WH-1", "type": "TEST.HAPPENED", "reason": "no rule for WH-1"}]}
    assert second["count"] == 3
    assert {event["id"] for event in second["events"]} == {"WH-2", "WH-3", "WH-4"}


def test_event_committed_after_its_time_is_still_reported(pipeline: PipelineUnderTest) -> None:
    """`done_at` may be earlier than the commit: it is the start of the transaction, on another machine's clock."""
    jobs = scheduler(pipeline, operator="operator@example.com")
    park(pipeline, "WH-1")
    jobs.tell_operator()
    park(pipeline, "WH-2")
    [late] = [row for row in pipeline.rows(Event) if row.id == "WH-2"]
    pipeline.set(late, done_at=pipeline.now - timedelta(seconds=1))
    pipeline.clock.advance(HOUR)
    assert jobs.tell_operator() == 1
    assert [event["id"] for event in alert_facts(pipeline)[1]["events"]] == ["WH-2"]
    pipeline.clock.advance(HOUR)
    assert jobs.tell_operator() == 0


def test_event_parked_on_arrival_is_reported(pipeline: PipelineUnderTest) -> None:
    jobs = scheduler(pipeline, operator="operator@example.com")
    park(pipeline, "WH-1")
    jobs.tell_operator()
    pipeline.clock.advance(HOUR)
    [unreadable] = pipeline.store(delivery(b"<html>no event</html>"))
    assert pipeline.event(unreadable.event_id).done_at == pipeline.now
    assert jobs.tell_operator() == 1
    assert [event["id"] for event in alert_facts(pipeline)[1]["events"]] == [unreadable.event_id]


def test_no_alert_is_queued_without_an_operator(pipeline: PipelineUnderTest) -> None:
    park(pipeline, "WH-1")
    assert scheduler(pipeline).tell_operator() == 0
    assert pipeline.count(Mail) == 0


def test_alert_lists_the_newest_events_and_counts_all(pipeline: PipelineUnderTest) -> None:
    for number in range(30):
        park(pipeline, f"WH-{number:02}")
        pipeline.clock.advance(MINUTE)
    scheduler(pipeline, operator="operator@example.com").tell_operator()
    [facts] = alert_facts(pipeline)
    assert facts["count"] == 30
    assert [event["id"] for event in facts["events"]] == [f"WH-{number:02}" for number in range(29, 9, -1)]
    vendor = Branding("SMT", "https://smt.example.com", "", "#1d4e89", "SMT-CRM", "help@example.com")
    rendered = Templates(default_folder(), vendor, "en_US").render("event_parked", facts | {"customer_name": ""})
    assert "WH-29" in rendered.text
    assert "30" in rendered.subject + rendered.text


def test_two_schedulers_queue_one_alert(pipeline: PipelineUnderTest) -> None:
    park(pipeline, "WH-1")
    barrier = threading.Barrier(2, timeout=30)

    def alert(_: int) -> None:
        jobs = scheduler(pipeline, operator="operator@example.com")
        barrier.wait()
        jobs.tell_operator()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(alert, range(2)))
    assert len(alert_facts(pipeline)) == 1
