"""The Host header: only ours is accepted, and it decides nothing."""

from collections.abc import Iterator

import pytest

from tests.support.pipeline_under_test import PipelineUnderTest, make_parts
from tests.support.raw_http import raw_request, status_of
from tests.support.running_roles import running
from tests.support.subprocesses import free_port

OURS = "billing.example.com"
LINK = "/account/open/SECRET"


@pytest.fixture
def port(sqlite_pipeline: PipelineUnderTest) -> Iterator[int]:
    container = make_parts(
        sqlite_pipeline.url, sqlite_pipeline.folder, sqlite_pipeline.clock,
        public_url=f"https://{OURS}", web_port=free_port(),
    )  # fmt: skip
    with running({"web": container}):
        yield container.settings.web_port


def test_hosts_that_are_ours_are_accepted(port: int) -> None:
    hosts = (OURS, OURS.upper(), f"{OURS}:443", "127.0.0.1", f"127.0.0.1:{port}", "localhost:8000", "[::1]", "[::1]:80")
    assert {host: status_of(raw_request(port, "GET", "/account", host=host)) for host in hosts} == dict.fromkeys(
        hosts, 200
    )


def test_other_hosts_are_refused(port: int) -> None:
    hosts = (
        "evil.example", f"{OURS}.evil.example", f"evil.{OURS}", f"{OURS}:8443", f"{OURS}@evil.example", f"{OURS}/x",
        "127.0.0.1.evil.example", "127.0.0.1:x", "localhost:", "::1", "", f"{OURS} ,evil.example", "10.0.0.1", "\xff",
    )  # fmt: skip
    refused = {host: raw_request(port, "GET", "/account", host=host) for host in hosts}
    assert {host: status_of(answer) for host, answer in refused.items() if status_of(answer) not in (400, 421)} == {}
    assert not any(b"evil" in answer for answer in refused.values())


@pytest.mark.parametrize("path", ["/account", "/webhooks/paypal", "/healthz", "/nowhere"])
def test_missing_or_second_host_is_refused(port: int, path: str) -> None:
    assert status_of(raw_request(port, "GET", path, host=None)) == 400
    assert status_of(raw_request(port, "GET", path, f"Host: {OURS}")) == 400
    assert status_of(raw_request(port, "GET", path, f"Host: {OURS}", host=OURS)) == 400


def test_webhooks_and_health_check_accept_every_host(port: int) -> None:
    assert status_of(raw_request(port, "GET", "/healthz", host="web:8000")) == 200
    refused = raw_request(port, "POST", "/webhooks/paypal", host="tunnel.example.net", body="x")
    assert b"paypal-transmission-id is missing" in refused


@pytest.mark.parametrize("host", [OURS, "evil.example", "127.0.0.1"])
@pytest.mark.parametrize("path", [f"{LINK}/", "/account/", "/signup/", "/privacy/2025-05-01/", "/webhooks/paypal/"])
def test_no_redirect_is_built_from_the_host(port: int, host: str, path: str) -> None:
    answer = raw_request(port, "GET", path, host=host)
    assert status_of(answer) in (404, 405, 421)
    assert b"location:" not in answer.lower()
    assert b"SECRET" not in answer
