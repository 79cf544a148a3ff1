"""Build and verify the export of one customer: a signed ZIP file.

    index.html         readable page without scripts and external resources
    data.json          the same data for programs; export.schema.json describes it, with a version number
    mails/, letters/   every sent mail and every inbound message as transmitted (RFC 5322)
    product/           the product's own export, if a product is configured
    SHA256SUMS         checksums of all files above
    manifest.json      the same checksums, with schema version and time
    manifest.sig       Ed25519 signature of manifest.json
    public-key.pem     public key of that signature

`openssl pkeyutl -verify -pubin -inkey public-key.pem -rawin -in manifest.json -sigfile manifest.sig` verifies the
manifest, and `sha256sum -c SHA256SUMS` the files.
"""

import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import IO

import orjson

from pipeline.clock import format_time
from pipeline.crypto.keyring import Keyring
from pipeline.crypto.master_key import MasterKey
from pipeline.crypto.signing import Signer, is_signed
from pipeline.customers import accounts
from pipeline.customers.product_hook import ProductHook
from pipeline.db.engine import Database
from pipeline.privacy.export import page
from pipeline.privacy.export.gather import gather
from pipeline.privacy.export.page import ExportIssuer
from pipeline.privacy.export.spool import Spool

SCHEMA = "smt-billing/person/1"
PROOF = ("SHA256SUMS", "manifest.json", "manifest.sig", "public-key.pem")  # files that are added to the exported files


class InvalidExportError(Exception):
    """The export was changed, or was not made by this installation. The message says what is wrong."""


def build_export(
    database: Database,
    master_key: MasterKey,
    now: datetime,
    customer_id: str,
    *,
    issuer: ExportIssuer,
    product: ProductHook,
    folder: Path,
) -> Spool:
    """Return the ZIP in a temporary file in `folder`, which the caller closes. The product is called outside any transaction.

    Raises CustomerNotFoundError, ProductUnavailableError, DatabaseUnavailableError and OSError.
    """
    files = _product_files(product, _product_customers(database, master_key, now, customer_id))
    spool = Spool(folder)
    try:
        _write_archive(spool, database, master_key, now, customer_id, issuer, files)
    except BaseException:
        spool.close()
        raise
    return spool


def _write_archive(
    spool: Spool,
    database: Database,
    master_key: MasterKey,
    now: datetime,
    customer_id: str,
    issuer: ExportIssuer,
    files: Mapping[str, bytes],
) -> None:
    with closing(_Archive(spool, now)) as archive:
        for name, answer in files.items():
            archive.add(name, answer)
        with database.transaction() as session:  # not read-only: the signing key is created at its first use
            keyring = Keyring(master_key, session, now)
            data = gather(session, keyring, customer_id, archive.add)
            signer = Signer(keyring)
        document = {
            "schema": SCHEMA,
            "exported_at": format_time(now),
            "issuer": issuer.name,
            "processing": issuer.processing,
            **data,
        }
        archive.add("data.json", orjson.dumps(document, option=orjson.OPT_INDENT_2))
        archive.add("index.html", page.write(document, sorted(archive.sums), issuer).encode())
        archive.finish(_manifest(archive.sums, customer_id, now), signer)


def verify_export(data: IO[bytes], signer: Signer) -> Mapping[str, str]:
    """Return the checksums of the files, by name, if the export is unchanged. Raises InvalidExportError."""
    try:
        with zipfile.ZipFile(data) as opened:
            manifest, signature = opened.read("manifest.json"), opened.read("manifest.sig")
            if not is_signed(signer.public, manifest, signature):
                raise InvalidExportError("the manifest is not signed by this installation")
            files: dict[str, str] = orjson.loads(manifest)["files"]
            present = opened.namelist()
            wrong = [name for name, digest in files.items() if name in present and _sha256(opened.read(name)) != digest]
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise InvalidExportError(f"this is not a valid export: {error}") from error
    _require_none("changed", wrong)
    _require_none("missing", [name for name in files if name not in present])
    _require_none("added", [name for name in present if name not in (*files, *PROOF) or present.count(name) > 1])
    return files


def _require_none(problem: str, names: Sequence[str]) -> None:
    if names:
        raise InvalidExportError(f"files {problem}: {', '.join(sorted(set(names)))}")


def _product_customers(
    database: Database, master_key: MasterKey, now: datetime, customer_id: str
) -> list[dict[str, str]]:
    with database.reading() as session:
        return accounts.product_customers(session, Keyring(master_key, session, now), customer_id)


def _product_files(product: ProductHook, people: Sequence[Mapping[str, str]]) -> dict[str, bytes]:
    """Return the product's answers, one per `custom_id` of the customer."""
    answers = [product.call("export", person) for person in people] if product.is_configured else []
    return {
        f"product/export{f'-{number}' if number > 1 else ''}.{_suffix(answer)}": answer
        for number, answer in enumerate(answers, 1)
        if answer
    }


def _suffix(answer: bytes) -> str:
    return "zip" if answer[:4] == b"PK\x03\x04" else "json" if answer[:1] in b"{[" else "bin"


class _Archive:
    """The ZIP file. A file is compressed and written when it is added, so only one is in memory."""

    def __init__(self, spool: Spool, now: datetime) -> None:
        self._now = now
        self._zip = zipfile.ZipFile(spool, "w", zipfile.ZIP_DEFLATED)
        self.sums: dict[str, str] = {}  # name -> SHA-256

    def add(self, name: str, data: bytes) -> None:
        """Add a file, and record its checksum."""
        self.sums[name] = _sha256(data)
        self._write(name, data)

    def finish(self, manifest: bytes, signer: Signer) -> None:
        """Add the checksums and the signed manifest, and end the ZIP."""
        sums = "".join(f"{digest}  {name}\n" for name, digest in sorted(self.sums.items()))
        proof = (sums.encode(), manifest, signer.sign(manifest), signer.public_pem)
        for name, data in zip(PROOF, proof, strict=True):
            self._write(name, data)
        self.close()

    def close(self) -> None:
        """End the ZIP file. May be called twice."""
        self._zip.close()

    def _write(self, name: str, data: bytes) -> None:
        entry = zipfile.ZipInfo(name, self._now.timetuple()[:6])
        entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o600 << 16
        self._zip.writestr(entry, data)


def _manifest(sums: Mapping[str, str], customer_id: str, now: datetime) -> bytes:
    return orjson.dumps(
        {
            "schema": SCHEMA,
            "customer": customer_id,
            "exported_at": format_time(now),
            "files": dict(sorted(sums.items())),
        },
        option=orjson.OPT_INDENT_2,
    )


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
