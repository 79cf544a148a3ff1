"""What counts as an answer of each server, and what the scheduler counts outside the database."""

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pipeline.app import dependency_checks
from pipeline.app.container import Container
from pipeline.clock import MovableClock
from pipeline.db.engine import DatabaseUnavailableError
from pipeline.dependencies import JOB, DependencyRecorder
from pipeline.mailer.smtp_relay import Relay
from pipeline.paypal.errors import PaypalNotFoundError, PaypalRejectedError, PaypalUnavailableError
from pipeline.scheduler.scheduler import Job, Scheduler
from pipeline.simulator.server.api import FakePaypalApi
from tests.support.misbehaving_relay import ADA, MAIL, SENDER, MisbehavingRelay, Serve
from tests.support.pipeline_under_test import PipelineUnderTest, make_parts


def failing(recorder: DependencyRecorder) -> set[str]:
    return {name for name, record in recorder.records.items() if record.failing_since}


@pytest.mark.parametrize(
    ("script", "answers"),
    [
        ({}, True),
        ({"MAIL": ["452 4.3.1 no space"]}, True),
        ({"RCPT": ["550 5.1.1 unknown"]}, True),
        ({"CONNECT": ["hang"]}, False),
        ({"MAIL": ["hang"]}, False),
        ({"MAIL": ["421 4.3.2 shutting down"] * 2}, False),
        ({"DOT": ["drop"]}, False),
    ],
    ids=["accepts", "postpones", "refuses", "no greeting", "no answer", "leaves", "lost after the text"],
)
async def test_relay_answers_if_it_decides_about_the_mail(
    script: dict[str, list[str]], answers: bool, serve: Serve, sqlite_pipeline: PipelineUnderTest
) -> None:
    fake, recorder = MisbehavingRelay(**script), DependencyRecorder(sqlite_pipeline.clock)
    relay = Relay(
        await serve(fake), connections=1, timeout_seconds=0.3, final_timeout_seconds=0.3,
        observe=recorder.observer("relay"),
    )  # fmt: skip
    await relay.send(SENDER, ADA, MAIL, envelope_id="1")
    await relay.close()
    fake.opened.set()
    assert (recorder.records["relay"].failing_since is None) is answers


@pytest.mark.parametrize(
    ("how", "error", "answers"),
    [
        (None, PaypalNotFoundError, True),
        ("500", PaypalUnavailableError, False),
        ("429", PaypalUnavailableError, False),
        ("garbage", PaypalUnavailableError, False),
    ],
)
def test_paypal_answers_if_it_knows_about_the_object(
    how: str | None, error: type[Exception], answers: bool, sqlite_pipeline: PipelineUnderTest
) -> None:
    fake = FakePaypalApi()
    if how:
        fake.misbehave(how)  # type: ignore[arg-type]
    with fake.serve() as url:
        container = parts(sqlite_pipeline, paypal_base_url=url)
        with pytest.raises(error):
            container.paypal.get("sale", "UNKNOWN")
    assert ("paypal" not in failing(container.dependencies)) is answers


def test_paypal_that_refuses_the_credentials_is_an_outage(sqlite_pipeline: PipelineUnderTest) -> None:
    with FakePaypalApi(client_secret="another").serve() as url:
        container = parts(sqlite_pipeline, paypal_base_url=url)
        with pytest.raises(PaypalRejectedError):
            container.paypal.check_credentials()
    assert failing(container.dependencies) == {"paypal"}


def parts(pipeline: PipelineUnderTest, **settings: Any) -> Container:
    values = {"paypal_client_id": "simulator", "paypal_client_secret": "simulator-secret", **settings}
    return make_parts(pipeline.url, pipeline.folder, pipeline.clock, **values)


def test_wrong_setting_is_an_outage_and_stops_no_other_check(sqlite_pipeline: PipelineUnderTest) -> None:
    container = parts(sqlite_pipeline, smtp_url="http://127.0.0.1", paypal_base_url="https://paypal.example.com")
    dependency_checks.check_dependencies(container, "scheduler")
    assert failing(container.dependencies) == {"relay", "paypal"}
    assert {"database", "broker"} <= set(container.dependencies.records)


def test_idle_server_is_asked_rarely_and_a_failed_one_often(sqlite_pipeline: PipelineUnderTest) -> None:
    fake = FakePaypalApi()
    with fake.serve() as url:
        container = parts(sqlite_pipeline, paypal_base_url=url)
        for _ in range(15 * 3):  # a quarter of an hour
            dependency_checks.check_dependencies(container, "worker")
            sqlite_pipeline.clock.advance(timedelta(seconds=20))
        assert len(fake.asked) == 3
        container.dependencies.observe("paypal", answered=False)
        sqlite_pipeline.clock.advance(timedelta(seconds=20))
        dependency_checks.check_dependencies(container, "worker")
        assert len(fake.asked) == 4


def test_unreadable_messages_are_counted(sqlite_pipeline: PipelineUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    container = parts(sqlite_pipeline)
    monkeypatch.setattr(container.broker, "count_dead_letters", lambda: 2)
    dependency_checks.check_dependencies(container, "scheduler")
    found = container.dependencies.counts["dead_letters"]
    assert (found.count, found.since) == (2, sqlite_pipeline.now)


def test_messages_that_stay_in_the_maildir_are_counted(sqlite_pipeline: PipelineUnderTest, tmp_path: Path) -> None:
    maildir, now = tmp_path / "maildir", sqlite_pipeline.now.timestamp()
    (maildir / "new").mkdir(parents=True)
    for name, age in (("fresh", 10), ("stuck", 600)):
        (maildir / "new" / name).write_bytes(b"x")
        os.utime(maildir / "new" / name, (now - age, now - age))
    container = parts(sqlite_pipeline, inbound_maildir=maildir)
    dependency_checks.check_dependencies(container, "scheduler")
    assert container.dependencies.counts["inbound_unfiled"].count == 1


def test_maildir_that_cannot_be_read_is_counted(sqlite_pipeline: PipelineUnderTest, tmp_path: Path) -> None:
    container = parts(sqlite_pipeline, inbound_maildir=tmp_path / "missing")
    dependency_checks.check_dependencies(container, "scheduler")
    assert container.dependencies.counts["inbound_unfiled"].count == 1


def test_job_that_fails_is_recorded_until_it_succeeds(sqlite_pipeline: PipelineUnderTest) -> None:
    clock, errors = sqlite_pipeline.clock, [ValueError("x"), DatabaseUnavailableError("gone")]
    assert isinstance(clock, MovableClock)
    began_at, recorder = clock.now(), DependencyRecorder(clock)

    def run() -> int:
        if errors:
            raise errors.pop()
        return 1

    scheduler = Scheduler(clock, [Job("a job", timedelta(minutes=1), run)], recorder=recorder)
    since = []
    for _ in range(3):
        scheduler.run_due()
        since.append(recorder.records[JOB + "a job"].failing_since)
        clock.advance(timedelta(minutes=1))
    assert since == [began_at, began_at, None]
