"""Files that hold keys or personal data are for us alone: who else may read them is told, with the command that mends it.

The master key is no secret for a container engine to mount: it could be read by all there, and never be replaced.
"""

import stat
from collections.abc import Iterator
from pathlib import Path

from pipeline.crypto.master_key import previous_key_path
from pipeline.db.engine import file_of
from pipeline.settings import Settings, SettingsError

OTHERS = 0o077


def require_private(settings: Settings) -> None:
    """Raises SettingsError if the data folder, the key, or the database's files can be read by others."""
    for path in _guarded(settings):
        if is_readable_by_others(path):
            raise SettingsError(f"{path} can be read by others; run: chmod {_mode(path)} {path}")


def is_readable_by_others(path: Path) -> bool:
    """Whether anybody but its owner may do anything with it. False for what is not there."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    link = stat.S_ISLNK(found.st_mode)  # a link's own mode says nothing
    return not link and bool(stat.S_IMODE(found.st_mode) & OTHERS)


def private_files(settings: Settings) -> Iterator[Path]:
    """Everything of ours: the data folder and what is in it, the key, and a database that lies elsewhere."""
    yield from _guarded(settings)
    if settings.data_dir.is_dir():
        yield from settings.data_dir.rglob("*")


def _guarded(settings: Settings) -> Iterator[Path]:
    key = settings.master_key
    yield from (settings.data_dir, key, previous_key_path(key))
    if file := file_of(settings.database):
        yield from (file.with_name(file.name + ending) for ending in ("", "-wal", "-shm"))


def _mode(path: Path) -> str:
    return "700" if path.is_dir() else "600"
