"""The master key: a file outside the database that encrypts ("wraps") the data keys.

The cipher is AES-256-GCM (NIST SP 800-38D). `rotation` replaces the master key.
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

NONCE = 12  # bytes; random, because no key encrypts close to 2**32 values


class MasterKeyError(UsageError):
    """The master key is missing, unreadable, readable by other accounts, or not the one of this database."""


class MasterKey:
    """Wraps and unwraps data keys.

    If the key is stored in a file, a replacement of that file is noticed. The current key wraps. Both the current key and
    its predecessor unwrap, while the predecessor's file exists. See `rotation`.
    """

    def __init__(self, secret: bytes, path: Path | None = None) -> None:
        self._path = path
        self._ciphers: tuple[_Cipher, ...] = (_Cipher(secret),)  # the current one first
        self._seen = _stamps(path)

    @property
    def id(self) -> str:
        """An id of the current key that reveals nothing about the key."""
        return self._ciphers[0].id

    def wrap(self, key_id: str, secret: bytes) -> bytes:
        return self._ciphers[0].wrap(key_id, secret)

    def unwrap(self, key_id: str, wrapped: bytes) -> bytes:
        """Unwrap a data key. Raises MasterKeyError if neither the current key nor its predecessor wrapped it."""
        secret = self._unwrap(key_id, wrapped)
        if secret is None:  # perhaps wrapped with a newer master key
            self._reload()
            secret = self._unwrap(key_id, wrapped)
        if secret is None:
            raise MasterKeyError("the master key does not belong to this database; restore the right key file")
        return secret

    def rewrap(self, key_id: str, wrapped: bytes) -> bytes | None:
        """Return the data key wrapped with the current master key, or None if it already is. Raises MasterKeyError."""
        if self._ciphers[0].unwrap(key_id, wrapped) is not None:
            return None
        return self.wrap(key_id, self.unwrap(key_id, wrapped))

    def refresh(self) -> None:
        """Reload the key if its file was replaced or its predecessor's file was removed. Costs two `stat` calls."""
        if _stamps(self._path) != self._seen:
            self._reload()

    def _unwrap(self, key_id: str, wrapped: bytes) -> bytes | None:
        secrets = (cipher.unwrap(key_id, wrapped) for cipher in self._ciphers)
        return next((secret for secret in secrets if secret is not None), None)

    def _reload(self) -> None:
        if self._path is None:
            return
        seen = _stamps(self._path)
        found = [secret for path in (self._path, previous_key_path(self._path)) if (secret := _try_read(path))]
        if found:  # if the files were removed, the loaded keys stay in use
            self._ciphers, self._seen = tuple(_Cipher(secret) for secret in found), seen


class _Cipher:
    """One master key."""

    def __init__(self, secret: bytes) -> None:
        self.id = hashlib.sha256(b"smt master key id" + secret).hexdigest()[:16]
        self._cipher = AESGCM(secret)

    def wrap(self, key_id: str, secret: bytes) -> bytes:
        nonce = os.urandom(NONCE)
        return nonce + self._cipher.encrypt(nonce, secret, associated_data(key_id, "key"))

    def unwrap(self, key_id: str, wrapped: bytes) -> bytes | None:
        """Unwrap a data key. Return None if another master key wrapped it."""
        try:
            return self._cipher.decrypt(wrapped[:NONCE], wrapped[NONCE:], associated_data(key_id, "key"))
        except (InvalidTag, ValueError):
            return None


def previous_key_path(path: Path) -> Path:
    """Return the path of the previous master key, which exists during a rotation."""
    return path.with_name(f"{path.name}.previous")


def open_master_key(path: Path, *, create: bool = True) -> MasterKey:
    """Read the master key; with `create`, create it if it is missing. Raises MasterKeyError.

    The file has mode 0600 and contains 32 random bytes in base64.
    """
    try:
        if create and not path.exists():
            _write_new(path)
        return MasterKey(_read(path), path)
    except OSError as error:
        raise MasterKeyError(
            f"cannot {'create or ' if create else ''}read the master key {path}: {error.strerror}"
        ) from error


def new_secret() -> bytes:
    """Return the content of a new key file."""
    return base64.b64encode(os.urandom(32)) + b"\n"


def _read(path: Path) -> bytes:
    """Return the 32 bytes of a key file. Raises MasterKeyError and OSError."""
    text, mode = path.read_bytes(), path.stat().st_mode
    if stat.S_IMODE(mode) & 0o077:
        raise MasterKeyError(f"the master key is readable by other accounts; run: chmod 600 {path}")
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
    """Return inode and modification time of both key files, to detect a change."""
    return [] if path is None else [_stamp(path), _stamp(previous_key_path(path))]


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _write_new(path: Path) -> None:
    """Write a new key file. If two processes start at the same time, only one writes it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        if path.exists():
            return
        files.write_atomically(path, new_secret())
    finally:
        os.close(folder)


def associated_data(key_id: str, column: str) -> bytes:
    """Return the associated data of a value, so that it cannot be decrypted under another key id or column."""
    return f"{key_id}\0{column}".encode()
