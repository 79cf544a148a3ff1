"""`paypal verify`, with a delivery that the simulated PayPal signed."""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import orjson
import pytest

from pipeline.simulator.server.signing import Signer

from .conftest import NOW, Smt

LIVE = "https://api-m.paypal.com"
WEBHOOK = "1JE4291016473214C"


@dataclass(frozen=True, slots=True)
class Saved:
    """The files of a delivery, and the command that verifies it."""

    body: Path
    headers: Path
    cert: Path
    anchors: Path

    def words(self) -> list[str | Path]:
        named: list[str | Path] = ["--headers", self.headers, "--webhook-id", WEBHOOK, "--cert", self.cert]
        return ["paypal", "verify", self.body, *named]


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer(since=NOW - timedelta(days=30), until=NOW)


@pytest.fixture
def saved(signer: Signer, tmp_path: Path) -> Saved:
    body = b'{"id": "WH-1", "event_type": "X.Y"}'
    files = Saved(*(tmp_path / name for name in ("body.json", "headers", "leaf.pem", "root.pem")))
    files.body.write_bytes(body)
    files.headers.write_bytes(orjson.dumps(signer.sign(body, WEBHOOK, NOW)))
    files.cert.write_bytes(signer.leaf_pem)
    files.anchors.write_bytes(signer.root_pem)
    return files


def test_verify_accepts_signed_delivery_and_lists_checks(smt: Smt, saved: Saved, data_dir: Path) -> None:
    answer = smt(*saved.words(), "--anchors", saved.anchors, "--json")
    assert (answer.code, answer.json["verified"], answer.json["failed"]) == (0, True, None)
    names = [check["name"] for check in answer.json["checks"]]
    assert names[-1] == "signature"
    assert "certificate chain" in names
    assert "the signature is valid" in smt(*saved.words()).out
    assert list(data_dir.iterdir()) == []


def test_verify_accepts_headers_as_lines(smt: Smt, saved: Saved) -> None:
    headers = orjson.loads(saved.headers.read_bytes())
    saved.headers.write_text("".join(f"{name.lower()}: {value}\n" for name, value in headers.items()))
    assert smt(*saved.words()).code == 0


def test_verify_names_failed_check_of_changed_body(smt: Smt, saved: Saved) -> None:
    saved.body.write_bytes(saved.body.read_bytes() + b" ")
    answer = smt(*saved.words(), "--json")
    assert (answer.code, answer.json["verified"], answer.json["failed"]) == (1, False, "signature")
    assert "refused: signature" in smt(*saved.words()).out


def test_certificate_validity_depends_on_time(smt: Smt, saved: Saved) -> None:
    assert smt(*saved.words(), "--at", "2001-01-01", "--json").json["failed"] == "certificate validity"
    assert smt(*saved.words(), "--at", "soon").code == 2


def test_certificate_url_is_checked_before_download(smt: Smt, saved: Saved) -> None:
    headers = orjson.loads(saved.headers.read_bytes())
    headers["PAYPAL-CERT-URL"] = "https://api.paypal.com.evil.example.com/v1/notifications/certs/CERT-1"
    saved.headers.write_bytes(orjson.dumps(headers))
    words = [word for word in saved.words() if word not in ("--cert", saved.cert)]
    assert smt(*words, "--json").json["failed"] == "certificate address"


@pytest.mark.parametrize(("base_url", "code"), [(LIVE, 1), ("https://api-m.sandbox.paypal.com", 0)])
def test_certificate_of_sandbox_is_refused_with_live_paypal(
    smt: Smt, saved: Saved, monkeypatch: pytest.MonkeyPatch, base_url: str, code: int
) -> None:
    monkeypatch.setenv("SMT_PAYPAL_BASE_URL", base_url)
    answer = smt(*saved.words(), "--json")  # the simulated PayPal has the name of the sandbox
    assert (answer.code, answer.json["failed"]) == (code, "certificate subject" if code else None)


def test_url_of_sandbox_is_refused_with_live_paypal(smt: Smt, saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMT_PAYPAL_BASE_URL", LIVE)
    headers = orjson.loads(saved.headers.read_bytes())
    headers["PAYPAL-CERT-URL"] = "https://api.sandbox.paypal.com/v1/notifications/certs/CERT-1"
    saved.headers.write_bytes(orjson.dumps(headers))
    words = [word for word in saved.words() if word not in ("--cert", saved.cert)]
    assert smt(*words, "--json").json["failed"] == "certificate address"


def test_trust_anchors_of_settings_are_used(smt: Smt, saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    other = saved.anchors.with_name("other.pem")
    other.write_bytes(Signer(since=NOW - timedelta(days=30), until=NOW).root_pem)
    monkeypatch.setenv("SMT_PAYPAL_TRUST_ANCHORS", str(other))
    assert smt(*saved.words(), "--json").json["failed"] == "certificate chain"
    assert smt(*saved.words(), "--anchors", saved.anchors, "--json").json["verified"]


def test_missing_files_are_usage_errors(smt: Smt, saved: Saved) -> None:
    saved.body.unlink()
    answer = smt(*saved.words())
    assert (answer.code, "body.json" in answer.err) == (2, True)
    assert smt("paypal", "verify", saved.headers).code == 2
