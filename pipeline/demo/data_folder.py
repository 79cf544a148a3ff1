"""The data folder of a demo: a file records the demo's options and whether it was completed.

A folder that has a database with events but not this file is real data, and the demo does not touch it.
"""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import func, select

from pipeline import files
from pipeline.clock import format_time
from pipeline.db import migrations
from pipeline.db.engine import Database
from pipeline.db.models import Event
from pipeline.errors import UsageError
from pipeline.settings import DEMO_FILE, Settings

LOCK = "demo.lock"
CAUGHT = "caught"  # folder of the caught mails
DEFAULTS = {"months": 6, "subscribers": 24, "seed": 1}


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """Options of a demo. None means: as in the earlier demo, otherwise the default."""

    months: int | None
    subscribers: int | None
    seed: int | None

    def as_dict(self) -> dict[str, int]:
        """Return the options that were set."""
        options = {"months": self.months, "subscribers": self.subscribers, "seed": self.seed}
        return {name: value for name, value in options.items() if value is not None}


@dataclass(frozen=True, slots=True)
class DemoRun:
    """A demo in a folder. `ended_at` is None until it is complete.

    `posted` counts deliveries, `answered` those that were answered 200, and `duplicates` those of them
    that were already stored.
    """

    folder: Path
    months: int
    subscribers: int
    seed: int
    posted: int = 0
    answered: int = 0
    duplicates: int = 0
    ended_at: datetime | None = None

    @property
    def is_done(self) -> bool:
        return self.ended_at is not None

    def ended(self, posted: int, answered: int, duplicates: int, at: datetime) -> "DemoRun":
        """Return a completed copy, and write it to the file."""
        done = replace(self, posted=posted, answered=answered, duplicates=duplicates, ended_at=at)
        done.note()
        return done

    def note(self) -> None:
        """Write this demo to the file."""
        names = ("months", "subscribers", "seed", "posted", "answered", "duplicates")
        fields: dict[str, Any] = {name: getattr(self, name) for name in names}
        fields["ended_at"] = format_time(self.ended_at) if self.ended_at else None
        files.write_atomically(self.folder / DEMO_FILE, orjson.dumps(fields))


@contextmanager
def open_demo_folder(settings: Settings, options: DemoOptions, *, fresh: bool) -> Iterator[DemoRun]:
    """Lock the data folder and yield its demo, or a new one in a cleared folder.

    Raises UsageError if the folder is in use, contains other data, or contains a demo with other options.
    """
    if settings.database_url:
        raise UsageError("the demo stores its data in SMT_DATA_DIR; unset SMT_DATABASE_URL")
    folder = settings.data_dir
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"a demo is already running in {folder}; stop it, or set another SMT_DATA_DIR") from None
        yield _find_or_create(settings, options, fresh=fresh)


def _find_or_create(settings: Settings, options: DemoOptions, *, fresh: bool) -> DemoRun:
    folder, earlier = settings.data_dir, _read(settings.data_dir)
    if earlier is None and _has_events(settings):
        raise UsageError(f"{folder} contains events that are not from a demo; set another SMT_DATA_DIR for the demo")
    if earlier and earlier.is_done and not fresh:
        differing = [name for name, value in options.as_dict().items() if getattr(earlier, name) != value]
        if differing:
            raise UsageError(f"{folder} contains a demo with other {', '.join(differing)}; use --fresh to replace it")
        return earlier
    if earlier:
        _clear(settings)
    chosen = DEFAULTS | options.as_dict()
    new = DemoRun(folder, chosen["months"], chosen["subscribers"], chosen["seed"])
    new.note()
    return new


def _read(folder: Path) -> DemoRun | None:
    try:
        fields = orjson.loads((folder / DEMO_FILE).read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise UsageError(f"cannot read {folder / DEMO_FILE}; remove the folder, or set another SMT_DATA_DIR") from error
    ended_at = fields.pop("ended_at")
    return DemoRun(folder, **fields, ended_at=datetime.fromisoformat(ended_at) if ended_at else None)


def _has_events(settings: Settings) -> bool:
    if not (settings.data_dir / "smt-billing.db").exists():
        return False
    database = Database(settings.database)
    try:
        if migrations.current(database) is None:
            return False
        with database.reading() as session:
            return session.execute(select(func.count()).select_from(Event)).scalar_one() > 0
    finally:
        database.close()


def _clear(settings: Settings) -> None:
    """Delete the earlier demo's database and mails. Keys and certificates are used again."""
    for path in settings.data_dir.glob("smt-billing.db*"):
        path.unlink()
    shutil.rmtree(settings.data_dir / CAUGHT, ignore_errors=True)
