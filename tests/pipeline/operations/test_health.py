"""Health: the ages of the oldest waiting event and mail."""

from datetime import timedelta

from pipeline.db.models import Mail
from pipeline.inbox import store as inbox
from pipeline.operations import health
from pipeline.operations.health import Health
from pipeline.outbox import store as outbox
from pipeline.outbox.store import NewMail
from tests.support.pipeline_under_test import River, delivery, happened


def check(river: River) -> Health:
    return health.check_health(river.database, river.now, 300)


def test_empty_database_is_healthy(river: River) -> None:
    assert check(river) == Health(0, 0, 300)
    assert check(river).is_well


def test_oldest_event_and_mail_count(river: River) -> None:
    river.store(delivery(happened("WH-1"), "T-1"))
    river.clock.advance(timedelta(seconds=100))
    river.store(delivery(happened("WH-2"), "T-2"))
    river.owe(NewMail("receipt", "receipt:1", "I-ADA", {}))
    river.clock.advance(timedelta(seconds=200))
    assert check(river) == Health(300, 200, 300)
    assert check(river).is_well
    river.clock.advance(timedelta(seconds=1))
    assert not check(river).is_well


def test_finished_and_parked_items_do_not_count(river: River) -> None:
    river.store(*[delivery(happened(f"WH-{number}"), f"T-{number}") for number in range(3)])
    river.owe(
        NewMail("receipt", "receipt:1", "I-ADA", {}, has_address=False),
        NewMail("receipt", "receipt:2", "I-ADA", {}, withheld="overtaken"),
        NewMail("receipt", "receipt:3", "I-ADA", {}),
    )
    with river.database.transaction() as session:
        inbox.mark_events(session, ["WH-0"], "handled", river.now)
        inbox.mark_events(session, ["WH-1"], "parked", river.now, "because")
        inbox.mark_events(session, ["WH-2"], "ignored", river.now, "because")
        outbox.claim(session, "one", river.now, 10)
        outbox.mark_in_doubt(session, "one", "it died")
    river.clock.advance(timedelta(days=365))
    assert check(river) == Health(0, 0, 300)


def test_mail_counts_only_when_its_retry_is_due(river: River) -> None:
    river.owe(NewMail("receipt", "receipt:1", "I-ADA", {}))
    [row] = river.rows(Mail)
    river.set(row, due_at=river.now + timedelta(hours=4))
    river.clock.advance(timedelta(hours=1))
    assert check(river).is_well
    river.clock.advance(timedelta(hours=3))
    assert not check(river).is_well


def test_age_is_never_negative(river: River) -> None:
    river.store(delivery(happened(), "T-1"))
    river.clock.advance(-timedelta(days=1))
    assert check(river).oldest_event_seconds == 0
