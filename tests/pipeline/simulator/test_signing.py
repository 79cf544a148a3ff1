"""The simulator's signatures, checked with plain cryptography and with the receiver's own verification."""

import base64
import re
import stat
import uuid
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import PolicyBuilder, Store

from pipeline.paypal.certificate_rules import (
    TrustAnchors,
    parse_certificate,
    require_certificate_url,
    require_paypal_certificate,
)
from pipeline.paypal.errors import SignatureError
from pipeline.paypal.signature import Transmission, verify
from pipeline.simulator.server.signing import FILE, HOST, Signer

SINCE, UNTIL = datetime(2025, 6, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)
AT = datetime(2025, 11, 3, 14, 5, 9, 250_000, tzinfo=UTC)
BODY = '{"summary":"Payment completed for € 29.0 EUR"}'.encode()
WEBHOOK = "4JH86294D6297924G"


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer(since=SINCE, until=UNTIL)


def verify_as_documented(headers: dict[str, str], body: bytes, webhook_id: str, leaf_pem: bytes) -> None:
    """Verify a signature as PayPal documents it."""
    key = x509.load_pem_x509_certificate(leaf_pem).public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    parts = headers["PAYPAL-TRANSMISSION-ID"], headers["PAYPAL-TRANSMISSION-TIME"], webhook_id, str(zlib.crc32(body))
    signature = base64.b64decode(headers["PAYPAL-TRANSMISSION-SIG"], validate=True)
    key.verify(signature, "|".join(parts).encode(), padding.PKCS1v15(), hashes.SHA256())


def test_signature_is_valid_by_paypals_documentation(signer: Signer) -> None:
    verify_as_documented(signer.sign(BODY, WEBHOOK, AT), BODY, WEBHOOK, signer.leaf_pem)


@pytest.mark.parametrize(("body", "webhook"), [(BODY + b" ", WEBHOOK), (BODY, "WEBHOOK_ID")])
def test_signature_is_invalid_for_other_body_or_webhook(signer: Signer, body: bytes, webhook: str) -> None:
    headers = signer.sign(BODY, WEBHOOK, AT)
    with pytest.raises(InvalidSignature):
        verify_as_documented(headers, body, webhook, signer.leaf_pem)


def test_receiver_accepts_signature(signer: Signer, tmp_path: Path) -> None:
    (tmp_path / "root.pem").write_bytes(signer.root_pem)
    key = require_paypal_certificate(
        parse_certificate(signer.leaf_pem), at=AT, anchors=TrustAnchors.load(tmp_path / "root.pem")
    )
    headers = signer.sign(BODY, WEBHOOK, AT)
    require_certificate_url(headers["PAYPAL-CERT-URL"])
    assert verify(Transmission.read(headers.items()), BODY, ["ANOTHER", WEBHOOK], key) == WEBHOOK
    with pytest.raises(SignatureError):
        verify(Transmission.read(headers.items()), BODY.replace(b"29", b"92"), [WEBHOOK], key)


def test_headers_are_those_of_paypal(signer: Signer) -> None:
    headers = signer.sign(BODY, WEBHOOK, AT)
    assert headers["PAYPAL-TRANSMISSION-TIME"] == "2025-11-03T14:05:09Z"
    assert headers["PAYPAL-AUTH-ALGO"] == "SHA256withRSA"
    assert headers["PAYPAL-AUTH-VERSION"] == "v2"
    assert headers["PAYPAL-CERT-URL"] == signer.cert_url
    assert headers["Content-Type"] == "application/json"
    assert headers["User-Agent"].startswith("PayPal/AUHD-")
    assert len(base64.b64decode(headers["PAYPAL-TRANSMISSION-SIG"])) == 256


def test_transmission_id_is_unique_and_contains_its_time(signer: Signer) -> None:
    ids = [uuid.UUID(signer.sign(BODY, WEBHOOK, AT)["PAYPAL-TRANSMISSION-ID"]) for _ in range(20)]
    assert len(set(ids)) == 20
    assert {each.version for each in ids} == {1}
    assert {each.variant for each in ids} == {uuid.RFC_4122}
    epoch = datetime(1582, 10, 15, tzinfo=UTC)
    assert {epoch + timedelta(microseconds=each.time // 10) for each in ids} == {AT}


def test_leaf_certificate_resembles_paypals(signer: Signer) -> None:
    leaf = x509.load_pem_x509_certificate(signer.leaf_pem)
    assert [name.value for name in leaf.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)] == ["PayPal, Inc."]
    assert [name.value for name in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == [HOST]
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [HOST]
    assert ExtendedKeyUsageOID.SERVER_AUTH in leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    key = leaf.public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    assert key.key_size == 2048


@pytest.mark.parametrize("at", [SINCE, AT, UNTIL])
def test_certificate_chain_is_valid_for_the_whole_range(signer: Signer, at: datetime) -> None:
    store = Store([x509.load_pem_x509_certificate(signer.root_pem)])
    verifier = PolicyBuilder().store(store).time(at).build_server_verifier(x509.DNSName(HOST))
    assert len(verifier.verify(x509.load_pem_x509_certificate(signer.leaf_pem), [])) == 2


def test_certificate_url_is_derived_from_the_certificate(signer: Signer) -> None:
    pattern = r"https://api\.sandbox\.paypal\.com/v1/notifications/certs/CERT(-[0-9a-f]{8}){3}"
    assert re.fullmatch(pattern, signer.cert_url)
    digest = x509.load_pem_x509_certificate(signer.leaf_pem).fingerprint(hashes.SHA256()).hex()
    assert signer.cert_url.rpartition("CERT-")[2].replace("-", "") == digest[:24]


def test_second_process_uses_the_same_keys(tmp_path: Path) -> None:
    first = Signer(tmp_path / "simulator", since=SINCE, until=UNTIL)
    second = Signer(tmp_path / "simulator", since=SINCE + timedelta(days=1), until=UNTIL + timedelta(days=1))
    assert (second.cert_url, second.leaf_pem, second.root_pem) == (first.cert_url, first.leaf_pem, first.root_pem)
    verify_as_documented(second.sign(BODY, WEBHOOK, AT), BODY, WEBHOOK, first.leaf_pem)


def test_key_files_are_private(tmp_path: Path) -> None:
    Signer(tmp_path / "simulator", since=SINCE, until=UNTIL)
    assert stat.S_IMODE((tmp_path / "simulator" / FILE).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "simulator").stat().st_mode) == 0o700


def test_certificates_not_covering_the_range_are_replaced(tmp_path: Path) -> None:
    early = Signer(tmp_path, since=SINCE, until=UNTIL)
    later = Signer(tmp_path, since=SINCE, until=UNTIL + timedelta(days=365))
    assert later.cert_url != early.cert_url
    assert x509.load_pem_x509_certificate(later.leaf_pem).not_valid_after_utc >= UNTIL + timedelta(days=365)
    assert Signer(tmp_path, since=SINCE, until=UNTIL).cert_url == later.cert_url
