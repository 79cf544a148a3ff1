"""Read a `.env` file, but only one that no other account could have written.

A command may run in a folder that belongs to another account. A `.env` file there could make it run other programs or send
personal data elsewhere, so its owner and mode are checked on the opened file before it is read.
"""

import os
import pwd
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from dotenv import dotenv_values

from pipeline.errors import UsageError

WRITABLE_BY_OTHERS = 0o022  # permission bits of group and others
ACCESSIBLE_TO_OTHERS = 0o077


class EnvFileError(UsageError):
    """The file must not be read, or cannot be read. The message names it, its owner or mode, and says what to do."""


@dataclass(frozen=True, slots=True)
class EnvFile:
    """A `.env` file that was read: its absolute path, its permission bits, and its variables by name in capitals."""

    path: Path
    mode: int
    variables: Mapping[str, str]

    @property
    def is_private(self) -> bool:
        """Whether only the owner can access the file."""
        return not self.mode & ACCESSIBLE_TO_OTHERS


def read_env_file(path: Path) -> EnvFile | None:
    """Return the file; None if there is no regular file of that name.

    Raises EnvFileError unless it belongs to this process's user or root, and only its owner can write to it. A symbolic
    link must belong to one of the two as well.
    """
    try:
        _require_trusted_owner(path, path.lstat())
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # does not wait for a named pipe
    except FileNotFoundError:
        return None
    except OSError as error:
        raise EnvFileError(f"cannot read {path.absolute()}: {error.strerror}") from error
    try:
        return _read_opened(path, descriptor)
    finally:
        os.close(descriptor)


def _read_opened(path: Path, descriptor: int) -> EnvFile | None:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):  # for example a folder with a virtual environment
        return None
    _require_trusted_owner(path, found)
    _require_protected(path, found)
    with os.fdopen(descriptor, "rb", closefd=False) as file:
        return EnvFile(path.absolute(), stat.S_IMODE(found.st_mode), _parse(path, file.read()))


def _require_trusted_owner(path: Path, found: os.stat_result) -> None:
    me = os.geteuid()
    if found.st_uid not in (me, 0):
        raise EnvFileError(
            f"{path.absolute()} belongs to {_account(found.st_uid)}, not to {_account(me)}, so it is not read. Run the "
            f"command in another folder or as its owner; or check the file, then run: chown {me} {path.absolute()}"
        )


def _require_protected(path: Path, found: os.stat_result) -> None:
    mode = stat.S_IMODE(found.st_mode)
    if mode & WRITABLE_BY_OTHERS:
        raise EnvFileError(
            f"{path.absolute()} is writable by other accounts (owner {_account(found.st_uid)}, mode {mode:04o}), so it is "
            f"not read. Check its content, then run: chmod 600 {path.absolute()}"
        )


def _parse(path: Path, content: bytes) -> dict[str, str]:
    try:
        values = dotenv_values(stream=StringIO(content.decode()))
    except UnicodeDecodeError:
        raise EnvFileError(f"{path.absolute()} is not UTF-8 text") from None
    return {name.upper(): value for name, value in values.items() if value is not None}


def _account(uid: int) -> str:
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"
