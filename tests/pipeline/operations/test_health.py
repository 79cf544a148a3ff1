"""Health: the ages of the oldest waiting event and mail."""

from datetime import timedelta

from pipeline.db.models import Mail
from pipeline.inbox import store as inbox
from pipeline.operations import health
from pipeline.operations.health import Health
from pipeline.outbox import store as outbox
from pipeline.outbox.store import NewMail
from tests.support.pipeline_under_test import PipelineUnderTest, delivery, happened


def check(pipeline: PipelineUnderTest) -> Health:
    return health.check_health(pipeline.database, pipeline.now, 300)


def test_empty_database_is_healthy(pipeline: PipelineUnderTest) -> None:
    assert check(pipeline) == Health(0, 0, 300)
    assert check(pipeline).is_well


def test_oldest_event_and_mail_count(pipeline: PipelineUnderTest) -> None:
    pipeline.store(delivery(happened("WH-1"), "T-1"))
    pipeline.clock.advance(timedelta(seconds=100))
    pipeline.store(delivery(happened("WH-2"), "T-2"))
    pipeline.owe(NewMail("receipt", "receipt:1", "I-ADA", {}))
    pipeline.clock.advance(timedelta(seconds=200))
    assert check(pipeline) == Health(300, 200, 300)
    assert check(pipeline).is_well
    pipeline.clock.advance(timedelta(seconds=1))
    assert not check(pipeline).is_well


def test_finished_and_parked_items_do_not_count(pipeline: PipelineUnderTest) -> None:
    pipeline.store(*[delivery(happened(f"WH-{number}"), f"T-{number}") for number in range(3)])
    pipeline.owe(
        NewMail("receipt", "receipt:1", "I-ADA", {}, has_address=False),
        NewMail("receipt", "receipt:2", "I-ADA", {}, withheld="overtaken"),
        NewMail("receipt", "receipt:3", "I-ADA", {}),
    )
    with pipeline.database.transaction() as session:
        inbox.mark_events(session, ["WH-0"], "handled", pipeline.now)
        inbox.mark_events(session, ["WH-1"], "parked", pipeline.now, "because")
        inbox.mark_events(session, ["WH-2"], "ignored", pipeline.now, "because")
        outbox.claim(session, "one", pipeline.now, 10)
        outbox.mark_in_doubt(session, "one", "it died")
    pipeline.clock.advance(timedelta(days=365))
    assert check(pipeline) == Health(0, 0, 300)


def test_mail_counts_only_when_its_retry_is_due(pipeline: PipelineUnderTest) -> None:
    pipeline.owe(NewMail("receipt", "receipt:1", "I-ADA", {}))
    [row] = pipeline.rows(Mail)
    pipeline.set(row, due_at=pipeline.now + timedelta(hours=4))
    pipeline.clock.advance(timedelta(hours=1))
    assert check(pipeline).is_well
    pipeline.clock.advance(timedelta(hours=3))
    assert not check(pipeline).is_well


def test_age_is_never_negative(pipeline: PipelineUnderTest) -> None:
    pipeline.store(delivery(happened(), "T-1"))
    pipeline.clock.advance(-timedelta(days=1))
    assert check(pipeline).oldest_event_seconds == 0
