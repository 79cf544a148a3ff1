"""Run the checks of a webhook's signature one by one and report the result of each.

For the command `smt-billing paypal verify`: it checks a saved delivery as the webhook endpoint would.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from pipeline.clock import format_time
from pipeline.paypal import certificate_rules
from pipeline.paypal.certificate_rules import ParsedCertificate, TrustAnchors
from pipeline.paypal.certificates import fetch_certificate
from pipeline.paypal.errors import MalformedDeliveryError, PaypalUnavailableError, SignatureError
from pipeline.paypal.signature import Transmission, require_algorithm, verify
from pipeline.settings import SIMULATOR


@dataclass(frozen=True, slots=True)
class DiagnosisStep:
    """Result of one check: its name, whether it passed, and a detail for the operator."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True, slots=True)
class _Delivery:
    body: bytes
    headers: Mapping[str, str]
    webhook_id: str
    at: datetime
    live: bool


def diagnose_delivery(
    body: bytes,
    headers: Mapping[str, str],
    webhook_id: str,
    *,
    cert_pem: bytes | None,
    anchors: Path | None,
    at: datetime,
    live: bool = False,
    fetch: Callable[[str], bytes] = fetch_certificate,
) -> list[DiagnosisStep]:
    """Run the checks in order and stop after the first failure. The last step is the result.

    Without `cert_pem` the certificate is downloaded from the URL in the headers; with it, that URL is not checked. With
    `anchors`, a PEM file, the chain is verified too. With `live`, certificates of PayPal's sandbox are refused. The
    certificate must be valid at `at`. Raises SettingsError if the anchors cannot be read.
    """
    trusted = TrustAnchors.load(anchors) if anchors else None
    return list(_until_failure(_run(_Delivery(body, headers, webhook_id, at, live), cert_pem, trusted, fetch)))


def read_headers(text: str) -> dict[str, str]:
    """Parse saved headers: a JSON object, or one `Name: value` per line. Raises MalformedDeliveryError."""
    if not text.lstrip().startswith("{"):
        lines = (line.partition(":") for line in text.splitlines() if ":" in line)
        return {name.strip(): value.strip() for name, _, value in lines}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MalformedDeliveryError("the headers are neither JSON nor one `Name: value` per line") from error
    return {name: value for name, value in found.items() if isinstance(value, str)}


def _until_failure(checks: Iterator[DiagnosisStep]) -> Iterator[DiagnosisStep]:
    try:
        yield from checks
    except MalformedDeliveryError as error:
        yield DiagnosisStep("headers", False, str(error))
    except SignatureError as error:
        yield DiagnosisStep(error.check, False, str(error))
    except PaypalUnavailableError as error:
        yield DiagnosisStep("certificate", False, str(error))


def _run(
    delivery: _Delivery, cert_pem: bytes | None, anchors: TrustAnchors | None, fetch: Callable[[str], bytes]
) -> Iterator[DiagnosisStep]:
    transmission = Transmission.read(delivery.headers.items())
    yield DiagnosisStep("headers", True, f"transmission {transmission.id}, sent at {transmission.time}")
    require_algorithm(transmission)
    yield DiagnosisStep("algorithm", True, transmission.algorithm)
    if cert_pem is None:
        certificate_rules.require_certificate_url(transmission.cert_url, live=delivery.live)
        yield DiagnosisStep("certificate address", True, transmission.cert_url)
    leaf = certificate_rules.parse_certificate(cert_pem or fetch(transmission.cert_url))
    yield from _check_certificate(leaf, delivery, anchors)
    yield _check_signature(delivery, transmission, certificate_rules.require_rsa_key(leaf))


def _check_certificate(
    leaf: ParsedCertificate, delivery: _Delivery, anchors: TrustAnchors | None
) -> Iterator[DiagnosisStep]:
    yield DiagnosisStep("certificate subject", True, certificate_rules.require_subject(leaf, live=delivery.live))
    certificate_rules.require_valid_at(leaf, delivery.at)
    yield DiagnosisStep(
        "certificate validity", True, f"{format_time(leaf.not_before)} to {format_time(leaf.not_after)}"
    )
    yield DiagnosisStep("certificate key", True, f"RSA, {certificate_rules.require_rsa_key(leaf).key_size} bits")
    if anchors:
        certificate_rules.require_trusted_chain(leaf, delivery.at, anchors)
        yield DiagnosisStep("certificate chain", True, f"issued by {certificate_rules.issuer(leaf)}")


def _check_signature(delivery: _Delivery, transmission: Transmission, key: RSAPublicKey) -> DiagnosisStep:
    try:
        webhook_id = verify(transmission, delivery.body, [delivery.webhook_id], key)
    except SignatureError as error:
        return DiagnosisStep(error.check, False, _explain(delivery, transmission, key) or str(error))
    return DiagnosisStep("signature", True, f"signed by PayPal for webhook {webhook_id}")


def _explain(delivery: _Delivery, transmission: Transmission, key: RSAPublicKey) -> str:
    """Test two common causes: an event from PayPal's simulator, and a body that was saved with an extra newline."""
    for body, webhook_id, reason in (
        (delivery.body, SIMULATOR, "PayPal's simulator sent this event; it belongs to no webhook"),
        (
            delivery.body.rstrip(b"\r\n"),
            delivery.webhook_id,
            "the body was saved with a newline at its end that PayPal did not send",
        ),
    ):
        try:
            verify(transmission, body, [webhook_id], key)
        except SignatureError:
            continue
        return reason
    return ""
