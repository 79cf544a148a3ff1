"""A temporary file for an export, so that neither its size nor a slow download occupies memory.

The file has mode 0600 and no name, so it ends with the process at the latest. Its content is encrypted with a key that
exists in memory only: otherwise the disk would keep personal data in plain text after the file is deleted.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from pipeline.crypto.ephemeral import EphemeralCipher

CHUNK = 256 * 1024  # bytes in memory at a time


class Spool:
    """A file that is written once from beginning to end, and then read. Use it as a context manager, or `close` it."""

    def __init__(self, folder: Path) -> None:
        """Create the file in `folder`. Raises OSError."""
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - `close` closes it
        self._cipher = EphemeralCipher()
        self.size = 0  # bytes written

    def write(self, data: bytes) -> int:
        """Append data. Return its length. Raises OSError."""
        self._file.write(self._cipher.encrypt(data))
        self.size += len(data)
        return len(data)

    def flush(self) -> None:
        self._file.flush()

    def chunks(self) -> Iterator[bytes]:
        """Yield the content. Raises OSError."""
        decrypt = self._cipher.decryptor()
        self._file.seek(0)
        while chunk := self._file.read(CHUNK):
            yield decrypt(chunk)

    def close(self) -> None:
        """Delete the file. May be called twice."""
        self._file.close()

    def __enter__(self) -> "Spool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
