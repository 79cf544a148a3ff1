"""What is answered at the door, over real sockets: RFC 9457 problem bodies, and 200 only for what is kept."""

import json
import re
import socket
import zlib
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import orjson
import pytest

from pipeline.app.container import Container
from pipeline.clock import MovableClock
from pipeline.db.models import Event
from pipeline.outbox.store import NewMail
from pipeline.simulator.server.signing import Signer
from pipeline.web.views.webhook import LARGEST_BODY
from tests.support.pipeline_under_test import (
    HAPPENED,
    WEBHOOK_ID,
    River,
    delivery,
    happened,
    make_parts,
    nothing_comes,
    open_door,
    sign,
    signer,
)
from tests.support.subprocesses import free_port

PATH = "/webhooks/paypal"
BODY = orjson.dumps(happened())

Headers = dict[str, str]


@pytest.fixture
def container(brook: River) -> Container:
    return make_parts(brook.url, brook.folder, brook.clock)


@pytest.fixture
def door(container: Container) -> Iterator[httpx.Client]:
    with open_door(container) as base, httpx.Client(base_url=base, verify=False, trust_env=False, timeout=30) as client:
        yield client


def post(door: httpx.Client, body: bytes = BODY, headers: Mapping[str, str] | None = None) -> httpx.Response:
    return door.post(PATH, content=body, headers=sign(body) if headers is None else headers)


def assert_problem(answer: httpx.Response, status: int, words: str = "") -> None:
    """RFC 9457 section 3: media type, and title and status that agree with the answer."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    told = answer.json()
    assert set(told) == {"type", "title", "status", "detail"}
    assert told["status"] == status
    assert told["type"] == "about:blank"
    assert told["title"] == httpx.codes.get_reason_phrase(status)
    assert re.search(words, told["detail"]), told["detail"]


# 200


def test_a_signed_event_is_answered_200_and_kept(door: httpx.Client, brook: River) -> None:
    answer = post(door)
    assert (answer.status_code, answer.json()) == (200, {"id": "WH-1", "outcome": "stored"})
    assert brook.states() == {"WH-1": "received"}
    assert brook.event("WH-1").signature_verdict == f"signed for webhook {WEBHOOK_ID}"


def test_a_duplicate_is_answered_200_and_changes_nothing(door: httpx.Client, brook: River) -> None:
    post(door)
    assert post(door).json() == {"id": "WH-1", "outcome": "duplicate"}
    assert brook.states() == {"WH-1": "received"}


def test_another_body_under_a_known_id_is_answered_200_and_parked(door: httpx.Client, brook: River) -> None:
    post(door)
    other = orjson.dumps(happened(resource={"id": "other"}))
    assert post(door, other).json()["outcome"] == "stored"
    assert sorted(brook.states().values()) == ["parked", "received"]


@pytest.mark.parametrize(
    ("body", "state"),
    [
        (b"hello, this is not JSON", "parked"),
        (b"", "parked"),
        (b"[]", "parked"),
        (orjson.dumps({"event_type": HAPPENED}), "parked"),
        (orjson.dumps(happened(kind="NOBODY.KNOWS.THIS")), "received"),
        (orjson.dumps(happened(create_time="2026-99-99T99:99:99Z")), "received"),
        (orjson.dumps(happened(kind="PAYMENT.SALE.COMPLETED", resource="not an object")), "received"),
        (
            orjson.dumps(happened(kind="PAYMENT.SALE.COMPLETED", resource={"id": "S1", "create_time": "soon"})),
            "received",
        ),
    ],
    ids=["no JSON", "nothing", "a list", "no id", "unknown type", "no such time", "no resource", "unreadable time"],
)
def test_what_cannot_be_understood_is_answered_200_and_kept(
    door: httpx.Client, brook: River, body: bytes, state: str
) -> None:
    assert post(door, body).status_code == 200
    assert list(brook.states().values()) == [state]
    [row] = brook.rows(Event)
    assert (row.reason is not None) == (state == "parked")


def test_a_body_of_256_kib_is_taken(door: httpx.Client, brook: River) -> None:
    body = orjson.dumps(happened(padding=""))
    body = body.replace(b'"padding":""', b'"padding":"%s"' % (b"x" * (LARGEST_BODY - len(body))))
    assert len(body) == LARGEST_BODY
    assert post(door, body).status_code == 200


def test_a_body_in_pieces_is_taken(door: httpx.Client) -> None:
    answer = door.post(PATH, content=(bytes([byte]) for byte in BODY), headers=sign(BODY))
    assert answer.request.headers["transfer-encoding"] == "chunked"
    assert answer.status_code == 200


def test_any_of_several_webhook_ids_will_do(brook: River) -> None:
    parts = make_parts(brook.url, brook.folder, brook.clock, paypal_webhook_id="1JE4291016473214C,OTHER")
    with open_door(container) as base:
        for number, webhook_id in enumerate(("1JE4291016473214C", "OTHER")):
            body = orjson.dumps(happened(f"WH-{number}"))
            assert httpx.post(base + PATH, content=body, headers=sign(body, webhook_id)).status_code == 200
        assert httpx.post(base + PATH, content=BODY, headers=sign(BODY)).status_code == 403
    assert brook.event("WH-1").signature_verdict == "signed for webhook OTHER"


# 400


@pytest.mark.parametrize("name", ["ID", "TIME", "SIG", "CERT-URL", "AUTH-ALGO"])
def test_without_one_of_paypals_headers_it_is_400(door: httpx.Client, brook: River, name: str) -> None:
    names = {"CERT-URL": "PAYPAL-CERT-URL", "AUTH-ALGO": "PAYPAL-AUTH-ALGO"}
    gone = names.get(name, f"PAYPAL-TRANSMISSION-{name}")
    headers = {key: value for key, value in sign(BODY).items() if key != gone}
    assert_problem(post(door, headers=headers), 400, f"{gone.lower()} is missing")
    assert brook.states() == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PAYPAL-TRANSMISSION-SIG", "not base64!"),
        ("PAYPAL-TRANSMISSION-SIG", "AAAA"),
        ("PAYPAL-TRANSMISSION-ID", "x" * 51),
        ("PAYPAL-TRANSMISSION-ID", "a|b"),
        ("PAYPAL-TRANSMISSION-TIME", "2026-03-01 12:00"),
        ("PAYPAL-CERT-URL", "https://api.paypal.com/" + "x" * 500),
    ],
)
def test_a_malformed_header_is_400(door: httpx.Client, name: str, value: str) -> None:
    assert_problem(post(door, headers=sign(BODY) | {name: value}), 400, name.lower())


def test_a_header_that_comes_twice_is_400(door: httpx.Client) -> None:
    twice = [*sign(BODY).items(), ("Paypal-Transmission-Id", "another")]
    assert_problem(door.post(PATH, content=BODY, headers=twice), 400, "duplicate header")


# 403


def change(name: str, value: str) -> Callable[[Headers], Headers]:
    return lambda headers: headers | {name: value}


@pytest.mark.parametrize(
    ("alter", "words"),
    [
        (change("PAYPAL-TRANSMISSION-ID", "another"), "signature does not match"),
        (change("PAYPAL-TRANSMISSION-TIME", "2026-03-01T12:00:01Z"), "signature does not match"),
        (change("PAYPAL-CERT-URL", "https://api.paypal.com.evil.example/v1/notifications/certs/CERT-1"), "certificate"),
        (change("PAYPAL-CERT-URL", "http://api.paypal.com/v1/notifications/certs/CERT-1"), "certificate"),
        (change("PAYPAL-CERT-URL", "https://127.0.0.1/v1/notifications/certs/CERT-1"), "certificate"),
        (change("PAYPAL-CERT-URL", "https://api.paypal.com/v1/notifications/certs/../../x"), "certificate"),
        (change("PAYPAL-AUTH-ALGO", "SHA1withRSA"), "SHA256withRSA"),
        (change("PAYPAL-AUTH-ALGO", "none"), "SHA256withRSA"),
    ],
)
def test_what_does_not_prove_to_be_paypals_is_403(
    door: httpx.Client, brook: River, alter: Callable[[Headers], Headers], words: str
) -> None:
    assert_problem(post(door, headers=alter(sign(BODY))), 403, words)
    assert brook.states() == {}


def test_a_body_changed_by_one_byte_is_403(door: httpx.Client) -> None:
    assert_problem(post(door, BODY + b" ", headers=sign(BODY)), 403, "signature")


def test_what_was_signed_for_another_listener_is_403(door: httpx.Client) -> None:
    assert_problem(post(door, headers=sign(BODY, "1JE4291016473214C")), 403, "webhook id is not ours")


def test_what_another_key_signed_is_403(door: httpx.Client, brook: River) -> None:
    stranger = Signer(since=brook.now, until=brook.now)
    forged = stranger.sign(BODY, WEBHOOK_ID, brook.now) | {"PAYPAL-CERT-URL": signer().cert_url}
    assert_problem(post(door, headers=forged), 403, "signature")


def test_a_certificate_that_is_not_paypals_or_not_valid_now_is_403(brook: River) -> None:
    url = "https://api.paypal.com/v1/notifications/certs/CERT-1"
    old = Signer(since=brook.now - timedelta(days=900), until=brook.now - timedelta(days=800))
    headers = old.sign(BODY, WEBHOOK_ID, brook.now) | {"PAYPAL-CERT-URL": url}
    for pem, words in ((old.leaf_pem, "valid from"), (old.root_pem, "not PayPal's")):
        with open_door(make_parts(brook.url, brook.folder, brook.clock, fetch=lambda url, pem=pem: pem)) as base:  # type: ignore[misc]
            assert_problem(httpx.post(base + PATH, content=BODY, headers=headers), 403, words)
    assert brook.states() == {}


def test_a_transmission_that_signed_another_body_is_403(door: httpx.Client, brook: River) -> None:
    """The signature covers no more of the body than its CRC-32, so another body can be made that it fits."""
    headers = sign(BODY)
    assert post(door, headers=headers).status_code == 200
    forged = with_the_same_crc(orjson.dumps(happened("WH-2")) + b" " * 4, BODY)
    assert_problem(post(door, forged, headers=headers), 403, "has already signed a different body")
    assert brook.states() == {"WH-1": "received"}


@pytest.mark.parametrize("accept", [True, False])
def test_paypals_simulator_is_let_in_only_behind_its_switch(brook: River, accept: bool) -> None:
    ours = () if accept else WEBHOOK_ID
    parts = make_parts(brook.url, brook.folder, brook.clock, paypal_webhook_id=ours, paypal_accept_simulator=accept)
    with open_door(container) as base:
        answer = httpx.post(base + PATH, content=BODY, headers=sign(BODY, "WEBHOOK_ID"))
    if accept:
        assert answer.status_code == 200
        assert brook.event("WH-1").signature_verdict == "signed by PayPal's simulator"
    else:
        assert_problem(answer, 403, "signature")


def test_an_algorithm_we_refuse_is_refused_before_its_certificate_is_fetched(brook: River) -> None:
    asked: list[str] = []

    def fetch(url: str) -> bytes:
        asked.append(url)
        return nothing_comes(url)

    elsewhere = {"PAYPAL-CERT-URL": "https://api.paypal.com/v1/notifications/certs/CERT-2"}
    with open_door(make_parts(brook.url, brook.folder, brook.clock, fetch=fetch)) as base:
        headers = sign(BODY) | elsewhere | {"PAYPAL-AUTH-ALGO": "SHA1withRSA"}
        assert_problem(httpx.post(base + PATH, content=BODY, headers=headers), 403, "SHA256withRSA")
    assert asked == []


# 404, 405, 408, 413


def test_where_nothing_is_it_is_404(door: httpx.Client) -> None:
    assert_problem(door.get("/"), 404, "nothing at this address")
    assert_problem(door.post("/webhooks/paypal/more", content=BODY), 404)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
def test_another_method_is_405_and_told_the_right_one(door: httpx.Client, method: str) -> None:
    answer = door.request(method, PATH)
    assert_problem(answer, 405, f"{method} is not possible here; allowed: POST")
    assert answer.headers["allow"] == "POST"


def test_a_method_that_has_no_body_to_answer_with_is_405_too(door: httpx.Client) -> None:
    assert door.head(PATH).status_code == 405


def test_a_body_beyond_256_kib_is_413_as_declared(door: httpx.Client, brook: River) -> None:
    body = b"x" * (LARGEST_BODY + 1)
    assert_problem(post(door, body, headers=sign(body)), 413, "256 KiB")
    assert brook.states() == {}
    assert post(door).status_code == 200


def test_a_body_beyond_256_kib_is_413_in_pieces(door: httpx.Client, brook: River) -> None:
    answer = door.post(PATH, content=(b"x" * 65536 for _ in range(5)), headers=sign(b""))
    assert_problem(answer, 413, "256 KiB")
    assert brook.states() == {}


def test_a_declared_size_beyond_it_is_answered_without_waiting_for_the_body(door: httpx.Client) -> None:
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\n\r\n"
    assert raw(door, head.encode()).startswith(b"HTTP/1.1 413")


def test_a_body_that_does_not_come_is_408(door: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf"
    with monkeypatch.context() as hasty:
        hasty.setattr("pipeline.web.views.webhook.SLOWEST_SECONDS", 0.05)
        assert raw(door, head.encode()).startswith(b"HTTP/1.1 408")
    assert post(door).status_code == 200


# 503


def test_a_certificate_that_cannot_be_fetched_is_503(door: httpx.Client, brook: River) -> None:
    elsewhere = {"PAYPAL-CERT-URL": "https://api.paypal.com/v1/notifications/certs/CERT-2"}
    answer = post(door, headers=sign(BODY) | elsewhere)
    assert_problem(answer, 503, "send it again")
    assert answer.headers["retry-after"] == "30"
    assert brook.states() == {}


def test_a_store_that_is_away_is_503(brook: River) -> None:
    parts = make_parts(f"postgresql://127.0.0.1:{free_port()}/billing", brook.folder, brook.clock)
    with open_door(container) as base:
        assert_problem(httpx.post(base + PATH, content=BODY, headers=sign(BODY)), 503, "send it again")
        assert_problem(httpx.get(base + "/healthz"), 503)
        assert_problem(httpx.get(base + "/metrics"), 503)


def test_a_fault_of_ours_is_503_and_tells_nothing(container: Container, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr("pipeline.webhooks.receiver.parse_webhook", fail)
    with open_door(container) as base:
        answer = httpx.post(base + PATH, content=BODY, headers=sign(BODY))
        counted = httpx.get(base + "/metrics").text
    assert_problem(answer, 503, "our side")
    assert "secret" not in answer.text
    assert 'smt_webhooks_total{status="503"} 1.0' in counted


# What PayPal really sent


def test_every_recorded_delivery_is_answered_as_its_case_says(brook: River, shared: Path) -> None:
    """Each in its own time: the certificates are long expired."""
    cases = sorted((shared / "signed").glob("*/case.json"))
    assert len(cases) >= 8
    answers = {path.parent.name: answered(brook, path.parent) for path in cases}
    expected = {path.parent.name: json.loads(path.read_text())["expect"] for path in cases}
    statuses = {"verifies": {200}, "must-fail": {403}, "unverifiable": {403, 503}}
    wrong = {name: answers[name] for name in answers if answers[name] not in statuses[expected[name]]}
    assert wrong == {}
    assert sorted(set(expected.values())) == sorted(statuses)


def answered(river: River, folder: Path) -> int:
    case, headers = json.loads((folder / "case.json").read_text()), json.loads((folder / "headers.json").read_text())
    told = {name.lower(): value for name, value in headers.items()}
    clock = MovableClock(datetime.fromisoformat(told["paypal-transmission-time"]))
    pem = (folder / "cert.pem").read_bytes() if (folder / "cert.pem").exists() else None
    parts = make_parts(
        river.url,
        river.folder,
        clock,
        fetch=lambda url: pem or nothing_comes(url),
        paypal_webhook_id=case["webhook_id"],
    )
    if "/certs/" not in told["paypal-cert-url"]:  # one source wrote its own address over PayPal's
        told["paypal-cert-url"] = "https://api.sandbox.paypal.com/v1/notifications/certs/CERT-1"
    sent = {name: value for name, value in told.items() if name.startswith("paypal-")}
    with open_door(container) as base:
        answer = httpx.post(base + PATH, content=(folder / "body.raw").read_bytes(), headers=sent)
    if answer.status_code == 200:
        assert river.event(case["event_id"]).type == case["event_type"]
        assert river.event(case["event_id"]).body_sha256 == case["body_sha256"]
    return answer.status_code


# Health and metrics


def test_a_river_that_runs_is_well(door: httpx.Client) -> None:
    answer = door.get("/healthz")
    assert answer.status_code == 200
    assert answer.json() == {
        "status": "well",
        "oldest_unhandled_event_seconds": 0.0,
        "oldest_unsent_mail_seconds": 0.0,
        "limit_seconds": 300,
    }


def test_an_event_that_nobody_handles_is_not_well(door: httpx.Client, brook: River) -> None:
    brook.store(delivery(happened(), "T-1"))
    brook.clock.advance(timedelta(seconds=300))
    assert door.get("/healthz").status_code == 200
    brook.clock.advance(timedelta(seconds=1))
    answer = door.get("/healthz")
    assert answer.status_code == 503
    assert answer.json()["status"] == "behind"
    assert answer.json()["oldest_unhandled_event_seconds"] == 301


def test_a_mail_that_nobody_sends_is_not_well(door: httpx.Client, brook: River) -> None:
    brook.owe(NewMail("receipt", "receipt:1", "I-ADA", {}))
    brook.clock.advance(timedelta(seconds=400))
    answer = door.get("/healthz")
    assert answer.status_code == 503
    assert answer.json()["oldest_unsent_mail_seconds"] == 400


def test_metrics_tell_prometheus_what_was_answered_and_what_waits(door: httpx.Client, brook: River) -> None:
    post(door)
    post(door, headers={})
    brook.clock.advance(timedelta(seconds=7))
    answer = door.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    told = dict(line.rsplit(" ", 1) for line in answer.text.splitlines() if not line.startswith("#"))
    assert told['smt_webhooks_total{status="200"}'] == "1.0"
    assert told['smt_webhooks_total{status="400"}'] == "1.0"
    assert told["smt_oldest_event_seconds"] == "7.0"
    assert told["smt_oldest_mail_seconds"] == "0.0"


def raw(door: httpx.Client, request: bytes) -> bytes:
    """What is answered to these bytes, as it comes over the wire."""
    where = urlsplit(str(door.base_url))
    with socket.create_connection((where.hostname or "", where.port or 0), timeout=30) as wire:
        wire.sendall(request)
        return wire.recv(65536)


def with_the_same_crc(body: bytes, model: bytes) -> bytes:
    """Alter the last four bytes of `body`, so that its CRC-32 is that of `model`."""
    head, wanted = body[:-4], zlib.crc32(model)
    start = zlib.crc32(head)
    # CRC-32 is affine over GF(2): solve the 32 unknown bits by what each of them changes.
    base = zlib.crc32(bytes(4), start)
    columns = [zlib.crc32((1 << bit).to_bytes(4, "little"), start) ^ base for bit in range(32)]
    left, chosen = wanted ^ base, 0
    basis: dict[int, tuple[int, int]] = {}
    for bit, column in enumerate(columns):
        mask = 1 << bit
        while column:
            top = column.bit_length()
            if top not in basis:
                basis[top] = column, mask
                break
            column, mask = column ^ basis[top][0], mask ^ basis[top][1]  # noqa: PLW2901 - elimination works in place
    while left:
        column, mask = basis[left.bit_length()]
        left, chosen = left ^ column, chosen ^ mask
    forged = head + chosen.to_bytes(4, "little")
    assert zlib.crc32(forged) == wanted
    return forged
