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
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import select
from sqlalchemy.orm import Session

from pipeline.rows import among, insert_new
from pipeline.tables import Key

KEY = Key.__table__
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
    """Wraps and unwraps the keys of labels."""

    def __init__(self, secret: bytes) -> None:
        self.id = hashlib.sha256(b"smt master key id" + secret).hexdigest()[:16]
        self._cipher = AESGCM(secret)

    def wrap(self, label: str, secret: bytes) -> bytes:
        nonce = os.urandom(NONCE)
        return nonce + self._cipher.encrypt(nonce, secret, _bound(label, "key"))

    def unwrap(self, label: str, wrapped: bytes) -> bytes:
        try:
            return self._cipher.decrypt(wrapped[:NONCE], wrapped[NONCE:], _bound(label, "key"))
        except (InvalidTag, ValueError) as error:
            raise KeyProblem(
                "the master key is not the one this database was written with; restore the right key file"
            ) from error


def open_master_key(path: Path, *, create: bool = True) -> MasterKey:
    """Read the master key, made on first use: a file of mode 0600 with 32 random bytes in base64. Raises KeyProblem."""
    try:
        if create and not path.exists():
            _write_new(path)
        text, mode = path.read_bytes(), path.stat().st_mode
    except OSError as error:
        raise KeyProblem(
            f"cannot {'make or ' if create else ''}read the master key {path}: {error.strerror}"
        ) from error
    # Container engines mount secrets world-readable and read-only, inside a file system nobody else can see.
    if stat.S_IMODE(mode) & 0o077 and not path.is_relative_to("/run/secrets"):
        raise KeyProblem(f"the master key can be read by others; run: chmod 600 {path}")
    try:
        secret = base64.b64decode(text.strip(), validate=True)
    except ValueError as error:
        raise KeyProblem(f"{path} is not a master key: 32 bytes in base64 were expected") from error
    if len(secret) != 32:
        raise KeyProblem(f"{path} is not a master key: 32 bytes in base64 were expected")
    return MasterKey(secret)


def _write_new(path: Path) -> None:
    """Write a new key so that it is there whole or not at all, also when two processes start at once."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        if path.exists():
            return
        descriptor, draft = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)  # made with 0600
        with os.fdopen(descriptor, "wb") as file:
            file.write(base64.b64encode(os.urandom(32)) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        Path(draft).rename(path)  # a second name, by link, could outlive the key when it is destroyed
        os.fsync(folder)
    finally:
        os.close(folder)


class Keyring:
    """The keys of labels as one transaction sees them."""

    def __init__(self, master: MasterKey, session: Session, now: datetime) -> None:
        self._master, self._session, self._now = master, session, now
        self._seals: dict[str, Seal | None] = {}

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

    def _load(self, labels: list[str]) -> None:
        statement = select(KEY.c.label, KEY.c.wrapped).where(among(KEY.c.label, labels))
        for label, wrapped in self._session.connection().execute(statement).all():
            self._seals[label] = None if wrapped is None else self._seal(label, self._master.unwrap(label, wrapped))

    def _make(self, labels: list[str]) -> None:
        secrets = {label: os.urandom(32) for label in labels}
        rows = [
            {"label": label, "wrapped": self._master.wrap(label, secret), "created_at": self._now}
            for label, secret in secrets.items()
        ]
        made = set(insert_new(self._session, Key, rows, returning=Key.label))
        self._seals.update({label: self._seal(label, secrets[label]) for label in made})
        lost = [label for label in labels if label not in made]
        if lost:  # another process made them first: theirs count
            self._load(lost)

    @staticmethod
    def _seal(label: str, secret: bytes) -> Seal:
        return Seal(label, secret, AESGCM(secret))


def _bound(label: str, column: str) -> bytes:
    return f"{label}\0{column}".encode()
