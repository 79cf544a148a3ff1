"""Is work being done? The age of the oldest unhandled event and unsent mail, and each role's sign of life."""

import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pipeline import inbox, outbox
from pipeline.database import Database

ALIVE_SECONDS = 30  # a role that has not shown itself for this long is not well


@dataclass(frozen=True, slots=True)
class Health:
    """Ages in seconds, 0 when nothing waits."""

    oldest_event_seconds: float
    oldest_mail_seconds: float
    limit_seconds: int

    @property
    def is_well(self) -> bool:
        return max(self.oldest_event_seconds, self.oldest_mail_seconds) <= self.limit_seconds


def look(database: Database, now: datetime, limit_seconds: int) -> Health:
    """Look into the tables. Raises StoreDown."""
    with database.reading() as session:
        event, mail = inbox.oldest_unhandled(session), outbox.oldest_unsent(session, now)
    return Health(_age(event, now), _age(mail, now), limit_seconds)


def show_life(data_dir: Path, role: str) -> None:
    """Leave a sign of life: a file that holds the process's number, and whose time of change is now."""
    folder = data_dir / "run"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = folder / role
    file.touch(mode=0o600)
    file.write_text(str(os.getpid()), "ascii")


def is_alive(data_dir: Path, role: str, now: datetime) -> bool:
    """Whether that role has shown life lately. Files carry the machine's own time."""
    try:
        return now.timestamp() - (data_dir / "run" / role).stat().st_mtime <= ALIVE_SECONDS
    except FileNotFoundError:
        return False


def running(data_dir: Path, now: datetime) -> dict[str, int]:
    """The roles that have shown life lately, and the number of each one's process."""
    files = sorted((data_dir / "run").glob("[a-z]*"))
    texts = {file.name: file.read_text("ascii") for file in files if is_alive(data_dir, file.name, now)}
    return {role: int(text) for role, text in texts.items() if text.isdigit()}


def _age(since: datetime | None, now: datetime) -> float:
    return max(0.0, (now - since).total_seconds()) if since else 0.0
