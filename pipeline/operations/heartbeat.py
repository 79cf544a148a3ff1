"""Heartbeats of the roles, stored as files so that a check every 30 seconds costs little.

A heartbeat also publishes what the role recorded about its dependencies. That works while the database is away. Each
machine or container has its own file for a role, `run/<role>@<host>`: a live worker must not hide one that hangs.
"""

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import structlog

from pipeline.dependencies import CountRecord, DependencyRecord, DependencyRecorder

log = structlog.get_logger(__name__)

ALIVE_SECONDS = 30  # a role without a heartbeat for this long is unhealthy
REPLACED_AFTER = timedelta(days=1)  # a host without a heartbeat for this long no longer runs the role


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The last heartbeat of one role on one host, with the role's records by name."""

    role: str
    at: datetime
    pid: int
    dependencies: dict[str, DependencyRecord] = field(default_factory=dict)
    counts: dict[str, CountRecord] = field(default_factory=dict)

    def is_fresh(self, now: datetime) -> bool:
        return (now - self.at).total_seconds() <= ALIVE_SECONDS


def write(data_dir: Path, role: str, now: datetime, recorder: DependencyRecorder | None = None) -> None:
    """Write a heartbeat. `now` is the time of the clock that the readers use too.

    A failure, for example a full disk, is logged and does not stop the role. The next call tries again.
    """
    file = path_of(data_dir, role)
    draft = file.with_name(f".{file.name}.{os.getpid()}")  # readers never see half a file
    content = {
        "at": now,
        "pid": os.getpid(),
        "dependencies": recorder.records if recorder else {},
        "counts": recorder.counts if recorder else {},
    }
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft.touch(mode=0o600)
        draft.write_bytes(orjson.dumps(content))
        draft.replace(file)
    except OSError as error:
        log.warning("heartbeat_failed", role=role, file=str(file), reason=error.strerror)


def path_of(data_dir: Path, role: str) -> Path:
    """Return the file of a role's heartbeats on this host."""
    return data_dir / "run" / f"{role}@{platform.node()}"


def read(data_dir: Path, role: str) -> Heartbeat | None:
    """Return the last heartbeat of a role on this host; None if there is none."""
    return _parse(path_of(data_dir, role))


def is_alive(data_dir: Path, role: str, now: datetime) -> bool:
    """Return whether the role has a recent heartbeat on this host."""
    found = read(data_dir, role)
    return found is not None and found.is_fresh(now)


def remove_replaced(data_dir: Path, role: str, now: datetime) -> None:
    """Delete the old heartbeats of a role on other hosts. Each new container is a host of its own."""
    for file in (data_dir / "run").glob(f"{role}@*"):
        found = _parse(file)
        if found and file != path_of(data_dir, role) and now - found.at > REPLACED_AFTER:
            file.unlink(missing_ok=True)


def read_all(data_dir: Path) -> list[Heartbeat]:
    """Return the last heartbeat of each role on each host, also of those that have ended."""
    return list(_read_files(data_dir))


def live_roles(data_dir: Path, now: datetime) -> dict[str, int]:
    """Return the roles with a recent heartbeat on this host, and the process id of each."""
    found = (_parse(file) for file in (data_dir / "run").glob(f"*@{platform.node()}"))
    return {each.role: each.pid for each in found if each and each.is_fresh(now)}


def _read_files(data_dir: Path) -> Iterator[Heartbeat]:
    for file in sorted((data_dir / "run").glob("[a-z]*@*")):
        if found := _parse(file):
            yield found


def _parse(file: Path) -> Heartbeat | None:
    """Return a file's heartbeat; None if it does not exist or is not one, for example after a disk was full."""
    try:
        content: dict[str, Any] = orjson.loads(file.read_bytes())
        return Heartbeat(
            file.name.partition("@")[0],
            datetime.fromisoformat(content["at"]).astimezone(UTC),
            int(content["pid"]),
            {name: DependencyRecord(**_times(each)) for name, each in content["dependencies"].items()},
            {name: CountRecord(**_times(each)) for name, each in content["counts"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _times(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: datetime.fromisoformat(value).astimezone(UTC) if isinstance(value, str) else value
        for name, value in values.items()
    }
