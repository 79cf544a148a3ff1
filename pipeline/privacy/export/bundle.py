"""Everything we hold about one person, as one ZIP that is made to be read and checked.

    index.html         for people: no script, nothing loaded from elsewhere
    data.json          for programs; its shape is export.schema.json, and is numbered
    mails/, letters/   every mail we sent them and they sent us, as it went (RFC 5322)
    product/           what the product itself exports, where it is asked
    SHA256SUMS         of all of these
    manifest.json      the same, with the schema's number and the day; manifest.sig is our Ed25519 signature of it
    public-key.pem     whom to check that signature with

`openssl pkeyutl -verify -pubin -inkey public-key.pem -rawin -in manifest.json -sigfile manifest.sig` checks it, and
`sha256sum -c SHA256SUMS` the rest.
"""

import hashlib
import io
import zipfile
from collections.abc import Mapping, Sequence
from datetime import datetime

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

SCHEMA = "smt-billing/person/1"
PROOF = ("SHA256SUMS", "manifest.json", "manifest.sig", "public-key.pem")  # what a bundle holds beside its files


class InvalidExportError(Exception):
    """A bundle is not as we made it. The message says what is wrong with it."""


def build_export(
    database: Database,
    master_key: MasterKey,
    now: datetime,
    customer_id: str,
    *,
    issuer: ExportIssuer,
    product: ProductHook,
) -> bytes:
    """The ZIP. The product is asked outside any transaction. Raises NoSuchCustomer, ProductDown and StoreDown."""
    files = _product_files(product, _person(database, master_key, now, customer_id))
    with database.transaction() as session:  # a transaction: the signing key is made at its first use
        keyring = Keyring(master_key, session, now)
        found = gather(session, keyring, customer_id)
        signer = Signer(keyring)
    document = {"schema": SCHEMA, "exported_at": format_time(now), "issuer": issuer.name, **found.data}
    files |= found.files | {"data.json": orjson.dumps(document, option=orjson.OPT_INDENT_2)}
    files["index.html"] = page.write(document, sorted(files), issuer).encode()
    return _zip(files, _manifest(files, customer_id, now), signer, now)


def verify_export(data: bytes, signer: Signer) -> Mapping[str, str]:
    """The files of a bundle and their checksums, if we made it and nothing was changed. Raises NotOurs."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as opened:
            manifest, signature = opened.read("manifest.json"), opened.read("manifest.sig")
            if not is_signed(signer.public, manifest, signature):
                raise InvalidExportError("its manifest is not signed by this installation")
            files: dict[str, str] = orjson.loads(manifest)["files"]
            there = opened.namelist()
            wrong = [name for name, digest in files.items() if name in there and _sha256(opened.read(name)) != digest]
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise InvalidExportError(f"it is no bundle of ours: {error}") from error
    _judge("changed since it was made", wrong)
    _judge("missing from it", [name for name in files if name not in there])
    _judge("put in by somebody else", [name for name in there if name not in (*files, *PROOF) or there.count(name) > 1])
    return files


def _judge(what: str, names: Sequence[str]) -> None:
    if names:
        raise InvalidExportError(f"{what}: {', '.join(sorted(set(names)))}")


def _person(database: Database, master_key: MasterKey, now: datetime, customer_id: str) -> dict[str, str]:
    with database.reading() as session:
        found = accounts.personal_data(session, Keyring(master_key, session, now), customer_id)
    return {"customer": found.get("custom", ""), "email": found.get("email", "")}


def _product_files(product: ProductHook, person: Mapping[str, str]) -> dict[str, bytes]:
    if not product.is_configured:
        return {}
    answer = product.call("export", person)
    suffix = "zip" if answer[:4] == b"PK\x03\x04" else "json" if answer[:1] in b"{[" else "bin"
    return {f"product/export.{suffix}": answer} if answer else {}


def _manifest(files: Mapping[str, bytes], customer_id: str, now: datetime) -> bytes:
    return orjson.dumps(
        {
            "schema": SCHEMA,
            "customer": customer_id,
            "exported_at": format_time(now),
            "files": {name: _sha256(data) for name, data in sorted(files.items())},
        },
        option=orjson.OPT_INDENT_2,
    )


def _zip(files: Mapping[str, bytes], manifest: bytes, signer: Signer, now: datetime) -> bytes:
    sums = "".join(f"{_sha256(data)}  {name}\n" for name, data in sorted(files.items()))
    proof = dict(zip(PROOF, (sums.encode(), manifest, signer.sign(manifest), signer.public_pem), strict=True))
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, data in (*sorted(files.items()), *proof.items()):
            opened.writestr(_entry(name, now), data)
    return written.getvalue()


def _entry(name: str, now: datetime) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, now.timetuple()[:6])
    entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o600 << 16
    return entry


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
