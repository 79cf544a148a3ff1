"""Frequent queries use indexes, so that their cost does not grow with the tables."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from sqlalchemy.event import listen, remove

from pipeline.billing.reminders import ReminderPolicy
from pipeline.db.models import Base
from pipeline.inbox import store as inbox
from pipeline.outbox import store as outbox
from pipeline.scheduler.renewal_reminders import RenewalReminders
from pipeline.scheduler.stale_claims import release_stale_claims
from pipeline.worker.recovery import QUIET_SECONDS, InboxRecovery
from tests.support.event_feeder import EventFeeder
from tests.support.pipeline_under_test import PipelineUnderTest
from tests.support.sample_events import sample

EVENT_TYPES = (
    "READ.PLAN", "BILLING.SUBSCRIPTION.CREATED", "BILLING.SUBSCRIPTION.ACTIVATED", "PAYMENT.SALE.COMPLETED",
    "PAYMENT.SALE.REFUNDED", "BILLING.SUBSCRIPTION.UPDATED", "BILLING.SUBSCRIPTION.CANCELLED",
)  # fmt: skip
TABLES = [table.name for table in Base.metadata.sorted_tables]


def test_storing_and_handling_events_scans_no_table(pipeline: PipelineUnderTest) -> None:
    with _plans(pipeline) as plans:
        feeder = EventFeeder(pipeline)
        for kind in EVENT_TYPES:
            feeder.hear(sample(kind))
    assert len(plans) > 15
    assert _scans(plans) == []


def test_claiming_and_settling_mails_scans_no_table(pipeline: PipelineUnderTest) -> None:
    EventFeeder(pipeline).hear(sample("BILLING.SUBSCRIPTION.ACTIVATED"))
    with _plans(pipeline) as plans, pipeline.database.transaction() as session:
        (mail,) = outbox.claim(session, "mailer-1", pipeline.clock.now(), 10)
        assert outbox.record_results(session, [(mail.id, "mailer-1", {"state": "sent"})])
        outbox.release_claims(session, "mailer-1")
    assert len(plans) >= 4
    assert _scans(plans) == []


def test_recovery_and_reminders_scan_no_table(pipeline: PipelineUnderTest) -> None:
    EventFeeder(pipeline).hear(sample("READ.PLAN"), sample("BILLING.SUBSCRIPTION.ACTIVATED"))
    reminders = RenewalReminders(pipeline.database, pipeline.master, pipeline.clock, ReminderPolicy(), may_read=True)
    recovery = InboxRecovery(pipeline.worker({}), pipeline.database, pipeline.clock, lambda: QUIET_SECONDS)
    with _plans(pipeline) as plans:
        recovery.once()
        release_stale_claims(pipeline.database, pipeline.clock)
        reminders.queue_due()
        with pipeline.database.transaction() as session:
            inbox.lease_due(session, pipeline.clock.now() + timedelta(days=1))
    assert len(plans) >= 3
    assert _scans(plans) == []


def test_query_without_index_is_detected(pipeline: PipelineUnderTest) -> None:
    with _plans(pipeline) as plans, pipeline.database.transaction() as session:
        session.connection().exec_driver_sql("SELECT id FROM subscription WHERE status = 'ACTIVE'")
    assert len(_scans(plans)) == 1


@contextmanager
def _plans(pipeline: PipelineUnderTest) -> Iterator[dict[str, str]]:
    """Collect statement -> query plan. On PostgreSQL, sequential scans are disabled where an index can be used."""
    engine, sqlite = pipeline.database.engine, pipeline.database.is_sqlite
    found: dict[str, str] = {}

    def explain(_connection: Any, cursor: Any, statement: str, values: Any, *_: object) -> None:
        if statement.split(maxsplit=1)[0] not in ("SELECT", "INSERT", "UPDATE", "DELETE"):
            return
        explainer = cursor.connection.cursor()
        if not sqlite:
            explainer.execute("SET LOCAL enable_seqscan = off")
        explainer.execute(
            f"EXPLAIN {'QUERY PLAN ' if sqlite else ''}{statement}", values[0] if isinstance(values, list) else values
        )
        found[statement] = "\n".join(str(line[-1]) for line in explainer.fetchall())

    listen(engine, "before_cursor_execute", explain)
    try:
        yield found
    finally:
        remove(engine, "before_cursor_execute", explain)


def _scans(plans: dict[str, str]) -> list[str]:
    """Return the statements that scan a whole table, with their plans."""
    signs = [sign.format(table) for table in TABLES for sign in ("Seq Scan on {} ", 'Seq Scan on "{}" ', "SCAN {}\n")]
    return [f"{statement}\n{plan}" for statement, plan in plans.items() if any(sign in f"{plan}\n" for sign in signs)]
