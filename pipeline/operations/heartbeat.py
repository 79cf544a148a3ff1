"""Each role's sign of life. Needs nothing but files, so that asking for it every half minute costs little."""

import os
from datetime import datetime
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)

ALIVE_SECONDS = 30  # a role that has not shown itself for this long is not well


def write(data_dir: Path, role: str) -> None:
    """Leave a sign of life: a file that holds the process's number, and whose time of change is now.

    A disk that is full ends no role, and does not silence it for longer than it is full: the next try may succeed.
    """
    file = data_dir / "run" / role
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file.touch(mode=0o600)
        file.write_text(str(os.getpid()), "ascii")
    except OSError as error:
        log.warning("no_sign_of_life", role=role, file=str(file), reason=error.strerror)


def is_alive(data_dir: Path, role: str, now: datetime) -> bool:
    """Whether that role has shown life lately. Files carry the machine's own time."""
    try:
        return now.timestamp() - (data_dir / "run" / role).stat().st_mtime <= ALIVE_SECONDS
    except FileNotFoundError:
        return False


def live_roles(data_dir: Path, now: datetime) -> dict[str, int]:
    """The roles that have shown life lately, and the number of each one's process."""
    files = sorted((data_dir / "run").glob("[a-z]*"))
    texts = {file.name: file.read_text("ascii") for file in files if is_alive(data_dir, file.name, now)}
    return {role: int(text) for role, text in texts.items() if text.isdigit()}
