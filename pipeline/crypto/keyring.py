"""Data keys: each key id has one, stored in the database, wrapped by the master key (envelope encryption).

A key id is a subscription's id, else a sale's, else an event's; a person has several. Destroying a key makes everything
that it encrypted unreadable, wherever copies of it are. AES-256-GCM (NIST SP 800-38D); the associated data is the key
id and the column, so a value that was moved to another row or column does not decrypt.
"""

import hmac
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from pipeline.crypto.master_key import NONCE, MasterKey, MasterKeyError, associated_data
from pipeline.db.bulk import in_list, insert_new, texts
from pipeline.db.engine import lock_shared
from pipeline.db.models import EncryptionKey
from pipeline.errors import OperatorError

KEY = EncryptionKey.__table__
WRAPPED = select(KEY.c.key_id, KEY.c.wrapped_key).where(in_list(KEY.c.key_id, texts("key_ids")))
INDEX = "smt:index"  # the label of the key that makes e-mail addresses findable and ids pseudonymous
TOKENS = "smt:tokens"  # the label of the key that signs envelope senders and message ids


class DecryptionError(OperatorError):
    """A sealed value does not open: changed, moved, or its key is not this one."""


@dataclass(frozen=True, slots=True)
class DataKey:
    """The key of one label. `seal` and `open` take the name of the column the value lives in."""

    label: str
    secret: bytes = field(repr=False)
    cipher: AESGCM = field(repr=False)

    def encrypt(self, column: str, plain: bytes) -> bytes:
        nonce = os.urandom(NONCE)
        return nonce + self.cipher.encrypt(nonce, plain, associated_data(self.label, column))

    def decrypt(self, column: str, sealed: bytes) -> bytes:
        try:
            return self.cipher.decrypt(sealed[:NONCE], sealed[NONCE:], associated_data(self.label, column))
        except (InvalidTag, ValueError) as error:  # ValueError: too short for anything we sealed
            raise DecryptionError(f"{column} of {self.label} does not open with its key") from error

    def encrypt_json(self, column: str, value: Any) -> bytes:
        return self.encrypt(column, orjson.dumps(value))

    def decrypt_json(self, column: str, sealed: bytes | None) -> Any:
        """The value that `encrypt_json` sealed; None for None."""
        return None if sealed is None else orjson.loads(self.decrypt(column, sealed))


class Keyring:
    """The keys of labels as one transaction sees them."""

    def __init__(self, master_key: MasterKey, session: Session, now: datetime) -> None:
        master_key.refresh()
        self._master, self._session, self.now = master_key, session, now
        self._seals: dict[str, DataKey | None] = {}

    @property
    def master_id(self) -> str:
        """Which master key is the present one."""
        return self._master.id

    def load(self, labels: Iterable[str], *, create: bool = True) -> Mapping[str, DataKey | None]:
        """The seals of these labels, in one query; made where there was none. None: erased, nothing may be sealed."""
        missing = sorted(set(labels) - self._seals.keys())
        if missing:
            self._load_rows(missing)
            absent = [label for label in missing if label not in self._seals]
            if absent and create:
                self._make(absent)
        return self._seals

    def get(self, label: str) -> DataKey | None:
        """One label's seal; see `fetch`."""
        return self._seals[label] if label in self._seals else self.load([label])[label]

    def system_key(self, label: str) -> DataKey:
        """The seal of one of the machine's own labels, which are never erased."""
        seal = self.get(label)
        if seal is None:
            raise MasterKeyError(f"the key {label} has been erased; restore it from a backup")
        return seal

    def digest(self, label: str, text: str) -> bytes:
        """HMAC-SHA-256 under one of the machine's own keys: findable by us, meaningless to others."""
        return hmac.digest(self.system_key(label).secret, text.encode(), "sha256")

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

    def recreate(self, label: str) -> None:
        """A new key in the place of a tombstone, for somebody who came back; what the old one had sealed stays closed."""
        lock_shared(self._session, EncryptionKey)
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
        return label in self.load([label], create=False) and self._seals[label] is None

    def _load_rows(self, labels: list[str]) -> None:
        for label, wrapped in self._session.connection().execute(WRAPPED, {"key_ids": labels}).all():
            self._seals[label] = None if wrapped is None else self._unwrapped(label, wrapped)

    def _unwrapped(self, label: str, wrapped: bytes) -> DataKey | None:
        try:
            return self._seal(label, self._master.unwrap(label, wrapped))
        except MasterKeyError:  # the master key was replaced between our look at the row and now?
            again = self._session.execute(
                select(EncryptionKey.wrapped_key).where(EncryptionKey.key_id == label)
            ).scalar_one_or_none()
            if again == wrapped:
                raise
        return None if again is None else self._seal(label, self._master.unwrap(label, again))

    def _make(self, labels: list[str]) -> None:
        # Who replaces the master key waits for us from here on, so that ours is not wrapped by the old one.
        lock_shared(self._session, EncryptionKey)
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
            self._load_rows(lost)

    @staticmethod
    def _seal(label: str, secret: bytes) -> DataKey:
        return DataKey(label, secret, AESGCM(secret))
