"""The scheduler runs each job at its own interval; a failing job does not stop the others."""

from collections import Counter
from datetime import datetime, timedelta
from functools import partial

import pytest
from structlog.testing import capture_logs

from pipeline.db.engine import DatabaseUnavailableError
from pipeline.scheduler.scheduler import Scheduler
from tests.support.outbox_fixtures import jobs_of
from tests.support.pipeline_under_test import PipelineUnderTest

DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)


def test_each_job_runs_at_its_own_interval(sqlite_pipeline: PipelineUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: Counter[str] = Counter()

    def count(name: str) -> int:
        ran[name] += 1
        return 1

    jobs = Scheduler(sqlite_pipeline.clock, jobs_of(sqlite_pipeline))
    for job in jobs.jobs:
        object.__setattr__(job, "run", partial(count, job.name))
    for _ in range(121):
        jobs.run_due()
        sqlite_pipeline.clock.advance(timedelta(seconds=1))
    assert ran == {
        "release claims of stopped mailers": 61,
        "queue renewal reminders": 3,
        "alert the operator to parked events": 3,
    }


@pytest.mark.parametrize("error", [DatabaseUnavailableError("gone"), ValueError("ada@example.com")])
def test_failing_job_stops_no_other_and_runs_again(sqlite_pipeline: PipelineUnderTest, error: Exception) -> None:
    jobs, ran = Scheduler(sqlite_pipeline.clock, jobs_of(sqlite_pipeline)), list[str]()
    first, *others = jobs.jobs

    def record(name: str) -> int:
        ran.append(name)
        return 0

    def fail() -> int:
        ran.append(first.name)
        raise error

    object.__setattr__(first, "run", fail)
    for job in others:
        object.__setattr__(job, "run", partial(record, job.name))
    with capture_logs() as logs:
        jobs.run_due()
        sqlite_pipeline.clock.advance(first.every)
        jobs.run_due()
    assert sorted(ran) == sorted([first.name, *[job.name for job in jobs.jobs]])
    assert [line["job"] for line in logs] == [first.name] * 2
    assert "ada@" not in str(logs)


def test_corrected_clock_delays_no_job(sqlite_pipeline: PipelineUnderTest) -> None:
    jobs, ran = Scheduler(sqlite_pipeline.clock, jobs_of(sqlite_pipeline)), list[datetime]()

    def record() -> int:
        ran.append(sqlite_pipeline.now)
        return 0

    object.__setattr__(jobs.jobs[0], "run", record)
    start = sqlite_pipeline.now
    for step in (DAY, -DAY, timedelta(0)):
        sqlite_pipeline.clock.advance(step)
        jobs.run_due()
    assert ran == [start + DAY, start]
