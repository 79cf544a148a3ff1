"""The data folder of a demo: whether there is one in it, of which terms, and whether it was played to its end.

A file says so. Without that file a database with events is somebody's books, and no demo touches it.
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
from pipeline.errors import UsageError as Wrong
from pipeline.settings import DEMO_FILE, Settings

LOCK = "demo.lock"
CAUGHT = "caught"
USUAL = {"months": 6, "subscribers": 24, "seed": 1}


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What is played. None: whatever an earlier demo had, else the usual."""

    months: int | None
    subscribers: int | None
    seed: int | None

    def as_dict(self) -> dict[str, int]:
        """Only what was asked for."""
        told = {"months": self.months, "subscribers": self.subscribers, "seed": self.seed}
        return {name: value for name, value in told.items() if value is not None}


@dataclass(frozen=True, slots=True)
class DemoRun:
    """A demo in a folder. `ended_at` is None while it is being played.

    Of the deliveries that were `posted`, `answered` were answered 200, `duplicates` of those told nothing new.
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
        """The same, played to its end and noted down."""
        done = replace(self, posted=posted, answered=answered, duplicates=duplicates, ended_at=at)
        done.note()
        return done

    def note(self) -> None:
        """Write the file."""
        names = ("months", "subscribers", "seed", "posted", "answered", "duplicates")
        noted: dict[str, Any] = {name: getattr(self, name) for name in names}
        noted["ended_at"] = format_time(self.ended_at) if self.ended_at else None
        files.write_atomically(self.folder / DEMO_FILE, orjson.dumps(noted))


@contextmanager
def open_demo_folder(settings: Settings, asked: DemoOptions, *, fresh: bool) -> Iterator[DemoRun]:
    """The demo in the data folder, or a new one in an emptied folder. Raises Wrong where it must not be touched."""
    if settings.database_url:
        raise Wrong(
            "the demo keeps its data in SMT_DATA_DIR: unset SMT_DATABASE_URL, so that no other database is meant"
        )
    folder = settings.data_dir
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Wrong(f"a demo is running in {folder} already; end it, or choose another SMT_DATA_DIR") from None
        yield _find(settings, asked, fresh=fresh)


def _find(settings: Settings, asked: DemoOptions, *, fresh: bool) -> DemoRun:
    folder, earlier = settings.data_dir, _read(settings.data_dir)
    if earlier is None and _has_events(settings):
        raise Wrong(f"{folder} holds events that are no demo's; choose another SMT_DATA_DIR for the demo")
    if earlier and earlier.is_done and not fresh:
        differing = [name for name, value in asked.as_dict().items() if getattr(earlier, name) != value]
        if differing:
            raise Wrong(
                f"{folder} holds a demo with other {', '.join(differing)}; --fresh plays a new one in its place"
            )
        return earlier
    if earlier:
        _clear(settings)
    terms = USUAL | asked.as_dict()
    new = DemoRun(folder, terms["months"], terms["subscribers"], terms["seed"])
    new.note()
    return new


def _read(folder: Path) -> DemoRun | None:
    try:
        noted = orjson.loads((folder / DEMO_FILE).read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise Wrong(
            f"{folder / DEMO_FILE} cannot be read; remove the folder, or choose another SMT_DATA_DIR"
        ) from error
    ended_at = noted.pop("ended_at")
    return DemoRun(folder, **noted, ended_at=datetime.fromisoformat(ended_at) if ended_at else None)


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
    """Throw the earlier demo's rows and mails away; keys and certificates serve the next one."""
    for path in settings.data_dir.glob("smt-billing.db*"):
        path.unlink()
    shutil.rmtree(settings.data_dir / CAUGHT, ignore_errors=True)
