"""What does not answer, and since when: dependencies, roles and scheduled jobs. Needs no database."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from pipeline.dependencies import JOB, CountRecord, DependencyRecord
from pipeline.operations.heartbeat import ALIVE_SECONDS, Heartbeat, read_all
from pipeline.operations.limits import DEPENDENCY_SECONDS, JOB_SECONDS

LIMITS = {"dependency": DEPENDENCY_SECONDS, "role": float(ALIVE_SECONDS), "job": JOB_SECONDS}
NAMES = {"paypal": "PayPal"}  # written differently in sentences
ADVICE = {
    "paypal": "PayPal: see https://www.paypal-status.com, and check that this machine reaches SMT_PAYPAL_BASE_URL; "
    "look-ups are repeated, so nothing is lost",
    "database": "database: check that the server runs and SMT_DATABASE_URL; PayPal sends its webhooks again for three days",
    "broker": "broker: check that the server runs and SMT_BROKER_URL; events wait in the database",
    "relay": "relay: check that the mail server runs and SMT_SMTP_URL; mails wait in the database",
}


@dataclass(frozen=True, slots=True)
class Outage:
    """A dependency, role or job that does not work, and since when."""

    kind: Literal["dependency", "role", "job"]
    name: str
    since: datetime

    def seconds(self, now: datetime) -> float:
        return max(0.0, (now - self.since).total_seconds())

    @property
    def limit_seconds(self) -> float:
        """The age at which the outage is a problem."""
        return LIMITS[self.kind]

    @property
    def advice(self) -> str:
        """What the operator can do about it."""
        if self.kind == "role":
            return f"start the role {self.name}; its log says why it stopped"
        if self.kind == "job":
            return f'job "{self.name}": see job_failed in the scheduler\'s log'
        return ADVICE.get(self.name, f"{self.name}: check that the server runs")

    @property
    def sentence(self) -> str:
        if self.kind == "job":
            return f'the scheduled job "{self.name}" fails since {_moment(self.since)}'
        return f"{NAMES.get(self.name, self.name)} has not answered since {_moment(self.since)}"


@dataclass(frozen=True, slots=True)
class Observations:
    """What the roles on all hosts have published, and what this process has recorded itself."""

    heartbeats: Sequence[Heartbeat]
    own: Mapping[str, DependencyRecord]
    own_counts: Mapping[str, CountRecord]

    def outages(self, now: datetime, expected: Collection[str], expected_since: datetime) -> list[Outage]:
        """Return all outages, the oldest first.

        `expected` are the roles that should run. One that was never seen is away since `expected_since`.
        """
        found = (*self._servers_and_jobs(now), *self._roles(now, expected, expected_since))
        return sorted(found, key=lambda outage: outage.since)

    def observed(self, now: datetime) -> frozenset[tuple[str, str]]:
        """Return kind and name of all servers that a live role has asked, and of all roles that were seen.

        PayPal is not among them without credentials: no one knows whether it answers.
        """
        asked = {name for each in self.heartbeats if each.is_fresh(now) for name in each.dependencies} | set(self.own)
        servers = {("dependency", name) for name in asked if not name.startswith(JOB)}
        return frozenset(servers | {("role", each.role) for each in self.heartbeats})

    @property
    def counts(self) -> dict[str, CountRecord]:
        """The latest count of each name."""
        found = [*self.own_counts.items(), *(item for each in self.heartbeats for item in each.counts.items())]
        return dict(sorted(found, key=lambda item: item[1].observed_at))

    def _servers_and_jobs(self, now: datetime) -> Iterator[Outage]:
        """A role that ended says nothing about its servers. If one live role is cut off, the server counts as away."""
        live = [each.dependencies for each in self.heartbeats if each.is_fresh(now)]
        first: dict[str, datetime] = {}
        for name, record in (item for records in (*live, self.own) for item in records.items()):
            if record.failing_since:
                first[name] = min(first.get(name, record.failing_since), record.failing_since)
        for name, since in first.items():
            is_job = name.startswith(JOB)
            yield Outage("job" if is_job else "dependency", name.removeprefix(JOB), since)

    def _roles(self, now: datetime, expected: Collection[str], expected_since: datetime) -> Iterator[Outage]:
        last: dict[str, datetime] = {}
        for each in self.heartbeats:
            last[each.role] = max(last.get(each.role, each.at), each.at)
        for role in sorted({*expected, *last}):
            at = last.get(role, expected_since)
            if role not in last or (now - at).total_seconds() > ALIVE_SECONDS:
                yield Outage("role", role, at)


def observe(
    data_dir: Path,
    own: Mapping[str, DependencyRecord] | None = None,
    own_counts: Mapping[str, CountRecord] | None = None,
) -> Observations:
    """Read the heartbeats of all roles."""
    return Observations(read_all(data_dir), own or {}, own_counts or {})


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"
