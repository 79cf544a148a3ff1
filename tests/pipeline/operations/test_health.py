"""Health: each kind of unfinished work counts from its creation, and each outage has its beginning."""

import ast
import inspect
from collections.abc import Callable
from datetime import timedelta

import pytest

from pipeline.clock import MovableClock
from pipeline.db.models import (
    Action,
    Dispute,
    Erasure,
    InboundMail,
    Mail,
    PaypalLookup,
    PrivacyRequest,
    ReconciliationException,
)
from pipeline.dependencies import DependencyRecorder
from pipeline.inbox import store as inbox
from pipeline.operations import heartbeat, unfinished_work
from pipeline.operations.health import Health, HealthCheck
from pipeline.operations.limits import LIMITS, WorkKind, limit_of
from pipeline.operations.unfinished_work import OUTSIDE, Unfinished
from pipeline.outbox import store as outbox
from pipeline.outbox.store import NewMail
from tests.support.pipeline_under_test import PipelineUnderTest, delivery, happened, made

YEAR = timedelta(days=365)


def check(pipeline: PipelineUnderTest, recorder: DependencyRecorder | None = None) -> Health:
    for role in ("worker", "scheduler"):
        heartbeat.write(pipeline.folder, role, pipeline.now)
    settings = made(data_dir=pipeline.folder)
    recorder = recorder or DependencyRecorder(pipeline.clock)
    return HealthCheck(settings, pipeline.database, pipeline.clock, recorder).take()


def unfinished(pipeline: PipelineUnderTest) -> dict[WorkKind, Unfinished]:
    work = check(pipeline).work
    assert work
    return {kind: found for kind, found in work.kinds.items() if found.count}


def mail(pipeline: PipelineUnderTest, **values: object) -> None:
    pipeline.owe(NewMail("receipt", "receipt:1", "I-ADA", {}))
    [row] = pipeline.rows(Mail)
    pipeline.set(row, **values)


def request(kind: str, **values: object) -> Callable[[PipelineUnderTest], None]:
    def add(pipeline: PipelineUnderTest) -> None:
        row = PrivacyRequest(
            id="R", key_id="K", kind=kind, state="received", source="page", received_at=pipeline.now,
            due_at=pipeline.now, last_alarm_day=0,
        )  # fmt: skip
        pipeline.set(row, **values)

    return add


def lookup(pipeline: PipelineUnderTest, *, refused: bool) -> None:
    due_at = None if refused else pipeline.now + YEAR
    pipeline.set(
        PaypalLookup(
            kind="sale", id="1", due_at=due_at, attempts=3, requested_at=pipeline.now, first_due_at=pipeline.now
        )
    )


def park(pipeline: PipelineUnderTest) -> None:
    pipeline.store(delivery(happened("WH-1"), "T-1"))
    with pipeline.database.transaction() as session:
        inbox.mark_events(session, ["WH-1"], "parked", pipeline.now, "because")


def postpone_event(pipeline: PipelineUnderTest) -> None:
    pipeline.store(delivery(happened("WH-1"), "T-1"))
    pipeline.set(pipeline.event("WH-1"), due_at=pipeline.now + 2 * YEAR)


def inbound(pipeline: PipelineUnderTest) -> None:
    request("other")(pipeline)
    pipeline.set(InboundMail(id="M", key_id="K", kind="support", request_id="R", received_at=pipeline.now))


def act(pipeline: PipelineUnderTest) -> None:
    pipeline.set(
        Action(
            id="A", event_id="E", kind="cancel", object_id="I-1", parameters={}, actor="root", state="requested",
            requested_at=pipeline.now, due_at=pipeline.now + 2 * YEAR,
        )
    )  # fmt: skip


def difference(pipeline: PipelineUnderTest) -> None:
    pipeline.set(ReconciliationException(kind="sale", id="1", reason="because", found_at=pipeline.now))


def erase(pipeline: PipelineUnderTest) -> None:
    pipeline.set(Erasure(id="E", customer_id="C", key_ids=[], at=pipeline.now, receipt={}, master_key_id="M"))


MAKE: dict[WorkKind, Callable[[PipelineUnderTest], None]] = {
    "events_unhandled": postpone_event,
    "events_parked": park,
    "mails_due": mail,
    "mails_postponed": lambda pipeline: mail(pipeline, due_at=pipeline.now + 2 * YEAR, attempts=3),
    "mails_without_address": lambda pipeline: mail(pipeline, due_at=None),
    "mails_sending": lambda pipeline: mail(pipeline, state="sending", claimed_by="mailer-1"),
    "mails_in_doubt": lambda pipeline: mail(pipeline, state="doubt", claimed_at=pipeline.now),
    "mails_failed": lambda pipeline: mail(pipeline, state="failed", due_at=None),
    "lookups_open": lambda pipeline: lookup(pipeline, refused=False),
    "lookups_refused": lambda pipeline: lookup(pipeline, refused=True),
    "differences_open": difference,
    "actions_unfinished": act,
    "disputes_open": lambda pipeline: pipeline.set(Dispute(id="D", known={}, opened_at=pipeline.now)),
    "inbound_unanswered": inbound,
    "requests_open": request("correct"),
    "exports_open": request("access"),
    "erasures_due": request("erase", state="running"),
    "erasures_incomplete": erase,
}


def test_every_kind_in_the_database_has_a_test() -> None:
    assert {*MAKE, "erasures_waiting", *OUTSIDE} == set(LIMITS)


@pytest.mark.parametrize("kind", MAKE)
def test_unfinished_item_counts_from_its_creation(kind: WorkKind, pipeline: PipelineUnderTest) -> None:
    """However long it is postponed, whatever it waits for, and in the state `well` until its limit."""
    created_at = pipeline.now
    MAKE[kind](pipeline)
    limit = limit_of(kind, 300)
    assert limit is not None
    pipeline.clock.move_to(created_at + timedelta(seconds=limit))
    assert unfinished(pipeline)[kind] == Unfinished(1, limit)
    assert kind not in {problem.name for problem in check(pipeline).problems}
    pipeline.clock.advance(timedelta(seconds=1))
    found = check(pipeline)
    assert kind in {problem.name for problem in found.problems}
    assert found.status == "behind"
    if LIMITS[kind].stalled:
        assert found.is_stalled
    pipeline.clock.move_to(created_at + YEAR)
    assert unfinished(pipeline)[kind].oldest_seconds == YEAR.total_seconds()


@pytest.mark.parametrize("kind", OUTSIDE)
def test_items_outside_the_database_count_too(kind: WorkKind, sqlite_pipeline: PipelineUnderTest) -> None:
    """The scheduler counts them, and publishes the counts with its heartbeat."""
    recorder = DependencyRecorder(sqlite_pipeline.clock)
    recorder.count(kind, 2)
    sqlite_pipeline.clock.advance(timedelta(hours=2))
    heartbeat.write(sqlite_pipeline.folder, "scheduler", sqlite_pipeline.now, recorder)
    found = HealthCheck(
        made(data_dir=sqlite_pipeline.folder),
        sqlite_pipeline.database,
        sqlite_pipeline.clock,
        DependencyRecorder(sqlite_pipeline.clock),
    ).take()
    assert found.work
    assert found.work.kinds[kind] == Unfinished(2, 7200.0)
    assert kind in {problem.name for problem in found.problems}


def test_empty_database_is_healthy(pipeline: PipelineUnderTest) -> None:
    found = check(pipeline)
    assert (found.is_well, found.is_stalled, found.problems, found.outages) == (True, False, [], ())
    assert (found.oldest_event_seconds, found.oldest_mail_seconds) == (0, 0)


def test_finished_items_do_not_count(pipeline: PipelineUnderTest) -> None:
    pipeline.store(*[delivery(happened(f"WH-{number}"), f"T-{number}") for number in range(2)])
    pipeline.owe(
        NewMail("receipt", "receipt:2", "I-ADA", {}, withheld="overtaken"), NewMail("receipt", "receipt:3", "I-ADA", {})
    )
    request("access", state="done", done_at=pipeline.now)(pipeline)
    with pipeline.database.transaction() as session:
        inbox.mark_events(session, ["WH-0"], "handled", pipeline.now)
        inbox.mark_events(session, ["WH-1"], "ignored", pipeline.now, "because")
        [claimed] = outbox.claim(session, "one", pipeline.now, 10)
    with pipeline.database.transaction() as session:
        outbox.record_results(session, [(claimed.id, "one", {"state": "sent"})])
    pipeline.clock.advance(YEAR)
    assert unfinished(pipeline) == {}


def test_oldest_mail_is_the_oldest_that_is_not_sent(pipeline: PipelineUnderTest) -> None:
    MAKE["mails_without_address"](pipeline)
    pipeline.clock.advance(timedelta(seconds=100))
    assert check(pipeline).oldest_mail_seconds == 100


def test_erasure_that_can_be_cancelled_is_counted_and_no_problem(pipeline: PipelineUnderTest) -> None:
    request("erase", state="waiting", waiting_ends_at=pipeline.now + timedelta(hours=72))(pipeline)
    pipeline.clock.advance(timedelta(hours=72) - timedelta(seconds=1))
    assert set(unfinished(pipeline)) == {"erasures_waiting"}
    assert check(pipeline).is_well
    pipeline.clock.advance(timedelta(days=1, seconds=2))
    assert set(unfinished(pipeline)) == {"erasures_due"}
    assert check(pipeline).problems


def test_age_is_never_negative(pipeline: PipelineUnderTest) -> None:
    pipeline.store(delivery(happened(), "T-1"))
    pipeline.clock.advance(-timedelta(days=1))
    assert check(pipeline).oldest_event_seconds == 0


def test_role_that_was_never_seen_is_away_since_the_check_began(sqlite_pipeline: PipelineUnderTest) -> None:
    clock = sqlite_pipeline.clock
    settings = made(data_dir=sqlite_pipeline.folder, smtp_url="smtp://127.0.0.1:25")
    health_check = HealthCheck(settings, sqlite_pipeline.database, clock, DependencyRecorder(clock))
    began_at = clock.now()
    assert health_check.take().is_well
    clock.advance(timedelta(seconds=31))
    found = health_check.take()
    assert {each.name: each.since for each in found.outages} == dict.fromkeys(
        ("mailer", "scheduler", "worker"), began_at
    )
    assert (found.status, found.is_stalled) == ("behind", True)


def test_start_of_the_whole_system_reports_no_role(sqlite_pipeline: PipelineUnderTest) -> None:
    """The machine was off for an hour. Whichever role starts first finds old heartbeats of all others."""
    clock, settings = sqlite_pipeline.clock, made(data_dir=sqlite_pipeline.folder)
    heartbeat.write(sqlite_pipeline.folder, "worker", clock.now())
    clock.advance(timedelta(hours=1))
    health_check = HealthCheck(settings, sqlite_pipeline.database, clock, DependencyRecorder(clock))
    assert health_check.publish().problems == []
    for _ in range(2):
        clock.advance(timedelta(seconds=30))
        heartbeat.write(sqlite_pipeline.folder, "scheduler", clock.now())
        health_check.publish()
    [problem] = health_check.take().problems
    assert (problem.name, "since 2026-03-01 12:00:00" in problem.text) == ("role worker", True)


def test_suspended_machine_reports_no_role(sqlite_pipeline: PipelineUnderTest) -> None:
    clock, settings = sqlite_pipeline.clock, made(data_dir=sqlite_pipeline.folder)
    health_check = HealthCheck(settings, sqlite_pipeline.database, clock, DependencyRecorder(clock))
    for role in ("worker", "scheduler"):
        heartbeat.write(sqlite_pipeline.folder, role, clock.now())
    clock.advance(timedelta(hours=1))
    assert health_check.publish().problems == []


def test_job_that_fails_each_time_is_a_problem(sqlite_pipeline: PipelineUnderTest) -> None:
    recorder = DependencyRecorder(sqlite_pipeline.clock)
    recorder.observe("job: run due erasures", answered=False)
    sqlite_pipeline.clock.advance(timedelta(minutes=16))
    [problem] = check(sqlite_pipeline, recorder).problems
    assert problem.text == 'the scheduled job "run due erasures" fails since 2026-03-01 12:00:00 UTC'


def test_ended_role_says_nothing_about_its_servers(sqlite_pipeline: PipelineUnderTest) -> None:
    """Nobody asks a server in the name of a role that has ended. The role itself is reported instead."""
    recorder = DependencyRecorder(MovableClock(sqlite_pipeline.now))
    recorder.observe("relay", answered=False)
    heartbeat.write(sqlite_pipeline.folder, "mailer", sqlite_pipeline.now, recorder)
    assert [each.name for each in check(sqlite_pipeline).outages] == ["relay"]
    sqlite_pipeline.clock.advance(timedelta(minutes=2))
    assert [(each.kind, each.name) for each in check(sqlite_pipeline).outages] == [("role", "mailer")]


def test_no_query_depends_on_when_an_item_is_due() -> None:
    """The column of the age is never `due_at` of an event or a mail: a postponed item would look young, or absent."""
    tree = ast.parse(inspect.getsource(unfinished_work))
    yields = [
        node.value for node in ast.walk(tree) if isinstance(node, ast.Yield) and isinstance(node.value, ast.Tuple)
    ]
    ages = {ast.unparse(each.elts[1]) for each in yields}
    assert len(yields) > 10
    assert {age for age in ages if age.startswith(("Event", "Mail"))} == {"Event.received_at", "Mail.created_at"}
