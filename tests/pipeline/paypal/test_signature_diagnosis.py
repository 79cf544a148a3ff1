"""Diagnosis of deliveries: recorded ones that PayPal's SDKs published, and generated ones with one fault each."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline.clock import parse_time
from pipeline.paypal.errors import MalformedDeliveryError, PaypalUnavailableError
from pipeline.paypal.signature_diagnosis import DiagnosisStep, diagnose_delivery, read_headers
from tests.support.certificate_authority import (
    BODY,
    LIVE,
    NOW,
    URL,
    WEBHOOK_ID,
    YEAR,
    deliver,
    intermediate,
    issue,
    paypal,
    root,
    rsa_key,
)
from tests.support.recorded_samples import SHARED, recorded

SIGNED = SHARED / "paypal" / "signed"
PUBLISHED = sorted(path.parent.name for path in SIGNED.glob("*/case.json")) or ["sandbox-none-here"]

ALL = [
    "headers",
    "algorithm",
    "certificate address",
    "certificate subject",
    "certificate validity",
    "certificate key",
    "certificate chain",
    "signature",
]


def must_not_fetch(url: str) -> bytes:
    raise AssertionError(url)


def names(checks: list[DiagnosisStep]) -> list[str]:
    return [check.name for check in checks]


def run(
    headers: dict[str, str] | None = None,
    body: bytes = BODY,
    *,
    webhook_id: str = WEBHOOK_ID,
    pem: bytes | None = None,
    anchors: Path | None = None,
    at: datetime = NOW,
) -> list[DiagnosisStep]:
    headers = deliver() if headers is None else headers
    return diagnose_delivery(
        body, headers, webhook_id, cert_pem=pem, anchors=anchors, at=at, fetch=lambda _url: paypal().pem
    )


def test_recorded_deliveries_exist() -> None:
    assert len(list(recorded("paypal/signed").glob("*/case.json"))) >= 8


@pytest.mark.parametrize("anchored", [False, True], ids=["leaf", "chain"])
@pytest.mark.parametrize("case", PUBLISHED)
def test_recorded_delivery_has_the_published_result(case: str, anchored: bool, tmp_path: Path) -> None:
    folder = recorded(f"paypal/signed/{case}")
    recorded_case = json.loads((folder / "case.json").read_text())
    headers = read_headers((folder / "headers.json").read_text())
    at = parse_time({name.lower(): value for name, value in headers.items()}["paypal-transmission-time"])
    assert at
    pem = (folder / "cert.pem").read_bytes() if (folder / "cert.pem").exists() else None
    anchors = tmp_path / "anchors.pem"
    anchors.write_bytes(b"".join(path.read_bytes() for path in sorted((SIGNED / "ca").glob("*.pem"))))
    checks = diagnose_delivery(
        (folder / "body.raw").read_bytes(),
        headers,
        recorded_case["webhook_id"],
        cert_pem=pem,
        anchors=anchors if anchored else None,
        at=at,
        fetch=must_not_fetch,
    )
    failed = {"verifies": "", "must-fail": "signature", "unverifiable": "algorithm"}[recorded_case["expect"]]
    assert "".join(check.name for check in checks if not check.passed) == failed
    assert checks[-1].name == (failed or "signature")
    assert ("certificate chain" in names(checks)) is (anchored and failed != "algorithm")


@pytest.mark.parametrize("case", [name for name in PUBLISHED if name.startswith("sandbox-")])
def test_recorded_certificate_has_expired(case: str) -> None:
    folder = recorded(f"paypal/signed/{case}")
    checks = diagnose_delivery(
        (folder / "body.raw").read_bytes(),
        read_headers((folder / "headers.json").read_text()),
        json.loads((folder / "case.json").read_text())["webhook_id"],
        cert_pem=(folder / "cert.pem").read_bytes(),
        anchors=None,
        at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    assert checks[-1].name == "certificate validity"
    assert not checks[-1].passed


def test_valid_delivery_passes_all_checks_in_order(tmp_path: Path) -> None:
    anchors = tmp_path / "anchors.pem"
    anchors.write_bytes(root().pem + intermediate().pem)
    checks = run(anchors=anchors)
    assert names(checks) == ALL
    assert all(check.passed for check in checks)
    assert checks[-1].detail.endswith(WEBHOOK_ID)


def test_given_certificate_skips_url_check_and_download() -> None:
    headers = deliver() | {"Paypal-Cert-Url": "https://evil.example.com/"}
    checks = diagnose_delivery(
        BODY, headers, WEBHOOK_ID, cert_pem=paypal().pem, anchors=None, at=NOW, fetch=must_not_fetch
    )
    assert checks[-1] == DiagnosisStep("signature", True, f"signed by PayPal for webhook {WEBHOOK_ID}")
    assert "certificate address" not in names(checks)


def test_checks_stop_at_first_failure(tmp_path: Path) -> None:
    (tmp_path / "anchors.pem").write_bytes(root("Another Root").pem)
    faults = {
        "headers": run({}),
        "algorithm": run(deliver() | {"Paypal-Auth-Algo": "SHA1withRSA"}),
        "certificate address": run(deliver() | {"Paypal-Cert-Url": "https://evil.example.com/"}),
        "certificate": run(pem=b"no certificate"),
        "certificate subject": run(pem=issue("evil.example.com").pem),
        "certificate validity": run(at=NOW + YEAR),
        "certificate key": run(pem=issue(LIVE, key=rsa_key(1024)).pem),
        "certificate chain": run(anchors=tmp_path / "anchors.pem"),
        "signature": run(body=b"{}"),
    }
    for name, checks in faults.items():
        assert (checks[-1].name, [check.passed for check in checks].count(False), checks[-1].passed) == (name, 1, False)


def test_failed_download_is_a_failed_check() -> None:
    def fetch(url: str) -> bytes:
        assert url == URL
        raise PaypalUnavailableError("PayPal is down")

    checks = diagnose_delivery(BODY, deliver(), WEBHOOK_ID, cert_pem=None, anchors=None, at=NOW, fetch=fetch)
    assert checks[-1] == DiagnosisStep("certificate", False, "PayPal is down")


def test_common_causes_are_explained() -> None:
    assert "simulator" in run(deliver(webhook_id="WEBHOOK_ID"))[-1].detail
    assert "newline" in run(body=BODY + b"\n")[-1].detail
    assert "webhook id" in run(webhook_id="OTHER")[-1].detail


def test_headers_are_parsed_from_json_or_lines() -> None:
    lines = "HTTP/1.1\n" + "\r\n".join(f"{name}: {value}" for name, value in deliver().items())
    assert read_headers(json.dumps(deliver())) == read_headers(lines) == deliver()
    with pytest.raises(MalformedDeliveryError):
        read_headers('{"Paypal-Transmission-Id": ')
