"""Run jobs at intervals.

Each job queries for due rows only, so its cost does not grow with the table. Several processes may run the same job.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from pipeline.clock import Clock
from pipeline.db.engine import DatabaseUnavailableError
from pipeline.dependencies import JOB, DependencyRecorder

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """A job and its interval. `run` returns how many items it processed."""

    name: str
    every: timedelta
    run: Callable[[], int]


class Scheduler:
    """Runs jobs, and stores when each is due next."""

    def __init__(
        self,
        clock: Clock,
        core: Sequence[Job],
        more: Sequence[Job] = (),
        recorder: DependencyRecorder | None = None,
    ) -> None:
        """Take the `core` jobs and the jobs that the settings add (`more`). `recorder` gets the result of each run."""
        self._clock, self._recorder = clock, recorder or DependencyRecorder(clock)
        self.core, self.more = tuple(core), tuple(more)
        self._due: dict[str, datetime] = {}

    @property
    def jobs(self) -> tuple[Job, ...]:
        return (*self.core, *self.more)

    def run_all(self) -> int:
        """Run the core jobs now, and the others if they are due. An exception of a core job is raised."""
        return sum(job.run() for job in self.core) + self._run_due(self.more)

    def run_due(self) -> int:
        """Run the jobs that are due. A failure is logged; the job runs again after its interval."""
        return self._run_due(self.jobs)

    def _run_due(self, jobs: Sequence[Job]) -> int:
        done = 0
        for job in jobs:
            now = self._clock.now()
            # If the clock was ahead and is corrected, the stored due time is too late. The job then runs at once.
            if not now < self._due.get(job.name, now) <= now + job.every:
                self._due[job.name] = now + job.every
                done += self._run(job)
        return done

    def _run(self, job: Job) -> int:
        """Run a job. An error is logged and recorded, and does not stop the other jobs."""
        try:
            done = job.run()
        except DatabaseUnavailableError as error:
            log.warning("job_failed", job=job.name, reason=str(error))
        except Exception as error:  # noqa: BLE001 - a job may raise anything
            log.error("job_failed", job=job.name, reason=f"internal error: {type(error).__name__}")
        else:
            self._recorder.observe(JOB + job.name, answered=True)
            return done
        self._recorder.observe(JOB + job.name, answered=False)
        return 0
