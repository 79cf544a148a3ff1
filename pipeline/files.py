"""Private files (mode 0600): written completely or not at all, or created without overwriting a file."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO


@contextlib.contextmanager
def replace_atomically(path: Path) -> Iterator[IO[bytes]]:
    """Open a new file that replaces `path` when the block ends and all data is on disk. On an error nothing changes.

    The folder must exist. Raises OSError.
    """
    descriptor, name = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)  # creates it with mode 0600
    draft = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_atomically(path: Path, data: bytes) -> None:
    """Replace the file with these bytes; see `replace_atomically`. Raises OSError."""
    with replace_atomically(path) as file:
        file.write(data)


def create_private(path: Path) -> IO[bytes]:
    """Create a file and open it for writing. Raises FileExistsError if it exists, OSError."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def sync_folder(folder: Path) -> None:
    """Sync the folder's list of files to disk. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
