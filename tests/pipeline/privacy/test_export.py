"""A copy of a person's data: complete, readable, signed; and nobody else's in it."""

import hashlib
import io
import json
import stat
import subprocess
import zipfile
from datetime import datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from sqlalchemy import LargeBinary

from pipeline.crypto.keyring import Keyring
from pipeline.crypto.signing import Signer
from pipeline.customers import links
from pipeline.customers.accounts import CustomerNotFoundError
from pipeline.customers.product_hook import ProductHook, ProductUnavailableError
from pipeline.db.models import (
    Base,
    Consent,
    Customer,
    Event,
    InboundMail,
    Link,
    Mail,
    Payment,
    PrivacyRequest,
    ReadAudit,
    Refund,
    Subscription,
)
from pipeline.outbox import store as outbox
from pipeline.privacy.export import bundle
from pipeline.privacy.export.bundle import InvalidExportError
from pipeline.privacy.export.gather import SEALED_JSON
from pipeline.privacy.export.page import ExportIssuer
from tests.support.pipeline_under_test import River

ADA, BOB = "c" + "a" * 30, "c" + "b" * 30
ISSUER = ExportIssuer("Example Works", "privacy@example.com", "en_US")
# Sealed, and not a person's: a key itself, what is found by a hash, and visits, which nobody is named in.
NOT_OF_A_PERSON = {"encryption_key.wrapped_key", "customer.email_hash", "subscription.email_hash", "access_log.visitor"}
SEALED = {
    f"{table.name}.{column.name}"
    for table in Base.metadata.sorted_tables
    for column in table.columns
    if isinstance(column.type, LargeBinary)
} - NOT_OF_A_PERSON


def canary(column: str, who: str = ADA) -> str:
    return f"canary-{column.replace('.', '-')}-{hashlib.sha256(who.encode()).hexdigest()[:8]}"


def sealed(keyring: Keyring, label: str, column: str, who: str) -> bytes:
    """A value for this column that holds a canary, in the form that the column has."""
    seal, text = keyring.system_key(label), canary(column, who)
    if column in ("customer.personal_data", "subscription.personal_data"):
        return seal.encrypt_json(column, {"name": ["2026-03-01T10:00:00+00:00", text]})
    if column in SEALED_JSON:
        return seal.encrypt_json(column, {"note": text})
    mail = f"From: {text} <a@example.com>\r\nSubject: s\r\n\r\nHello".encode()
    return seal.encrypt(column, mail if column in ("mail.frozen", "inbound_mail.content") else text.encode())


def move_in(river: River, who: str) -> None:
    """A customer with a row in every table that can hold anything of a person, and a canary in every sealed column."""
    sub, at = f"I-{who[-8:]}", river.now
    with river.database.transaction() as session:
        keyring = river.keyring(session)

        def rows() -> Any:
            yield Customer, {"id": who, "created_at": at}, who
            yield (
                Consent,
                {
                    "customer_id": who,
                    "at": at,
                    "kind": "marketing",
                    "given": True,
                    "source": "page",
                    "text_version": "1",
                },
                who,
            )
            yield (
                Subscription,
                {"id": sub, "known": {}, "customer_id": who, "created_at": at, "status": "ACTIVE", "status_at": at},
                sub,
            )
            yield (
                Payment,
                {
                    "id": f"P{sub}",
                    "known": {},
                    "subscription_id": sub,
                    "amount": 1999,
                    "currency": "USD",
                    "occurred_at": at,
                },
                sub,
            )
            yield (
                Refund,
                {
                    "id": f"R{sub}",
                    "known": {},
                    "payment_id": f"P{sub}",
                    "kind": "refund",
                    "amount": 5,
                    "currency": "USD",
                    "occurred_at": at,
                },
                sub,
            )
            yield Event, event(f"WH-{sub}", sub, at, None), sub
            yield Event, event(f"WH-LOOSE-{sub}", f"WH-LOOSE-{sub}", at, who), f"WH-LOOSE-{sub}"
            yield (
                Mail,
                {
                    "id": f"m{sub}",
                    "idempotency_key": f"k{sub}",
                    "kind": "receipt",
                    "key_id": sub,
                    "subscription_id": sub,
                    "state": "sent",
                    "created_at": at,
                },
                sub,
            )
            yield (
                InboundMail,
                {"id": f"l{sub}", "customer_id": who, "key_id": who, "kind": "support", "received_at": at},
                who,
            )
            yield (
                PrivacyRequest,
                {
                    "id": f"q{sub}",
                    "customer_id": who,
                    "key_id": who,
                    "kind": "access",
                    "state": "received",
                    "source": "page",
                    "received_at": at,
                    "due_at": at,
                },
                who,
            )
            yield (
                Link,
                {"sha256": f"s{sub}", "customer_id": who, "purpose": "account", "created_at": at, "expires_at": at},
                who,
            )
            yield (
                ReadAudit,
                {
                    "at": at,
                    "actor": "ops",
                    "action": "customers show",
                    "purpose": "support",
                    "subject": who,
                    "previous_hash": "",
                    "hash": "",
                },
                who,
            )

        for table, values, label in rows():
            columns = [name for name in SEALED if name.startswith(f"{table.__tablename__}.")]
            values |= {name.partition(".")[2]: sealed(keyring, label, name, who) for name in columns}
            session.add(table(**values))
            session.flush()


def event(id: str, label: str, at: datetime, customer: str | None) -> dict[str, Any]:
    return {
        "id": id, "type": "TEST.HAPPENED", "source": "webhook", "state": "handled", "key_id": label, "customer_id": customer,
        "facts": {}, "body_sha256": "", "content_sha256": "", "signature_verdict": "signed", "received_at": at,
    }  # fmt: skip


@pytest.fixture
def moved_in(river: River) -> River:
    for who in (ADA, BOB):
        move_in(river, who)
    return river


def made(river: River, who: str = ADA, product: ProductHook | None = None) -> bytes:
    return bundle.build_export(
        river.database, river.master, river.now, who, issuer=ISSUER, product=product or ProductHook()
    )


def files(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def signer(river: River) -> Signer:
    with river.database.transaction() as session:
        return Signer(river.keyring(session))


def test_every_sealed_column_of_a_person_is_in_it_and_nobody_elses(moved_in: River) -> None:
    everything = b"".join(files(made(moved_in)).values())
    assert len(SEALED) >= 10
    assert [column for column in SEALED if canary(column).encode() not in everything] == []
    assert [column for column in SEALED if canary(column, BOB).encode() in everything] == []


def test_its_rows_are_those_of_the_tables(moved_in: River) -> None:
    data = json.loads(files(made(moved_in))["data.json"])
    assert data["schema"] == bundle.SCHEMA
    assert [
        len(data[name]) for name in ("consents", "subscriptions", "mails", "letters", "requests", "links", "read_by_us")
    ] == [1] * 7
    assert sorted(row["id"] for row in data["events"]) == ["WH-I-aaaaaaaa", "WH-LOOSE-I-aaaaaaaa"]
    (subscription,) = data["subscriptions"]
    assert [payment["amount"] for payment in subscription["payments"]] == [1999]
    assert [refund["amount"] for refund in subscription["payments"][0]["refunds"]] == [5]


def test_the_shape_of_the_data_is_the_published_one(moved_in: River) -> None:
    schema = json.loads((Path(bundle.__file__).parent / "export.schema.json").read_text("utf-8"))
    jsonschema.validate(json.loads(files(made(moved_in))["data.json"]), schema)


def test_the_page_is_for_people_and_runs_and_loads_nothing(moved_in: River) -> None:
    page = files(made(moved_in))["index.html"].decode()
    assert "<h1>Your data at Example Works</h1>" in page
    assert "$19.99" in page
    for forbidden in ("<script", "http://", "https://", "@import", "url(", "<img", "<iframe"):
        assert forbidden not in page


def test_what_a_person_calls_themselves_is_no_markup(moved_in: River) -> None:
    with moved_in.database.transaction() as session:
        row = session.get_one(Customer, ADA)
        row.personal_data = (
            moved_in.keyring(session)
            .system_key(ADA)
            .encrypt_json(
                "customer.personal_data", {"name": ["2026-03-01T10:00:00+00:00", "<script>alert(1)</script>"]}
            )
        )
    assert b"<script" not in files(made(moved_in))["index.html"]


def test_checksums_and_signature_hold_for_everyone_with_common_tools(moved_in: River, tmp_path: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(made(moved_in))) as opened:
        opened.extractall(tmp_path)
        assert {stat.S_IMODE(each.external_attr >> 16) for each in opened.infolist()} == {0o600}
    subprocess.run(["sha256sum", "-c", "--strict", "SHA256SUMS"], cwd=tmp_path, check=True, capture_output=True)
    command = "openssl pkeyutl -verify -pubin -inkey public-key.pem -rawin -in manifest.json -sigfile manifest.sig"
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / "manifest.json").write_bytes((tmp_path / "manifest.json").read_bytes() + b" ")
    assert subprocess.run(command.split(), cwd=tmp_path, check=False, capture_output=True).returncode != 0


def test_a_copy_that_was_changed_is_not_ours(moved_in: River) -> None:
    data = made(moved_in)
    assert "index.html" in bundle.verify_export(data, signer(moved_in))
    changed = io.BytesIO()
    with zipfile.ZipFile(changed, "w") as opened:
        for name, content in files(data).items():
            opened.writestr(name, content + (b" " if name == "index.html" else b""))
    for wrong, why in (
        (changed.getvalue(), "changed since it was made: index.html"),
        (packed({**files(data), "extra.html": b"believe me"}), "put in by somebody else: extra.html"),
        (
            packed({name: each for name, each in files(data).items() if name != "data.json"}),
            "missing from it: data.json",
        ),
        (b"no zip", "no bundle of ours"),
        (data[:-200], "no bundle of ours"),
    ):
        with pytest.raises(InvalidExportError, match=why):
            bundle.verify_export(wrong, signer(moved_in))


def packed(content: dict[str, bytes]) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as opened:
        for name, each in content.items():
            opened.writestr(name, each)
    return written.getvalue()


def test_who_makes_a_copy_for_somebody_is_not_told_the_links_that_let_them_in(moved_in: River) -> None:
    with moved_in.database.transaction() as session:
        secret = links.issue(session, moved_in.keyring(session), ADA, "account", moved_in.now)
    page = links.url("https://billing.example.com", "account", secret)
    moved_in.owe(outbox.NewMail("account_link", "link", None, {"page": page, "confirms": False}, customer_id=ADA))
    copied = files(made(moved_in))
    assert b"/account/open/[hidden]" in copied["data.json"]
    assert not [name for name, content in copied.items() if secret.encode() in content]


def test_a_copy_signed_by_somebody_else_is_not_ours(moved_in: River) -> None:
    data = made(moved_in)
    other = files(made(moved_in, BOB))
    forged = io.BytesIO()
    with zipfile.ZipFile(forged, "w") as opened:
        for name, content in files(data).items():
            opened.writestr(name, other[name] if name == "manifest.sig" else content)
    with pytest.raises(InvalidExportError, match="not signed"):
        bundle.verify_export(forged.getvalue(), signer(moved_in))


def test_the_products_own_export_is_joined(moved_in: River) -> None:
    found = files(made(moved_in, product=ProductHook(command="printf PK\\\\003\\\\004rest")))
    assert found["product/export.zip"] == b"PK\x03\x04rest"
    assert "product/export.zip" in json.loads(found["manifest.json"])["files"]


def test_without_the_products_own_export_there_is_none_at_all(moved_in: River) -> None:
    with pytest.raises(ProductUnavailableError):
        made(moved_in, product=ProductHook(command="false"))


def test_nobody_and_the_erased_have_no_copy(moved_in: River) -> None:
    with moved_in.database.transaction() as session:
        session.get_one(Customer, BOB).erased_at = moved_in.now
    for who in ("c-nobody", BOB):
        with pytest.raises(CustomerNotFoundError, match=who):
            made(moved_in, who)
