"""Records for each dependency of this process when it last answered, and since when it has not.

The classes that connect to a server report each result to an `Observer`. `operations.heartbeat` publishes the records
of a role, so that other processes can say what does not answer and since when.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from pipeline.clock import Clock

Observer = Callable[[bool], None]  # called with whether the dependency answered
JOB = "job: "  # prefix of the names of scheduled jobs, which are recorded in the same way


def ignore(answered: bool) -> None:
    """Observer that records nothing."""


@dataclass(frozen=True, slots=True)
class DependencyRecord:
    """The last result, the last answer (None: none yet), and the first failure since then (None: it answers)."""

    observed_at: datetime
    answered_at: datetime | None = None
    failing_since: datetime | None = None


@dataclass(frozen=True, slots=True)
class CountRecord:
    """A number of unfinished items outside the database, and since when it has not been zero."""

    observed_at: datetime
    count: int = 0
    since: datetime | None = None


class DependencyRecorder:
    """The records of this process. All threads share one instance."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._records: dict[str, DependencyRecord] = {}
        self._counts: dict[str, CountRecord] = {}

    def observer(self, name: str) -> Observer:
        """Return the observer of this dependency."""
        return lambda answered: self.observe(name, answered=answered)

    def observe(self, name: str, *, answered: bool) -> None:
        """Record one result."""
        now = self._clock.now()
        with self._lock:
            before = self._records.get(name, DependencyRecord(now))
            if answered:
                self._records[name] = DependencyRecord(now, answered_at=now)
            else:
                self._records[name] = replace(before, observed_at=now, failing_since=before.failing_since or now)

    def count(self, name: str, number: int, since: datetime | None = None) -> None:
        """Record a number of items. `since`: when the oldest was created; otherwise the first time that it was seen."""
        now = self._clock.now()
        with self._lock:
            before = self._counts.get(name, CountRecord(now))
            self._counts[name] = CountRecord(now, number, (since or before.since or now) if number else None)

    def restore(self, records: Mapping[str, DependencyRecord], counts: Mapping[str, CountRecord]) -> None:
        """Take over the failures that the process before this one recorded, so that a restart does not change `since`.

        Not those of jobs: a job may have been removed, and the others run again at once.
        """
        with self._lock:
            failing = {name: each for name, each in records.items() if each.failing_since and not name.startswith(JOB)}
            self._records = failing | self._records
            self._counts = dict(counts) | self._counts

    @property
    def records(self) -> dict[str, DependencyRecord]:
        """A copy of the records, by name."""
        with self._lock:
            return dict(self._records)

    @property
    def counts(self) -> dict[str, CountRecord]:
        """A copy of the counts, by name."""
        with self._lock:
            return dict(self._counts)
