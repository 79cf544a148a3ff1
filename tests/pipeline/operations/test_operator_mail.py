"""The operator's mail about problems: at most one an hour, no repetition without news, no personal data."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

from pipeline.db.models import Mail
from pipeline.operations.limits import LIMITS
from pipeline.operations.operator_mail import KIND, queue_problem_mail
from pipeline.operations.problem_file import Problem
from pipeline.outbox.store import OPERATOR
from pipeline.rendering.branding import Branding
from pipeline.rendering.templates import Templates, default_folder
from tests.support.pipeline_under_test import PipelineUnderTest

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
RELAY = Problem("dependency relay", "relay does not answer", 1, stalled=True, command="smt-billing doctor")
PARKED = Problem("events_parked", "parked events: 1", 1, stalled=False, command="smt-billing parked list")
MORE_PARKED = Problem("events_parked", "parked events: 2", 2, stalled=False, command="smt-billing parked list")


def alert(pipeline: PipelineUnderTest, *problems: Problem) -> int:
    return queue_problem_mail(pipeline.database, pipeline.master, pipeline.clock, problems)


def deliver(pipeline: PipelineUnderTest) -> None:
    for row in pipeline.rows(Mail):
        pipeline.set(row, state="sent")


def reported(pipeline: PipelineUnderTest) -> list[Sequence[Any]]:
    """Return the names of the problems in each mail, oldest first."""
    rows = sorted((row for row in pipeline.rows(Mail) if row.kind == KIND), key=lambda row: row.created_at)
    with pipeline.database.transaction() as session:
        key = pipeline.keyring(session).system_key(OPERATOR)
        facts = [key.decrypt_json("mail.facts", row.facts) or {} for row in rows]
    return [[each["name"] for each in fact["problems"]] for fact in facts]


def test_no_problem_is_no_mail(sqlite_pipeline: PipelineUnderTest) -> None:
    assert alert(sqlite_pipeline) == 0


def test_operator_gets_at_most_one_mail_an_hour(pipeline: PipelineUnderTest) -> None:
    assert alert(pipeline, PARKED) == 1
    deliver(pipeline)
    pipeline.clock.advance(HOUR - timedelta(seconds=1))
    assert alert(pipeline, PARKED, RELAY) == 0
    pipeline.clock.advance(timedelta(seconds=1))
    assert alert(pipeline, PARKED, RELAY) == 1
    assert reported(pipeline) == [["events_parked"], ["events_parked", "dependency relay"]]


def test_mail_names_the_command_doctor_once(sqlite_pipeline: PipelineUnderTest) -> None:
    dead = Problem("dead_letters", "unreadable messages: 1", 1, stalled=False, command=LIMITS["dead_letters"].command)
    alert(sqlite_pipeline, RELAY, PARKED, dead)
    [row] = sqlite_pipeline.rows(Mail)
    with sqlite_pipeline.database.transaction() as session:
        facts = sqlite_pipeline.keyring(session).system_key(OPERATOR).decrypt_json("mail.facts", row.facts)
    vendor = Branding("V", "https://e.com", "x", "#1d4e89", "P", "a@e.com")
    rendered = Templates(default_folder(), vendor, "en_US").render(KIND, facts)
    for text in (rendered.text, rendered.html):
        assert (text.count("smt-billing doctor"), text.count("smt-billing parked list")) == (1, 1)


def test_known_problem_is_reported_again_only_if_it_grows(sqlite_pipeline: PipelineUnderTest) -> None:
    alert(sqlite_pipeline, PARKED)
    deliver(sqlite_pipeline)
    sqlite_pipeline.clock.advance(2 * DAY)
    assert alert(sqlite_pipeline, PARKED) == 0
    assert alert(sqlite_pipeline, MORE_PARKED) == 1


def test_stalled_pipeline_is_reported_again_each_day(sqlite_pipeline: PipelineUnderTest) -> None:
    alert(sqlite_pipeline, RELAY)
    deliver(sqlite_pipeline)
    sqlite_pipeline.clock.advance(DAY - HOUR)
    assert alert(sqlite_pipeline, RELAY) == 0
    sqlite_pipeline.clock.advance(HOUR)
    assert alert(sqlite_pipeline, RELAY) == 1


def test_mail_that_is_not_sent_yet_is_enough(sqlite_pipeline: PipelineUnderTest) -> None:
    """During an outage of the relay the mails would pile up, and all of them arrive at its end."""
    alert(sqlite_pipeline, RELAY)
    sqlite_pipeline.clock.advance(2 * DAY)
    assert alert(sqlite_pipeline, RELAY, PARKED) == 0
    deliver(sqlite_pipeline)
    assert alert(sqlite_pipeline, RELAY, PARKED) == 1


def test_mail_to_the_operator_that_failed_does_not_silence_the_next(sqlite_pipeline: PipelineUnderTest) -> None:
    alert(sqlite_pipeline, PARKED)
    [row] = sqlite_pipeline.rows(Mail)
    sqlite_pipeline.set(row, state="failed")
    sqlite_pipeline.clock.advance(HOUR)
    assert alert(sqlite_pipeline, PARKED) == 1


def test_two_schedulers_queue_one_mail(pipeline: PipelineUnderTest) -> None:
    barrier = threading.Barrier(2, timeout=30)

    def run(_: int) -> int:
        barrier.wait()
        return alert(pipeline, RELAY)

    with ThreadPoolExecutor(2) as pool:
        assert sum(pool.map(run, range(2))) == 1
