"""Check that files with keys or personal data are readable only by the account that runs this program.

The error message contains the command that fixes the permissions. The master key must not be mounted as a container
secret: there every account could read it, and it could not be replaced.
"""

import stat
from collections.abc import Iterator
from pathlib import Path

from pipeline.crypto.master_key import previous_key_path
from pipeline.db.engine import file_of
from pipeline.settings import Settings, SettingsError

OTHERS = 0o077  # permission bits of group and others


def require_private(settings: Settings) -> None:
    """Raise SettingsError if other accounts can access the data folder, the master key, or the database's files."""
    for path in _guarded(settings):
        if is_readable_by_others(path):
            raise SettingsError(f"{path} is accessible to other accounts; run: chmod {_mode(path)} {path}")


def is_readable_by_others(path: Path) -> bool:
    """Return whether group or others have any permission. False for a missing file."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    link = stat.S_ISLNK(found.st_mode)  # the mode of a link has no meaning
    return not link and bool(stat.S_IMODE(found.st_mode) & OTHERS)


def private_files(settings: Settings) -> Iterator[Path]:
    """Yield the data folder with all its contents, the master key, and the database if it is stored elsewhere."""
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
