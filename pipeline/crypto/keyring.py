"""Personal data sits behind a key per label; a label's key is wrapped by the master key, kept outside the database.

A label is a subscription's id, else a sale's, else an event's, and a person owns labels. Whoever destroys a label's key
destroys what was sealed with it, wherever copies of it lie. AES-256-GCM throughout (NIST SP 800-38D), the associated
data bound to label and column, so that a value moved to another row or column does not open.
"""

import base64
import fcntl
import hashlib
import hmac
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from pipeline import files
from pipeline.db.bulk import among, insert_new, texts
from pipeline.db.engine import share
from pipeline.db.models import EncryptionKey

KEY = EncryptionKey.__table__
WRAPPED = select(KEY.c.key_id, KEY.c.wrapped_key).where(among(KEY.c.key_id, texts("key_ids")))
NONCE = 12  # bytes; random, and no label ever seals anywhere near 2**32 values
INDEX = "smt:index"  # the label of the key that makes e-mail addresses findable and ids pseudonymous
TOKENS = "smt:tokens"  # the label of the key that signs envelope senders and message ids


class KeyProblem(Exception):
    """The master key is missing, unreadable, readable by others, or not the one this database was written with."""


class Unsealable(Exception):
    """A sealed value does not open: changed, moved, or its key is not this one."""


@dataclass(frozen=True, slots=True)
class Seal:
    """The key of one label. `seal` and `open` take the name of the column the value lives in."""

    label: str
    secret: bytes = field(repr=False)
    cipher: AESGCM = field(repr=False)

    def seal(self, column: str, plain: bytes) -> bytes:
        nonce = os.urandom(NONCE)
        return nonce + self.cipher.encrypt(nonce, plain, _bound(self.label, column))

    def open(self, column: str, sealed: bytes) -> bytes:
        try:
            return self.cipher.decrypt(sealed[:NONCE], sealed[NONCE:], _bound(self.label, column))
        except (InvalidTag, ValueError) as error:  # ValueError: too short for anything we sealed
            raise Unsealable(f"{column} of {self.label} does not open with its key") from error

    def seal_json(self, column: str, value: Any) -> bytes:
        return self.seal(column, orjson.dumps(value))

    def open_json(self, column: str, sealed: bytes | None) -> Any:
        """The value that `seal_json` sealed; None for None."""
        return None if sealed is None else orjson.loads(self.open(column, sealed))


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
            raise KeyProblem("the master key is not the one this database was written with; restore the right key file")
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
        found = [secret for path in (self._path, predecessor(self._path)) if (secret := _try_read(path))]
        if found:  # a file that was taken away does not stop who has read it already
            self._ciphers, self._seen = tuple(_Cipher(secret) for secret in found), seen


class _Cipher:
    """One master key."""

    def __init__(self, secret: bytes) -> None:
        self.id = hashlib.sha256(b"smt master key id" + secret).hexdigest()[:16]
        self._cipher = AESGCM(secret)

    def wrap(self, label: str, secret: bytes) -> bytes:
        nonce = os.urandom(NONCE)
        return nonce + self._cipher.encrypt(nonce, secret, _bound(label, "key"))

    def unwrap(self, label: str, wrapped: bytes) -> bytes | None:
        """None if this is not the key that had wrapped it."""
        try:
            return self._cipher.decrypt(wrapped[:NONCE], wrapped[NONCE:], _bound(label, "key"))
        except (InvalidTag, ValueError):
            return None


def predecessor(path: Path) -> Path:
    """Where the master key that is being replaced waits for its end."""
    return path.with_name(f"{path.name}.previous")


def open_master_key(path: Path, *, create: bool = True) -> MasterKey:
    """Read the master key, made on first use: a file of mode 0600 with 32 random bytes in base64. Raises KeyProblem."""
    try:
        if create and not path.exists():
            _write_new(path)
        return MasterKey(_read(path), path)
    except OSError as error:
        raise KeyProblem(
            f"cannot {'make or ' if create else ''}read the master key {path}: {error.strerror}"
        ) from error


def new_secret() -> bytes:
    """The text of a key file."""
    return base64.b64encode(os.urandom(32)) + b"\n"


def _read(path: Path) -> bytes:
    """The 32 bytes of a key file. Raises KeyProblem, OSError."""
    text, mode = path.read_bytes(), path.stat().st_mode
    if stat.S_IMODE(mode) & 0o077:
        raise KeyProblem(f"the master key can be read by others; run: chmod 600 {path}")
    try:
        secret = base64.b64decode(text.strip(), validate=True)
    except ValueError as error:
        raise KeyProblem(f"{path} is not a master key: 32 bytes in base64 were expected") from error
    if len(secret) != 32:
        raise KeyProblem(f"{path} is not a master key: 32 bytes in base64 were expected")
    return secret


def _try_read(path: Path) -> bytes | None:
    try:
        return _read(path)
    except (OSError, KeyProblem):
        return None


def _stamps(path: Path | None) -> list[tuple[int, int] | None]:
    """What changes when one of the two files does."""
    return [] if path is None else [_stamp(path), _stamp(predecessor(path))]


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
        files.write(path, new_secret())
    finally:
        os.close(folder)


class Keyring:
    """The keys of labels as one transaction sees them."""

    def __init__(self, master: MasterKey, session: Session, now: datetime) -> None:
        master.refresh()
        self._master, self._session, self.now = master, session, now
        self._seals: dict[str, Seal | None] = {}

    @property
    def master_id(self) -> str:
        """Which master key is the present one."""
        return self._master.id

    def fetch(self, labels: Iterable[str], *, create: bool = True) -> Mapping[str, Seal | None]:
        """The seals of these labels, in one query; made where there was none. None: erased, nothing may be sealed."""
        missing = sorted(set(labels) - self._seals.keys())
        if missing:
            self._load(missing)
            absent = [label for label in missing if label not in self._seals]
            if absent and create:
                self._make(absent)
        return self._seals

    def get(self, label: str) -> Seal | None:
        """One label's seal; see `fetch`."""
        return self._seals[label] if label in self._seals else self.fetch([label])[label]

    def own(self, label: str) -> Seal:
        """The seal of one of the machine's own labels, which are never erased."""
        seal = self.get(label)
        if seal is None:
            raise KeyProblem(f"the key {label} has been erased; restore it from a backup")
        return seal

    def digest(self, label: str, text: str) -> bytes:
        """HMAC-SHA-256 under one of the machine's own keys: findable by us, meaningless to others."""
        return hmac.digest(self.own(label).secret, text.encode(), "sha256")

    def email_hash(self, email: str) -> bytes:
        """What an address is found by, however it is written: a keyed hash, meaningless without our key."""
        return self.digest(INDEX, f"email:{email.strip().lower()}")

    def destroy(self, labels: Iterable[str]) -> int:
        """Destroy the keys of these labels; a tombstone for each, so that none is made again. How many were alive."""
        names = sorted(set(labels))
        blanks = [
            {"key_id": name, "wrapped_key": None, "created_at": self.now, "erased_at": self.now} for name in names
        ]
        insert_new(self._session, EncryptionKey, blanks, returning=EncryptionKey.key_id)
        result = self._session.execute(
            update(EncryptionKey)
            .where(EncryptionKey.key_id.in_(names), EncryptionKey.wrapped_key.is_not(None))
            .values(wrapped_key=None, erased_at=self.now)
            .returning(EncryptionKey.key_id)
            .execution_options(synchronize_session=False)
        )
        self._seals.update(dict.fromkeys(names))
        return len(result.all())

    def revive(self, label: str) -> None:
        """A new key in the place of a tombstone, for somebody who came back; what the old one had sealed stays closed."""
        share(self._session, EncryptionKey)
        self._master.refresh()
        secret = os.urandom(32)
        self._session.execute(
            update(EncryptionKey)
            .where(EncryptionKey.key_id == label, EncryptionKey.wrapped_key.is_(None))
            .values(wrapped_key=self._master.wrap(label, secret), created_at=self.now, erased_at=None)
            .execution_options(synchronize_session=False)
        )
        self._seals.pop(label, None)

    def is_erased(self, label: str) -> bool:
        """Whether this label's key was destroyed; one that never was is not."""
        return label in self.fetch([label], create=False) and self._seals[label] is None

    def _load(self, labels: list[str]) -> None:
        for label, wrapped in self._session.connection().execute(WRAPPED, {"key_ids": labels}).all():
            self._seals[label] = None if wrapped is None else self._unwrapped(label, wrapped)

    def _unwrapped(self, label: str, wrapped: bytes) -> Seal | None:
        try:
            return self._seal(label, self._master.unwrap(label, wrapped))
        except KeyProblem:  # the master key was replaced between our look at the row and now?
            again = self._session.execute(
                select(EncryptionKey.wrapped_key).where(EncryptionKey.key_id == label)
            ).scalar_one_or_none()
            if again == wrapped:
                raise
        return None if again is None else self._seal(label, self._master.unwrap(label, again))

    def _make(self, labels: list[str]) -> None:
        # Who replaces the master key waits for us from here on, so that ours is not wrapped by the old one.
        share(self._session, EncryptionKey)
        self._master.refresh()
        secrets = {label: os.urandom(32) for label in labels}
        rows = [
            {"key_id": label, "wrapped_key": self._master.wrap(label, secret), "created_at": self.now}
            for label, secret in secrets.items()
        ]
        made = set(insert_new(self._session, EncryptionKey, rows, returning=EncryptionKey.key_id))
        self._seals.update({label: self._seal(label, secrets[label]) for label in made})
        lost = [label for label in labels if label not in made]
        if lost:  # another process made them first: theirs count
            self._load(lost)

    @staticmethod
    def _seal(label: str, secret: bytes) -> Seal:
        return Seal(label, secret, AESGCM(secret))


def _bound(label: str, column: str) -> bytes:
    return f"{label}\0{column}".encode()
