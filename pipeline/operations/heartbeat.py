"""Heartbeats of the roles, stored as files so that a check every 30 seconds costs little."""

import os
from datetime import datetime
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)

ALIVE_SECONDS = 30  # a role without a heartbeat for this long is unhealthy


def write(data_dir: Path, role: str) -> None:
    """Write a heartbeat: a file with the process id and the current modification time.

    A failure, for example a full disk, is logged and does not stop the role. The next call tries again.
    """
    file = data_dir / "run" / role
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file.touch(mode=0o600)
        file.write_text(str(os.getpid()), "ascii")
    except OSError as error:
        log.warning("heartbeat_failed", role=role, file=str(file), reason=error.strerror)


def is_alive(data_dir: Path, role: str, now: datetime) -> bool:
    """Return whether the role has a recent heartbeat. `now` must be the machine's time, like the files' times."""
    try:
        return now.timestamp() - (data_dir / "run" / role).stat().st_mtime <= ALIVE_SECONDS
    except FileNotFoundError:
        return False


def live_roles(data_dir: Path, now: datetime) -> dict[str, int]:
    """Return the roles with a recent heartbeat, and the process id of each."""
    files = sorted((data_dir / "run").glob("[a-z]*"))
    texts = {file.name: file.read_text("ascii") for file in files if is_alive(data_dir, file.name, now)}
    return {role: int(text) for role, text in texts.items() if text.isdigit()}
