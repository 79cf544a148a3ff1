"""Run jobs at intervals.

Each job is a query for what is due, so it costs what is due and not what exists, and may run in several processes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from pipeline.clock import Clock
from pipeline.db.engine import DatabaseUnavailableError

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """One thing to do at an interval. `run` returns how much there was to do."""

    name: str
    every: timedelta
    run: Callable[[], int]


class Scheduler:
    """The jobs, and when each is due next."""

    def __init__(self, clock: Clock, core: Sequence[Job], more: Sequence[Job] = ()) -> None:
        """`core` are the pipeline's own jobs, `more` those that the settings add."""
        self._clock = clock
        self.core, self.more = tuple(core), tuple(more)
        self._due: dict[str, datetime] = {}

    @property
    def jobs(self) -> tuple[Job, ...]:
        return (*self.core, *self.more)

    def run_all(self) -> int:
        """Run the core jobs now, and the others if they are due. Raises what a core job raises."""
        return sum(job.run() for job in self.core) + self._run_due(self.more)

    def run_due(self) -> int:
        """Run the jobs that are due by the clock. One that fails is logged and due again at its next time."""
        return self._run_due(self.jobs)

    def _run_due(self, jobs: Sequence[Job]) -> int:
        done = 0
        for job in jobs:
            now = self._clock.now()
            # A clock that was ahead for a while and is right again must not silence a job until it gets there.
            if not now < self._due.get(job.name, now) <= now + job.every:
                self._due[job.name] = now + job.every
                done += _run(job)
        return done


def _run(job: Job) -> int:
    """Run a job. An error is logged and must not stop the others."""
    try:
        return job.run()
    except DatabaseUnavailableError as error:
        log.warning("job_failed", job=job.name, reason=str(error))
    except Exception as error:  # noqa: BLE001 - whatever a job raises
        log.error("job_failed", job=job.name, reason=f"a fault of ours: {type(error).__name__}")
    return 0
