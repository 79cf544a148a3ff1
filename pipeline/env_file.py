"""Read the files that contain settings, but only those that no other account could have written.

A command may run in a folder that belongs to another account. A `.env` file there could make it run other programs or send
personal data elsewhere. So owner and mode are checked on the opened file before it is read. The same holds for a file
that `SMT_..._FILE` names.
"""

import os
import pwd
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from dotenv import dotenv_values
from dotenv.parser import parse_stream

from pipeline.errors import UsageError

WRITABLE_BY_OTHERS = 0o022  # permission bits of group and others
ACCESSIBLE_TO_OTHERS = 0o077
ACCESSIBLE_TO_ALL = 0o007


class EnvFileError(UsageError):
    """The file must not be read, or cannot be read. The message names it, its owner or mode, and says what to do."""


@dataclass(frozen=True, slots=True)
class ProtectedFile:
    """A file that was read: its absolute path, its permission bits, its content, and whether the mount is read-only."""

    path: Path
    mode: int
    content: bytes
    is_own: bool
    is_mounted_read_only: bool

    @property
    def is_private(self) -> bool:
        """Whether only the owner can access the file, or those to whom another owner, which is root, gave access.

        A container runtime or service manager sets owner and mode of the secrets that it mounts read-only.
        """
        others = ACCESSIBLE_TO_OTHERS if self.is_own else ACCESSIBLE_TO_ALL
        return self.is_mounted_read_only or not self.mode & others


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
    """Return the file; None if there is no regular file of that name. Raises EnvFileError as `read_protected` does."""
    try:
        file = read_protected(path)
    except FileNotFoundError:
        return None
    return None if file is None else EnvFile(file.path, file.mode, _parse(file.path, file.content))


def read_protected(path: Path) -> ProtectedFile | None:
    """Return the file; None if it is not a regular file. Raises FileNotFoundError.

    Raises EnvFileError unless it belongs to this process's user or root, and only its owner can write to it. A symbolic
    link must belong to one of the two as well. A file on a read-only mount is not writable, so its owner may be anyone.
    """
    try:
        link = path.lstat()
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # does not wait for a named pipe
    except FileNotFoundError:
        raise
    except OSError as error:
        _require_trusted_owner(path, path.lstat())  # says more than that this account may not read it
        raise EnvFileError(f"cannot read {path.absolute()}: {error.strerror}") from error
    try:
        return _read_opened(path, link, descriptor)
    finally:
        os.close(descriptor)


def _read_opened(path: Path, link: os.stat_result, descriptor: int) -> ProtectedFile | None:
    found = os.fstat(descriptor)
    is_read_only = bool(os.fstatvfs(descriptor).f_flag & os.ST_RDONLY)
    if not (is_read_only and stat.S_ISREG(link.st_mode)):
        _require_trusted_owner(path, link)
    if not stat.S_ISREG(found.st_mode):  # for example a folder with a virtual environment
        return None
    if not is_read_only:
        _require_trusted_owner(path, found)
        _require_protected(path, found)
    with os.fdopen(descriptor, "rb", closefd=False) as file:
        mode, is_own = stat.S_IMODE(found.st_mode), found.st_uid == os.geteuid()
        return ProtectedFile(path.absolute(), mode, file.read(), is_own, is_read_only)


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
        text = content.decode()
    except UnicodeDecodeError:
        raise EnvFileError(f"{path} is not UTF-8 text") from None
    _require_assignments(path, text)
    values = dotenv_values(stream=StringIO(text))
    return {name.upper(): value for name, value in values.items() if value is not None}


def _require_assignments(path: Path, text: str) -> None:
    """Raise EnvFileError if a line is neither an assignment nor a comment. The message does not quote it: it may be secret."""
    for binding in parse_stream(StringIO(text)):
        if binding.error or (binding.key is not None and binding.value is None):
            blank = len(binding.original.string) - len(binding.original.string.lstrip())
            line = binding.original.line + binding.original.string[:blank].count("\n")
            raise EnvFileError(
                f"{path}, line {line}: this is not NAME=value. Write a value that contains spaces, quotes or # in "
                "quotation marks, and begin a comment with #"
            )


def _account(uid: int) -> str:
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"
