"""The master key: a file outside the database that encrypts ("wraps") the data keys.

AES-256-GCM (NIST SP 800-38D). See `rotation` for its replacement.
"""

import base64
import fcntl
import hashlib
import os
import stat
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pipeline import files
from pipeline.errors import UsageError

NONCE = 12  # bytes; random, and no key encrypts anywhere near 2**32 values


class MasterKeyError(UsageError):
    """The master key is missing, unreadable, readable by others, or not the one this database was written with."""


class MasterKey:
    """Wraps and unwraps the keys of labels.

    Where it lives in a file, it notices when that file is replaced: the present key wraps, and as long as its predecessor
    is still beside it, what that one had wrapped opens too. See `rotation`.
    """

    def __init__(self, secret: bytes, path: Path | None = None) -> None:
        self._path = path
        self._ciphers: tuple[_Cipher, ...] = (_Cipher(secret),)  # the present one first
        self._seen = _stamps(path)

    @property
    def id(self) -> str:
        """Tells the present key from all others, and nothing of it."""
        return self._ciphers[0].id

    def wrap(self, label: str, secret: bytes) -> bytes:
        return self._ciphers[0].wrap(label, secret)

    def unwrap(self, label: str, wrapped: bytes) -> bytes:
        """Raises KeyProblem where neither the present key nor its predecessor had wrapped it."""
        secret = self._unwrap(label, wrapped)
        if secret is None:  # wrapped by a key that came meanwhile?
            self._reload()
            secret = self._unwrap(label, wrapped)
        if secret is None:
            raise MasterKeyError(
                "the master key is not the one this database was written with; restore the right key file"
            )
        return secret

    def rewrap(self, label: str, wrapped: bytes) -> bytes | None:
        """The same key wrapped by the present master key; None if it is already. Raises KeyProblem."""
        if self._ciphers[0].unwrap(label, wrapped) is not None:
            return None
        return self.wrap(label, self.unwrap(label, wrapped))

    def refresh(self) -> None:
        """Notice that the file was replaced, or that the predecessor is gone. Costs two looks at the folder."""
        if _stamps(self._path) != self._seen:
            self._reload()

    def _unwrap(self, label: str, wrapped: bytes) -> bytes | None:
        opened = (cipher.unwrap(label, wrapped) for cipher in self._ciphers)
        return next((secret for secret in opened if secret is not None), None)

    def _reload(self) -> None:
        if self._path is None:
            return
        seen = _stamps(self._path)
        found = [secret for path in (self._path, previous_key_path(self._path)) if (secret := _try_read(path))]
        if found:  # a file that was taken away does not stop who has read it already
            self._ciphers, self._seen = tuple(_Cipher(secret) for secret in found), seen


class _Cipher:
    """One master key."""

    def __init__(self, secret: bytes) -> None:
        self.id = hashlib.sha256(b"smt master key id" + secret).hexdigest()[:16]
        self._cipher = AESGCM(secret)

    def wrap(self, label: str, secret: bytes) -> bytes:
        nonce = os.urandom(NONCE)
        return nonce + self._cipher.encrypt(nonce, secret, associated_data(label, "key"))

    def unwrap(self, label: str, wrapped: bytes) -> bytes | None:
        """None if this is not the key that had wrapped it."""
        try:
            return self._cipher.decrypt(wrapped[:NONCE], wrapped[NONCE:], associated_data(label, "key"))
        except (InvalidTag, ValueError):
            return None


def previous_key_path(path: Path) -> Path:
    """Where the master key that is being replaced waits for its end."""
    return path.with_name(f"{path.name}.previous")


def open_master_key(path: Path, *, create: bool = True) -> MasterKey:
    """Read the master key, made on first use: a file of mode 0600 with 32 random bytes in base64. Raises KeyProblem."""
    try:
        if create and not path.exists():
            _write_new(path)
        return MasterKey(_read(path), path)
    except OSError as error:
        raise MasterKeyError(
            f"cannot {'make or ' if create else ''}read the master key {path}: {error.strerror}"
        ) from error


def new_secret() -> bytes:
    """The text of a key file."""
    return base64.b64encode(os.urandom(32)) + b"\n"


def _read(path: Path) -> bytes:
    """The 32 bytes of a key file. Raises KeyProblem, OSError."""
    text, mode = path.read_bytes(), path.stat().st_mode
    if stat.S_IMODE(mode) & 0o077:
        raise MasterKeyError(f"the master key can be read by others; run: chmod 600 {path}")
    try:
        secret = base64.b64decode(text.strip(), validate=True)
    except ValueError as error:
        raise MasterKeyError(f"{path} is not a master key: 32 bytes in base64 were expected") from error
    if len(secret) != 32:
        raise MasterKeyError(f"{path} is not a master key: 32 bytes in base64 were expected")
    return secret


def _try_read(path: Path) -> bytes | None:
    try:
        return _read(path)
    except (OSError, MasterKeyError):
        return None


def _stamps(path: Path | None) -> list[tuple[int, int] | None]:
    """What changes when one of the two files does."""
    return [] if path is None else [_stamp(path), _stamp(previous_key_path(path))]


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _write_new(path: Path) -> None:
    """Write a new key, one only when two processes start at once."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        if path.exists():
            return
        files.write_atomically(path, new_secret())
    finally:
        os.close(folder)


def associated_data(label: str, column: str) -> bytes:
    """Return what a value is bound to, so that it does not open under another key id or in another column."""
    return f"{label}\0{column}".encode()
