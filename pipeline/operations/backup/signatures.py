"""Signatures of backup files: encryption alone proves nothing, because everyone who knows the recipient can encrypt.

    20260301T100000Z.keys.age        a file of a backup
    20260301T100000Z.keys.age.sig    its signature (Ed25519): JSON with statement, signature and signer

The statement names the file, its SHA-256, the time, and the head of the audit log at that time. The signature is made
with the signing key of the installation, which is in the database. A restore gets the public key from the operator.
"""

import base64
import binascii
import contextlib
import hashlib
import io
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import orjson

from pipeline.clock import format_time, parse_time
from pipeline.crypto.keyring import Keyring
from pipeline.crypto.master_key import open_master_key
from pipeline.crypto.signing import PublicKey, Signer, decode_public, encode_public, is_signed
from pipeline.db.engine import Database
from pipeline.operations.backup.database_dump import BackupError
from pipeline.privacy import audit_log

ENDING = ".sig"
CHUNK = 1024 * 1024  # bytes of a backup in memory at a time
_DOMAIN = b"smt-billing backup\n"  # no other text that the key signs begins with it


@dataclass(frozen=True, slots=True)
class BackupSigner:
    """Signs the files of one backup."""

    signer: Signer
    now: datetime
    audit_head: str

    @classmethod
    def open(cls, database: Database, master_key: Path, now: datetime) -> "BackupSigner":
        """Load the signing key of the installation. Raises MasterKeyError and DatabaseUnavailableError."""
        with database.transaction() as session:  # the first use creates the key
            signer = Signer(Keyring(open_master_key(master_key, create=False), session, now))
            return cls(signer, now, audit_log.chain_head(session))

    @property
    def public(self) -> PublicKey:
        return self.signer.public

    def sign_file(self, name: str, sha256: str) -> bytes:
        """Return the content of the signature of the file with this name and SHA-256 in hexadecimal."""
        fields = {"file": name, "sha256": sha256, "at": format_time(self.now), "audit_head": self.audit_head}
        statement = orjson.dumps(fields)
        return orjson.dumps({
            "statement": statement.decode(), "signature": self.sign(statement), "signer": encode_public(self.public),
        })  # fmt: skip

    def sign(self, statement: bytes) -> str:
        """Return the signature of a statement in base64."""
        return base64.b64encode(self.signer.sign(_DOMAIN + statement)).decode()


class HashingWriter(io.RawIOBase):
    """Writes to a file and computes the SHA-256 of what it writes."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._digest = file, hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._digest.update(data)
        return self._file.write(data)

    @property
    def sha256(self) -> str:
        """The hash of everything written until now, in hexadecimal."""
        return self._digest.hexdigest()


def signature_of(file: Path) -> Path:
    """Return the path of the signature of this file."""
    return file.with_name(file.name + ENDING)


def read_signer(text: str) -> PublicKey:
    """Parse a public key as `backup signer` prints it. Raises BackupError."""
    try:
        return decode_public(text)
    except ValueError:
        raise BackupError(f"{text[:60]} is not the key that `smt-billing backup signer` prints") from None


@contextlib.contextmanager
def open_signed(file: Path, public: PublicKey, scratch: Path) -> Iterator[IO[bytes]]:
    """Yield a private copy of this file, after a check that this key signed exactly these bytes under this name.

    The file is read once, because others may be able to replace it between a check and its use. The copy has no name, is
    stored in the folder `scratch` and is deleted at the end. Raises BackupError.
    """
    with tempfile.TemporaryFile(dir=scratch) as copy:
        _require_signed(file, public, _copy(file, copy))
        copy.seek(0)
        yield copy


def _copy(file: Path, copy: IO[bytes]) -> str:
    """Copy the file and return its SHA-256 in hexadecimal."""
    digest = hashlib.sha256()
    with file.open("rb") as reader:
        while chunk := reader.read(CHUNK):
            digest.update(chunk)
            copy.write(chunk)
    return digest.hexdigest()


def _require_signed(file: Path, public: PublicKey, sha256: str) -> None:
    """Raise BackupError unless this key signed this name and this SHA-256."""
    try:
        statement = _statement(signature_of(file).read_bytes(), public)
    except FileNotFoundError:
        raise BackupError(
            f"{file.name} has no signature: {file.name}{ENDING} is missing; copy it from where you keep backups"
        ) from None
    if statement is None:
        raise BackupError(f"{file.name} is not signed with the given key (--signer); use a copy from another place")
    if statement["file"] != file.name:
        raise BackupError(f"{file.name} was renamed: it was created as {statement['file']}")
    if statement["sha256"] != sha256:
        raise BackupError(
            f"{file.name} was changed or is damaged: it is not the file that was signed; use another copy"
        )


def is_statement_signed(statement: bytes, signature: Any, public: PublicKey) -> bool:
    """Return whether this key made this signature, in base64, of the statement."""
    try:
        return is_signed(public, _DOMAIN + statement, base64.b64decode(signature, validate=True))
    except (TypeError, binascii.Error):
        return False


def audit_anchors(folder: Path, public: PublicKey) -> Iterator[audit_log.Anchor]:
    """Yield the heads of the audit log in the folder's signatures. Skip signatures that are not made with this key."""
    for path in sorted(folder.glob(f"*{ENDING}")):
        statement = _statement(path.read_bytes(), public)
        at = statement and parse_time(statement["at"])
        if statement and at:
            yield audit_log.Anchor(at, statement["audit_head"], path.name)


def _statement(content: bytes, public: PublicKey) -> dict[str, str] | None:
    """Return the statement of a signature file, None if this key did not sign it."""
    try:
        found = orjson.loads(content)
        statement = str(found["statement"]).encode()
        if not is_statement_signed(statement, found["signature"], public):
            return None
        fields: dict[str, str] = orjson.loads(statement)
    except (ValueError, KeyError, TypeError):
        return None
    return fields
