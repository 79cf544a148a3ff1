"""Data keys: one per key id, stored in the database and encrypted ("wrapped") with the master key.

A key id names a customer, subscription, sale, event or message (see `crypto.key_ids`); a person has several. Destroying
a key makes all values that it encrypted unreadable, including every copy. The cipher is AES-256-GCM (NIST SP 800-38D).
The associated data is the key id and the column, so a value that was moved to another row or column cannot be decrypted.
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

from pipeline.crypto.key_ids import require_destroyable
from pipeline.crypto.master_key import NONCE, MasterKey, MasterKeyError, associated_data
from pipeline.db.bulk import in_list, insert_new, texts
from pipeline.db.engine import lock_shared
from pipeline.db.models import EncryptionKey
from pipeline.email_address import fold_address
from pipeline.errors import OperatorError

KEY = EncryptionKey.__table__
WRAPPED = select(KEY.c.key_id, KEY.c.wrapped_key).where(in_list(KEY.c.key_id, texts("key_ids")))
INDEX = "smt:index"  # key id of the key for keyed hashes: e-mail look-up and pseudonymous ids
TOKENS = "smt:tokens"  # key id of the key that signs envelope senders and message ids


class DecryptionError(OperatorError):
    """A value cannot be decrypted: it was changed or moved, or another key encrypted it."""


@dataclass(frozen=True, slots=True)
class DataKey:
    """The key of one key id. `column` is the name of the column that stores the value, as `table.column`."""

    key_id: str
    secret: bytes = field(repr=False)
    cipher: AESGCM = field(repr=False)

    def encrypt(self, column: str, plain: bytes) -> bytes:
        nonce = os.urandom(NONCE)
        return nonce + self.cipher.encrypt(nonce, plain, associated_data(self.key_id, column))

    def decrypt(self, column: str, encrypted: bytes) -> bytes:
        try:
            return self.cipher.decrypt(encrypted[:NONCE], encrypted[NONCE:], associated_data(self.key_id, column))
        except (InvalidTag, ValueError) as error:  # ValueError: too short for an encrypted value
            raise DecryptionError(f"{column} of {self.key_id} cannot be decrypted with its key") from error

    def encrypt_json(self, column: str, value: Any) -> bytes:
        return self.encrypt(column, orjson.dumps(value))

    def decrypt_json(self, column: str, encrypted: bytes | None) -> Any:
        """Return the value that was passed to `encrypt_json`, or None for None."""
        return None if encrypted is None else orjson.loads(self.decrypt(column, encrypted))


class Keyring:
    """The data keys as one transaction sees them. Keys are loaded or created when they are needed."""

    def __init__(self, master_key: MasterKey, session: Session, now: datetime) -> None:
        master_key.refresh()
        self._master, self._session, self.now = master_key, session, now
        self._keys: dict[str, DataKey | None] = {}

    @property
    def master_id(self) -> str:
        """The id of the current master key."""
        return self._master.id

    def load(self, key_ids: Iterable[str], *, create: bool = True) -> Mapping[str, DataKey | None]:
        """Load the data keys of these key ids in one query, and create missing ones. None: the key was destroyed."""
        missing = sorted(set(key_ids) - self._keys.keys())
        if missing:
            self._load_rows(missing)
            absent = [key_id for key_id in missing if key_id not in self._keys]
            if absent and create:
                self._create(absent)
        return self._keys

    def get(self, key_id: str) -> DataKey | None:
        """Return the data key of one key id, as `load` does."""
        return self._keys[key_id] if key_id in self._keys else self.load([key_id])[key_id]

    def system_key(self, key_id: str) -> DataKey:
        """Return a data key that may never be erased, for example `INDEX`. Raises MasterKeyError if it was erased."""
        key = self.get(key_id)
        if key is None:
            raise MasterKeyError(f"the key {key_id} has been erased; restore it from a backup")
        return key

    def digest(self, key_id: str, text: str) -> bytes:
        """Return the HMAC-SHA-256 of a text under a system key. Without the key it reveals nothing about the text."""
        return hmac.digest(self.system_key(key_id).secret, text.encode(), "sha256")

    def email_hash(self, email: str) -> bytes:
        """Return the keyed hash by which an address is found. Case (of ASCII letters) and surrounding spaces do not matter.

        Other letters stay as they are: some become ASCII letters in lower case, and would make two mailboxes equal.
        """
        return self.digest(INDEX, f"email:{fold_address(email)}")

    def destroy(self, key_ids: Iterable[str]) -> int:
        """Destroy the keys of these key ids. Return how many existed.

        A tombstone is stored for each key id, so that no new key is created for it. Raises ProtectedKeyError.
        """
        names = sorted(set(key_ids))
        require_destroyable(names)
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
        self._keys.update(dict.fromkeys(names))
        return len(result.all())

    def recreate(self, key_id: str) -> None:
        """Replace a tombstone by a new key, for a customer who came back. Values of the old key stay unreadable."""
        lock_shared(self._session, EncryptionKey)
        self._master.refresh()
        secret = os.urandom(32)
        self._session.execute(
            update(EncryptionKey)
            .where(EncryptionKey.key_id == key_id, EncryptionKey.wrapped_key.is_(None))
            .values(wrapped_key=self._master.wrap(key_id, secret), created_at=self.now, erased_at=None)
            .execution_options(synchronize_session=False)
        )
        self._keys.pop(key_id, None)

    def is_erased(self, key_id: str) -> bool:
        """Return whether the key was destroyed. A key that never existed is not."""
        return key_id in self.load([key_id], create=False) and self._keys[key_id] is None

    def _load_rows(self, key_ids: list[str]) -> None:
        for key_id, wrapped in self._session.connection().execute(WRAPPED, {"key_ids": key_ids}).all():
            self._keys[key_id] = None if wrapped is None else self._unwrap(key_id, wrapped)

    def _unwrap(self, key_id: str, wrapped: bytes) -> DataKey | None:
        try:
            return self._data_key(key_id, self._master.unwrap(key_id, wrapped))
        except MasterKeyError:  # was the master key replaced after the row was read?
            reread = self._session.execute(
                select(EncryptionKey.wrapped_key).where(EncryptionKey.key_id == key_id)
            ).scalar_one_or_none()
            if reread == wrapped:
                raise
        return None if reread is None else self._data_key(key_id, self._master.unwrap(key_id, reread))

    def _create(self, key_ids: list[str]) -> None:
        # From here on a rotation of the master key waits for this transaction. So the new keys are not wrapped with the old one.
        lock_shared(self._session, EncryptionKey)
        self._master.refresh()
        secrets = {key_id: os.urandom(32) for key_id in key_ids}
        rows = [
            {"key_id": key_id, "wrapped_key": self._master.wrap(key_id, secret), "created_at": self.now}
            for key_id, secret in secrets.items()
        ]
        created = set(insert_new(self._session, EncryptionKey, rows, returning=EncryptionKey.key_id))
        self._keys.update({key_id: self._data_key(key_id, secrets[key_id]) for key_id in created})
        others = [key_id for key_id in key_ids if key_id not in created]
        if others:  # another process created them first, so its keys are used
            self._load_rows(others)

    @staticmethod
    def _data_key(key_id: str, secret: bytes) -> DataKey:
        return DataKey(key_id, secret, AESGCM(secret))
