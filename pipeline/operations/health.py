"""The health of the system: unfinished work and outages, and which of them are over their limit."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pipeline.clock import Clock, format_time
from pipeline.db.engine import Database, DatabaseUnavailableError
from pipeline.dependencies import DependencyRecorder
from pipeline.operations import problem_file
from pipeline.operations.limits import LIMITS, WorkKind, limit_of
from pipeline.operations.outages import Observations, Outage, observe
from pipeline.operations.problem_file import Problem
from pipeline.operations.unfinished_work import Unfinished, UnfinishedWork, take_snapshot
from pipeline.settings import Settings

MAX_GAP = timedelta(minutes=2)  # between two calls of `publish` while the scheduler runs
UNSENT: tuple[WorkKind, ...] = ("mails_due", "mails_postponed", "mails_without_address", "mails_sending")


@dataclass(frozen=True, slots=True)
class Health:
    """The state of the system at one time. `work` is None while the database does not answer.

    `observed`: kind and name of the servers and roles of which something is known.
    `watched_since`: when this process began to watch. If all roles start together, the heartbeats from before are old.
    """

    at: datetime
    work: UnfinishedWork | None
    outages: tuple[Outage, ...]
    limit_seconds: int
    watched_since: datetime
    observed: frozenset[tuple[str, str]] = frozenset()

    @property
    def problems(self) -> list[Problem]:
        """Everything over its limit."""
        return [*self._outage_problems(), *self.work_problems]

    @property
    def work_problems(self) -> list[Problem]:
        """The unfinished work over its limit."""
        return list(self._late_work())

    @property
    def is_well(self) -> bool:
        return self.work is not None and not self.problems

    @property
    def is_stalled(self) -> bool:
        """Whether the pipeline does not progress. Problems that only need an operator's decision do not count."""
        return self.work is None or any(problem.stalled for problem in self.problems)

    @property
    def status(self) -> str:
        return "well" if self.is_well else "behind"

    @property
    def oldest_event_seconds(self) -> float | None:
        """The age of the oldest unhandled event; 0 if there is none, None if unknown."""
        return self.work.oldest(["events_unhandled"]) if self.work else None

    @property
    def oldest_mail_seconds(self) -> float | None:
        """The age of the oldest mail that is not sent; 0 if there is none, None if unknown."""
        return self.work.oldest(UNSENT) if self.work else None

    def as_json(self) -> dict[str, Any]:
        """Return all figures for `/healthz` on the listener for monitoring."""
        return {
            "status": self.status,
            "oldest_unhandled_event_seconds": _rounded(self.oldest_event_seconds),
            "oldest_unsent_mail_seconds": _rounded(self.oldest_mail_seconds),
            "limit_seconds": self.limit_seconds,
            "problems": [problem.text for problem in self.problems],
            "outages": [
                {"kind": each.kind, "name": each.name, "since": format_time(each.since)} for each in self.outages
            ],
            "unfinished": {
                kind: {"count": each.count, "oldest_seconds": round(each.oldest_seconds, 1)}
                for kind, each in (self.work.kinds if self.work else {}).items()
            },
        }

    def _outage_problems(self) -> Iterator[Problem]:
        watched_seconds = (self.at - self.watched_since).total_seconds()
        for outage in self.outages:
            seconds = outage.seconds(self.at)
            if outage.kind == "role":
                seconds = min(seconds, watched_seconds)
            if seconds > outage.limit_seconds or (outage.name == "database" and self.work is None):
                name = f"{outage.kind} {outage.name}"
                yield Problem(name, outage.sentence, 1, stalled=outage.kind != "job", command="smt-billing doctor")

    def _late_work(self) -> Iterator[Problem]:
        for kind, found in (self.work.kinds if self.work else {}).items():
            seconds, limit = limit_of(kind, self.limit_seconds), LIMITS[kind]
            if seconds is not None and found.count and found.oldest_seconds > seconds:
                yield Problem(kind, describe(kind, found), found.count, limit.stalled, limit.command)


class HealthCheck:
    """Takes the state of the system for one process. `expected`: the roles that should run."""

    def __init__(self, settings: Settings, database: Database, clock: Clock, recorder: DependencyRecorder) -> None:
        self._settings, self._database, self._clock, self._recorder = settings, database, clock, recorder
        self._watched_since = self._published_at = clock.now()
        self._expected = {"worker", "scheduler"} | ({"mailer"} if settings.smtp_url else set())

    def take(self, now: datetime | None = None) -> Health:
        """Return the state now. Raises nothing if the database is away: that is part of the answer."""
        now = now or self._clock.now()
        found = self.observations()
        try:
            with self._database.reading() as session:
                work: UnfinishedWork | None = take_snapshot(session, now, found.counts)
        except DatabaseUnavailableError:
            work, found = None, self.observations()  # this failure may be the first one
        outages = found.outages(now, self._expected, self._watched_since)
        limit = self._settings.health_limit_seconds
        return Health(now, work, tuple(outages), limit, self._watched_since, found.observed(now))

    def observations(self) -> Observations:
        """Return what the roles have published and this process has recorded."""
        return observe(self._settings.data_dir, self._recorder.records, self._recorder.counts)

    def publish(self) -> Health:
        """Take the state, and write its problems for `smt-billing health ROLE`, which does not open the database.

        The scheduler calls it every half minute. After a longer gap, for example of a machine that was suspended, the
        other roles have not run either, so their silence says nothing yet.
        """
        now = self._clock.now()
        if now - self._published_at > MAX_GAP:
            self._watched_since = now
        self._published_at = now
        health = self.take(now)
        problem_file.write(self._settings.data_dir, health.at, health.work_problems)
        return health


def describe(kind: WorkKind, found: Unfinished) -> str:
    """Return a figure in words: `mails in doubt: 2, the oldest for 3 h`."""
    return f"{LIMITS[kind].what}: {found.count:,}, the oldest for {_age(found.oldest_seconds)}"


def _age(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
