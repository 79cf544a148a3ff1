"""Is work being done?"""

from datetime import timedelta

from pipeline.db.models import Mail
from pipeline.inbox import store as inbox
from pipeline.operations import health
from pipeline.operations.health import Health
from pipeline.outbox import store as outbox
from pipeline.outbox.store import NewMail
from tests.support.pipeline_under_test import River, delivery, happened


def look(river: River) -> Health:
    return health.check_health(river.database, river.now, 300)


def test_nothing_waits_in_an_empty_river(river: River) -> None:
    assert look(river) == Health(0, 0, 300)
    assert look(river).is_well


def test_the_oldest_of_each_counts(river: River) -> None:
    river.store(delivery(happened("WH-1"), "T-1"))
    river.clock.advance(timedelta(seconds=100))
    river.store(delivery(happened("WH-2"), "T-2"))
    river.owe(NewMail("receipt", "receipt:1", "I-ADA", {}))
    river.clock.advance(timedelta(seconds=200))
    assert look(river) == Health(300, 200, 300)
    assert look(river).is_well
    river.clock.advance(timedelta(seconds=1))
    assert not look(river).is_well


def test_what_is_done_or_waits_for_a_person_does_not_count(river: River) -> None:
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
    assert look(river) == Health(0, 0, 300)


def test_a_mail_that_waits_for_its_next_try_does_not_count_until_then(river: River) -> None:
    river.owe(NewMail("receipt", "receipt:1", "I-ADA", {}))
    [row] = river.rows(Mail)
    river.set(row, due_at=river.now + timedelta(hours=4))
    river.clock.advance(timedelta(hours=1))
    assert look(river).is_well
    river.clock.advance(timedelta(hours=3))
    assert not look(river).is_well


def test_a_clock_that_was_set_back_makes_no_age_negative(river: River) -> None:
    river.store(delivery(happened(), "T-1"))
    river.clock.advance(-timedelta(days=1))
    assert look(river).oldest_event_seconds == 0
