"""Responses of the webhook endpoint over real sockets: RFC 9457 problem bodies, and 200 only for stored events."""

import json
import re
import socket
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import delete
from structlog.testing import capture_logs

from pipeline.app.container import Container
from pipeline.clock import MovableClock
from pipeline.db.models import Event, Subscription
from pipeline.operations import heartbeat
from pipeline.operations.health import Health, HealthCheck
from pipeline.outbox.store import NewMail
from pipeline.simulator.server.loopback import serve
from pipeline.simulator.server.signing import Signer
from pipeline.web.snapshot import SHARED_SECONDS
from pipeline.web.views.webhook import LARGEST_BODY, LONGEST_REASON
from tests.support.pipeline_under_test import (
    HAPPENED,
    WEBHOOK_ID,
    PipelineUnderTest,
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
def container(sqlite_pipeline: PipelineUnderTest) -> Container:
    return make_parts(sqlite_pipeline.url, sqlite_pipeline.folder, sqlite_pipeline.clock)


@pytest.fixture
def client(container: Container) -> Iterator[httpx.Client]:
    with open_door(container) as base, httpx.Client(base_url=base, verify=False, trust_env=False, timeout=30) as http:
        yield http


def post(client: httpx.Client, body: bytes = BODY, headers: Mapping[str, str] | None = None) -> httpx.Response:
    return client.post(PATH, content=body, headers=sign(body) if headers is None else headers)


def assert_problem(answer: httpx.Response, status: int, words: str = "") -> None:
    """Check media type, title and status of a problem response (RFC 9457 section 3)."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert set(problem) == {"type", "title", "status", "detail"}
    assert problem["status"] == status
    assert problem["type"] == "about:blank"
    assert problem["title"] == HTTPStatus(status).phrase
    assert re.search(words, problem["detail"]), problem["detail"]


# 200


def test_signed_event_is_stored_and_gets_200(client: httpx.Client, sqlite_pipeline: PipelineUnderTest) -> None:
    answer = post(client)
    assert (answer.status_code, answer.json()) == (200, {"id": "WH-1", "outcome": "stored"})
    assert sqlite_pipeline.states() == {"WH-1": "received"}
    assert sqlite_pipeline.event("WH-1").signature_verdict == f"signed for webhook {WEBHOOK_ID}"


def test_duplicate_gets_200_and_changes_nothing(client: httpx.Client, sqlite_pipeline: PipelineUnderTest) -> None:
    post(client)
    assert post(client).json() == {"id": "WH-1", "outcome": "duplicate"}
    assert sqlite_pipeline.states() == {"WH-1": "received"}


def test_different_body_with_known_id_gets_200_and_is_parked(
    client: httpx.Client, sqlite_pipeline: PipelineUnderTest
) -> None:
    post(client)
    other = orjson.dumps(happened(resource={"id": "other"}))
    assert post(client, other).json()["outcome"] == "stored"
    assert sorted(sqlite_pipeline.states().values()) == ["parked", "received"]


@pytest.mark.parametrize(
    ("body", "state"),
    [
        (b"hello, this is not JSON", "parked"),
        (b"", "parked"),
        (b"[]", "parked"),
        (orjson.dumps({"event_type": HAPPENED}), "parked"),
        (orjson.dumps(happened(kind="UNKNOWN.EVENT.TYPE")), "received"),
        (orjson.dumps(happened(create_time="2026-99-99T99:99:99Z")), "received"),
        (orjson.dumps(happened(kind="PAYMENT.SALE.COMPLETED", resource="not an object")), "received"),
        (
            orjson.dumps(happened(kind="PAYMENT.SALE.COMPLETED", resource={"id": "S1", "create_time": "soon"})),
            "received",
        ),
    ],
    ids=["no JSON", "nothing", "a list", "no id", "unknown type", "no such time", "no resource", "unreadable time"],
)
def test_unreadable_event_is_stored_and_gets_200(
    client: httpx.Client, sqlite_pipeline: PipelineUnderTest, body: bytes, state: str
) -> None:
    assert post(client, body).status_code == 200
    assert list(sqlite_pipeline.states().values()) == [state]
    [row] = sqlite_pipeline.rows(Event)
    assert (row.reason is not None) == (state == "parked")


def test_body_of_256_kib_is_accepted(client: httpx.Client, sqlite_pipeline: PipelineUnderTest) -> None:
    body = orjson.dumps(happened(padding=""))
    body = body.replace(b'"padding":""', b'"padding":"%s"' % (b"x" * (LARGEST_BODY - len(body))))
    assert len(body) == LARGEST_BODY
    assert post(client, body).status_code == 200


def test_chunked_body_is_accepted(client: httpx.Client) -> None:
    answer = client.post(PATH, content=(bytes([byte]) for byte in BODY), headers=sign(BODY))
    assert answer.request.headers["transfer-encoding"] == "chunked"
    assert answer.status_code == 200


def test_any_configured_webhook_id_is_accepted(sqlite_pipeline: PipelineUnderTest) -> None:
    container = make_parts(
        sqlite_pipeline.url, sqlite_pipeline.folder, sqlite_pipeline.clock, paypal_webhook_id="1JE4291016473214C,OTHER"
    )
    with open_door(container) as base:
        for number, webhook_id in enumerate(("1JE4291016473214C", "OTHER")):
            body = orjson.dumps(happened(f"WH-{number}"))
            assert httpx.post(base + PATH, content=body, headers=sign(body, webhook_id)).status_code == 200
        assert httpx.post(base + PATH, content=BODY, headers=sign(BODY)).status_code == 403
    assert sqlite_pipeline.event("WH-1").signature_verdict == "signed for webhook OTHER"


# 400


@pytest.mark.parametrize("name", ["ID", "TIME", "SIG", "CERT-URL", "AUTH-ALGO"])
def test_missing_header_gets_400(client: httpx.Client, sqlite_pipeline: PipelineUnderTest, name: str) -> None:
    names = {"CERT-URL": "PAYPAL-CERT-URL", "AUTH-ALGO": "PAYPAL-AUTH-ALGO"}
    missing = names.get(name, f"PAYPAL-TRANSMISSION-{name}")
    headers = {key: value for key, value in sign(BODY).items() if key != missing}
    assert_problem(post(client, headers=headers), 400, f"{missing.lower()} is missing")
    assert sqlite_pipeline.states() == {}


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
def test_malformed_header_gets_400(client: httpx.Client, name: str, value: str) -> None:
    assert_problem(post(client, headers=sign(BODY) | {name: value}), 400, name.lower())


def test_duplicate_header_gets_400(client: httpx.Client) -> None:
    duplicated = [*sign(BODY).items(), ("Paypal-Transmission-Id", "another")]
    assert_problem(client.post(PATH, content=BODY, headers=duplicated), 400, "duplicate header")


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
def test_delivery_not_from_paypal_gets_403(
    client: httpx.Client, sqlite_pipeline: PipelineUnderTest, alter: Callable[[Headers], Headers], words: str
) -> None:
    assert_problem(post(client, headers=alter(sign(BODY))), 403, words)
    assert sqlite_pipeline.states() == {}


def test_changed_body_gets_403(client: httpx.Client) -> None:
    assert_problem(post(client, BODY + b" ", headers=sign(BODY)), 403, "signature")


def test_delivery_for_another_webhook_gets_403(client: httpx.Client) -> None:
    assert_problem(post(client, headers=sign(BODY, "1JE4291016473214C")), 403, "webhook id is not ours")


def test_signature_of_another_key_gets_403(client: httpx.Client, sqlite_pipeline: PipelineUnderTest) -> None:
    other_signer = Signer(since=sqlite_pipeline.now, until=sqlite_pipeline.now)
    forged = other_signer.sign(BODY, WEBHOOK_ID, sqlite_pipeline.now) | {"PAYPAL-CERT-URL": signer().cert_url}
    assert_problem(post(client, headers=forged), 403, "signature")


def test_foreign_or_expired_certificate_gets_403(sqlite_pipeline: PipelineUnderTest) -> None:
    url = "https://api.paypal.com/v1/notifications/certs/CERT-1"
    old = Signer(since=sqlite_pipeline.now - timedelta(days=900), until=sqlite_pipeline.now - timedelta(days=800))
    headers = old.sign(BODY, WEBHOOK_ID, sqlite_pipeline.now) | {"PAYPAL-CERT-URL": url}
    for pem, words in ((old.leaf_pem, "valid from"), (old.root_pem, "not PayPal's")):
        url, folder, clock = sqlite_pipeline.url, sqlite_pipeline.folder, sqlite_pipeline.clock
        container = make_parts(url, folder, clock, fetch=lambda _, pem=pem: pem)  # type: ignore[misc]
        with open_door(container) as base:
            assert_problem(httpx.post(base + PATH, content=BODY, headers=headers), 403, words)
    assert sqlite_pipeline.states() == {}


def test_transmission_with_a_different_body_gets_403(client: httpx.Client, sqlite_pipeline: PipelineUnderTest) -> None:
    """The signature covers only the CRC-32 of the body, so another body with the same CRC can be constructed."""
    headers = sign(BODY)
    assert post(client, headers=headers).status_code == 200
    forged = with_same_crc(orjson.dumps(happened("WH-2")) + b" " * 4, BODY)
    assert_problem(post(client, forged, headers=headers), 403, "has already signed a different body")
    assert sqlite_pipeline.states() == {"WH-1": "received"}


@pytest.mark.parametrize("accept", [True, False])
def test_paypals_simulator_is_accepted_only_if_enabled(sqlite_pipeline: PipelineUnderTest, accept: bool) -> None:
    ours = () if accept else WEBHOOK_ID
    container = make_parts(
        sqlite_pipeline.url,
        sqlite_pipeline.folder,
        sqlite_pipeline.clock,
        paypal_webhook_id=ours,
        paypal_accept_simulator=accept,
    )
    with open_door(container) as base:
        answer = httpx.post(base + PATH, content=BODY, headers=sign(BODY, "WEBHOOK_ID"))
    if accept:
        assert answer.status_code == 200
        assert sqlite_pipeline.event("WH-1").signature_verdict == "signed by PayPal's simulator"
    else:
        assert_problem(answer, 403, "simulator")


def test_algorithm_is_checked_before_certificate_is_fetched(sqlite_pipeline: PipelineUnderTest) -> None:
    fetched: list[str] = []

    def fetch(url: str) -> bytes:
        fetched.append(url)
        return nothing_comes(url)

    elsewhere = {"PAYPAL-CERT-URL": "https://api.paypal.com/v1/notifications/certs/CERT-2"}
    with open_door(make_parts(sqlite_pipeline.url, sqlite_pipeline.folder, sqlite_pipeline.clock, fetch=fetch)) as base:
        headers = sign(BODY) | elsewhere | {"PAYPAL-AUTH-ALGO": "SHA1withRSA"}
        assert_problem(httpx.post(base + PATH, content=BODY, headers=headers), 403, "SHA256withRSA")
    assert fetched == []


# 404, 405, 408, 413


def test_unknown_path_gets_404(client: httpx.Client) -> None:
    assert_problem(client.get("/"), 404, "no page at this address")
    assert_problem(client.post("/webhooks/paypal/more", content=BODY), 404)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
def test_other_method_gets_405_with_allowed_method(client: httpx.Client, method: str) -> None:
    answer = client.request(method, PATH)
    assert_problem(answer, 405, f"{method} is not allowed here; use POST")
    assert answer.headers["allow"] == "POST"


def test_head_request_gets_405(client: httpx.Client) -> None:
    assert client.head(PATH).status_code == 405


def test_body_over_256_kib_gets_413(client: httpx.Client, sqlite_pipeline: PipelineUnderTest) -> None:
    body = b"x" * (LARGEST_BODY + 1)
    assert_problem(post(client, body, headers=sign(body)), 413, "256 KiB")
    assert sqlite_pipeline.states() == {}
    assert post(client).status_code == 200


def test_chunked_body_over_256_kib_gets_413(client: httpx.Client, sqlite_pipeline: PipelineUnderTest) -> None:
    answer = client.post(PATH, content=(b"x" * 65536 for _ in range(5)), headers=sign(b""))
    assert_problem(answer, 413, "256 KiB")
    assert sqlite_pipeline.states() == {}


def test_declared_size_over_limit_is_refused_without_the_body(client: httpx.Client) -> None:
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\n\r\n"
    assert raw(client, head.encode()).startswith(b"HTTP/1.1 413")


def test_incomplete_body_gets_408(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf"
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.web.views.webhook.SLOWEST_SECONDS", 0.05)
        assert raw(client, head.encode()).startswith(b"HTTP/1.1 408")
    assert post(client).status_code == 200


# 503


def test_unavailable_certificate_gets_503(client: httpx.Client, sqlite_pipeline: PipelineUnderTest) -> None:
    elsewhere = {"PAYPAL-CERT-URL": "https://api.paypal.com/v1/notifications/certs/CERT-2"}
    answer = post(client, headers=sign(BODY) | elsewhere)
    assert_problem(answer, 503, "send it again")
    assert answer.headers["retry-after"] == "30"
    assert sqlite_pipeline.states() == {}


def test_unavailable_database_gets_503(sqlite_pipeline: PipelineUnderTest) -> None:
    container = make_parts(
        f"postgresql://127.0.0.1:{free_port()}/billing", sqlite_pipeline.folder, sqlite_pipeline.clock
    )
    with open_door(container) as base:
        assert_problem(httpx.post(base + PATH, content=BODY, headers=sign(BODY)), 503, "send it again")
        answer = httpx.get(base + "/healthz")
        assert (answer.status_code, answer.json()) == (503, {"status": "behind"})


def test_internal_error_gets_503_without_details(container: Container, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr("pipeline.webhooks.receiver.parse_webhook", fail)
    web = container.web()
    with serve(web.app()) as base, serve(web.monitoring_app()) as inside:
        answer = httpx.post(base + PATH, content=BODY, headers=sign(BODY))
        counted = httpx.get(inside + "/metrics").text
    assert_problem(answer, 503, "our side")
    assert "secret" not in answer.text
    assert 'smt_webhooks_total{status="503"} 1.0' in counted


# Recorded deliveries from PayPal


def test_recorded_deliveries_get_the_expected_status(sqlite_pipeline: PipelineUnderTest, shared: Path) -> None:
    """Each delivery is verified at its own time, because the certificates have expired since."""
    cases = sorted((shared / "signed").glob("*/case.json"))
    assert len(cases) >= 8
    answers = {path.parent.name: status_of_recorded(sqlite_pipeline, path.parent) for path in cases}
    expected = {path.parent.name: json.loads(path.read_text())["expect"] for path in cases}
    statuses = {"verifies": {200}, "must-fail": {403}, "unverifiable": {403, 503}}
    wrong = {name: answers[name] for name in answers if answers[name] not in statuses[expected[name]]}
    assert wrong == {}
    assert sorted(set(expected.values())) == sorted(statuses)


def status_of_recorded(pipeline: PipelineUnderTest, folder: Path) -> int:
    case, headers = json.loads((folder / "case.json").read_text()), json.loads((folder / "headers.json").read_text())
    recorded = {name.lower(): value for name, value in headers.items()}
    clock = MovableClock(datetime.fromisoformat(recorded["paypal-transmission-time"]))
    pem = (folder / "cert.pem").read_bytes() if (folder / "cert.pem").exists() else None
    container = make_parts(
        pipeline.url,
        pipeline.folder,
        clock,
        fetch=lambda url: pem or nothing_comes(url),
        paypal_webhook_id=case["webhook_id"],
    )
    if "/certs/" not in recorded["paypal-cert-url"]:  # one source replaced PayPal's URL with its own
        recorded["paypal-cert-url"] = "https://api.sandbox.paypal.com/v1/notifications/certs/CERT-1"
    sent = {name: value for name, value in recorded.items() if name.startswith("paypal-")}
    with open_door(container) as base:
        answer = httpx.post(base + PATH, content=(folder / "body.raw").read_bytes(), headers=sent)
    if answer.status_code == 200:
        assert pipeline.event(case["event_id"]).type == case["event_type"]
        assert pipeline.event(case["event_id"]).body_sha256 == case["body_sha256"]
    return answer.status_code


# Health and metrics. tests/pipeline/app/test_monitoring.py tests them with all roles.


@pytest.fixture
def monitor(container: Container) -> Iterator[httpx.Client]:
    """A client of the listener for monitoring."""
    with serve(container.web().monitoring_app()) as base, httpx.Client(base_url=base, trust_env=False) as client:
        yield client


def beat(pipeline: PipelineUnderTest) -> None:
    for role in ("worker", "scheduler"):
        heartbeat.write(pipeline.folder, role, pipeline.now)


def test_health_is_ok_without_backlog(client: httpx.Client, sqlite_pipeline: PipelineUnderTest) -> None:
    beat(sqlite_pipeline)
    answer = client.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "well"})


def test_health_details_keep_their_keys(monitor: httpx.Client, sqlite_pipeline: PipelineUnderTest) -> None:
    beat(sqlite_pipeline)
    answer = monitor.get("/healthz")
    assert answer.status_code == 200
    old = ("status", "oldest_unhandled_event_seconds", "oldest_unsent_mail_seconds", "limit_seconds")
    assert {key: answer.json()[key] for key in old} == dict(zip(old, ("well", 0.0, 0.0, 300), strict=True))


@pytest.mark.parametrize(("seconds", "expected"), [(300, (200, "well")), (301, (503, "behind"))])
def test_health_fails_when_event_waits_too_long(
    client: httpx.Client, sqlite_pipeline: PipelineUnderTest, seconds: int, expected: tuple[int, str]
) -> None:
    sqlite_pipeline.store(delivery(happened(), "T-1"))
    sqlite_pipeline.clock.advance(timedelta(seconds=seconds))
    beat(sqlite_pipeline)
    answer = client.get("/healthz")
    assert (answer.status_code, answer.json()["status"]) == expected


def test_flood_of_health_requests_is_no_flood_of_queries(
    container: Container, client: httpx.Client, monitor: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[datetime | None] = []
    take = HealthCheck.take

    def counted(self: HealthCheck, now: datetime | None = None) -> Health:
        taken.append(now)
        return take(self, now)

    monkeypatch.setattr(HealthCheck, "take", counted)
    began = time.monotonic()
    for _ in range(50):
        client.get("/healthz")
    assert 1 <= len(taken) <= (time.monotonic() - began) / SHARED_SECONDS + 1
    before = len(taken)
    for _ in range(3):
        monitor.get("/healthz")
    assert len(taken) == before + 3  # monitoring sees the present state


def test_problem_that_needs_a_decision_is_no_503(client: httpx.Client, sqlite_pipeline: PipelineUnderTest) -> None:
    """The word changes; the code does not, because no restart and no other server would help."""
    sqlite_pipeline.owe(NewMail("receipt", "receipt:1", "I-ADA", {}, has_address=False))
    sqlite_pipeline.clock.advance(timedelta(days=2))
    beat(sqlite_pipeline)
    answer = client.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "behind"})


def test_metrics_count_responses_and_waiting_times(container: Container, sqlite_pipeline: PipelineUnderTest) -> None:
    web = container.web()
    container.group_committer.start()
    with serve(web.app()) as public, serve(web.monitoring_app()) as inside, httpx.Client(base_url=public) as client:
        post(client)
        post(client, headers={})
        sqlite_pipeline.clock.advance(timedelta(seconds=7))
        answer = httpx.get(inside + "/metrics")
        assert client.get("/metrics").status_code == 404
    container.group_committer.stop()
    assert answer.headers["content-type"].startswith("text/plain; version=")
    metrics = dict(line.rsplit(" ", 1) for line in answer.text.splitlines() if not line.startswith("#"))
    assert metrics['smt_webhooks_total{status="200"}'] == "1.0"
    assert metrics['smt_webhooks_total{status="400"}'] == "1.0"
    assert metrics["smt_oldest_event_seconds"] == "7.0"
    assert metrics["smt_oldest_mail_seconds"] == "0.0"


def test_metrics_count_subscriptions_by_status(monitor: httpx.Client, sqlite_pipeline: PipelineUnderTest) -> None:
    add_subscriptions(sqlite_pipeline, ("ACTIVE", None), ("ACTIVE", 0), ("SUSPENDED", -1), ("ACTIVE", 1), (None, None))
    text = monitor.get("/metrics").text
    assert 'smt_subscriptions{past_due="false",status="ACTIVE"} 2.0' in text
    assert 'smt_subscriptions{past_due="true",status="ACTIVE"} 1.0' in text
    assert 'smt_subscriptions{past_due="true",status="SUSPENDED"} 1.0' in text
    assert text.count("smt_subscriptions{") == 3
    with sqlite_pipeline.database.transaction() as session:
        session.execute(delete(Subscription).where(Subscription.status == "SUSPENDED"))
    assert 'status="SUSPENDED"' not in monitor.get("/metrics").text


def add_subscriptions(pipeline: PipelineUnderTest, *rows: tuple[str | None, int | None]) -> None:
    """Add one subscription for each status and hours from now until it is past due (None: never)."""
    with pipeline.database.transaction() as session:
        for number, (status, hours) in enumerate(rows):
            at = None if hours is None else pipeline.now + timedelta(hours=hours)
            session.add(
                Subscription(id=f"I-{number}", known={}, status=status, past_due_at=at, created_at=pipeline.now)
            )


def test_metrics_follow_the_format_and_the_naming_rules(monitor: httpx.Client) -> None:
    """https://prometheus.io/docs/practices/naming/: a base unit as suffix, `_total` for counters and only for them."""
    families = list(text_string_to_metric_families(monitor.get("/metrics").text))
    assert len({family.name for family in families}) == len(families) > 8
    for family in families:
        assert re.fullmatch(r"smt_[a-z]+(_[a-z]+)*", family.name)
        assert family.documentation
        assert not re.search(r"_(milliseconds|minutes|ms|count|sum|bucket|total|info)$", family.name)
        if family.type == "counter":
            assert {sample.name for sample in family.samples} <= {f"{family.name}_total", f"{family.name}_created"}


def raw(client: httpx.Client, request: bytes) -> bytes:
    """Send raw bytes and return the first part of the response."""
    url = urlsplit(str(client.base_url))
    with socket.create_connection((url.hostname or "", url.port or 0), timeout=30) as connection:
        connection.sendall(request)
        return connection.recv(65536)


def with_same_crc(body: bytes, model: bytes) -> bytes:
    """Change the last four bytes of `body`, so that its CRC-32 equals that of `model`."""
    head, target = body[:-4], zlib.crc32(model)
    start = zlib.crc32(head)
    # CRC-32 is affine over GF(2), so the 32 unknown bits follow from the change that each of them causes.
    base = zlib.crc32(bytes(4), start)
    columns = [zlib.crc32((1 << bit).to_bytes(4, "little"), start) ^ base for bit in range(32)]
    left, chosen = target ^ base, 0
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
    assert zlib.crc32(forged) == target
    return forged


# Log

CERTIFICATES = "https://api.paypal.com/v1/notifications/certs"


@pytest.mark.parametrize(
    ("headers", "body", "status", "event"),
    [
        ({"PAYPAL-AUTH-ALGO": "SHA1withRSA"}, BODY, 403, "webhook_refused"),
        ({"PAYPAL-CERT-URL": f"{CERTIFICATES}/CERT-made-up"}, BODY, 503, "webhook_deferred"),
        ({"PAYPAL-TRANSMISSION-TIME": "x" * 5000}, BODY, 400, "webhook_unreadable"),
        ({}, b"x" * (LARGEST_BODY + 1), 413, "webhook_unreadable"),
    ],
)
def test_flood_of_refused_webhooks_does_not_flood_the_log(
    client: httpx.Client, headers: Headers, body: bytes, status: int, event: str
) -> None:
    began = time.monotonic()
    with capture_logs() as logs:
        answers = {post(client, body, headers=sign(BODY) | headers).status_code for _ in range(60)}
    assert answers == {status}
    lines = [each for each in logs if each["event"] == event]
    assert 1 <= len(lines) <= time.monotonic() - began + 1
    assert all(len(each["reason"]) <= LONGEST_REASON for each in lines)
    assert event != "webhook_unreadable" or {each["status"] for each in lines} == {status}
