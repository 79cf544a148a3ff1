"""The client's address: a trusted proxy reports it; any other peer is the client itself."""

from collections.abc import Sequence

import pytest
from starlette.types import Message, Receive, Scope, Send
from structlog.testing import capture_logs

from pipeline.customers.rate_limit import PER_HOUR
from pipeline.web.client_address import ClientAddresses
from tests.support.pipeline_under_test import PipelineUnderTest, make_parts
from tests.support.raw_http import raw_request, status_of
from tests.support.running_roles import running
from tests.support.subprocesses import free_port

PROXIES = ("127.0.0.1", "::1", "10.213.78.0/24")


async def seen(peer: str | None, *forwarded: str, proxies: Sequence[str] = PROXIES) -> str | None:
    """Return the address that the application sees."""
    found: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        found.append(scope)

    await ask(ClientAddresses(app, proxies), peer, *forwarded)
    client = found[0]["client"]
    return client[0] if client else None


async def ask(layer: ClientAddresses, peer: str | None, *forwarded: str) -> None:
    async def receive() -> Message:
        raise AssertionError

    async def send(message: Message) -> None:
        raise AssertionError

    headers = [(b"x-forwarded-for", each.encode("latin-1")) for each in forwarded]
    await layer({"type": "http", "client": (peer, 1) if peer else None, "headers": headers}, receive, send)


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("127.0.0.1", (), "127.0.0.1"),
        ("127.0.0.1", ("192.0.2.7",), "192.0.2.7"),
        ("::ffff:127.0.0.1", ("192.0.2.7",), "192.0.2.7"),
        ("10.213.78.1", ("192.0.2.7:4321",), "192.0.2.7"),
        ("10.213.78.1", ("[2001:db8::7]:4321",), "2001:db8::7"),
        ("10.213.78.1", ("2001:db8::7",), "2001:db8::7"),
        ("10.213.78.1", ("::ffff:192.0.2.7",), "192.0.2.7"),
        ("127.0.0.1", ("198.51.100.1, 192.0.2.7, 10.213.78.9",), "192.0.2.7"),  # what the client wrote is to the left
        ("127.0.0.1", ("198.51.100.1", "192.0.2.7"), "192.0.2.7"),
        ("127.0.0.1", ("127.0.0.1",), "127.0.0.1"),
        ("127.0.0.1", ("bogus1",), "127.0.0.1"),
        ("127.0.0.1", ("192.0.2.7, unknown",), "127.0.0.1"),
        ("127.0.0.1", ("192.0.2.7, bogus, 10.213.78.9",), "127.0.0.1"),
        ("127.0.0.1", ("",), "127.0.0.1"),
        ("127.0.0.1", (",",), "127.0.0.1"),
        ("127.0.0.1", ("1.2.3.4\xff",), "127.0.0.1"),
        ("203.0.113.5", ("192.0.2.7",), "203.0.113.5"),
        ("10.213.79.1", ("192.0.2.7",), "10.213.79.1"),
        (None, ("192.0.2.7",), None),
    ],
)
async def test_address_comes_from_trusted_proxies_only(
    peer: str | None, forwarded: tuple[str, ...], client: str | None
) -> None:
    assert await seen(peer, *forwarded) == client


async def test_endless_chain_of_proxies_is_read_in_part() -> None:
    assert await seen("127.0.0.1", "192.0.2.7" + ", 127.0.0.1" * 5000) == "127.0.0.1"


async def test_header_of_untrusted_peer_is_logged_once_a_minute() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        pass

    layer = ClientAddresses(app, PROXIES)
    with capture_logs() as logs:
        for number in range(50):
            await ask(layer, "172.18.0.1", f"192.0.2.{number}")
        await ask(layer, "172.18.0.1")
    assert [(each["event"], each["peer"]) for each in logs] == [("forwarded_address_ignored", "172.18.0.1")]
    assert "SMT_TRUSTED_PROXIES" in logs[0]["advice"]


async def test_public_peer_is_not_logged() -> None:
    with capture_logs() as logs:
        await seen("1.1.1.1", "192.0.2.7")  # examples of RFC 5737 count as private
        await seen(None, "192.0.2.7")
    assert [each["peer"] for each in logs] == ["a public address"] * 2


@pytest.mark.parametrize(("trusted", "last"), [(("127.0.0.1",), 200), (("10.213.78.0/24",), 429)])
def test_rate_limit_counts_visitors_behind_a_trusted_proxy_apart(
    sqlite_pipeline: PipelineUnderTest, monkeypatch: pytest.MonkeyPatch, trusted: tuple[str, ...], last: int
) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")  # uvicorn's own setting does not count
    container = make_parts(
        sqlite_pipeline.url, sqlite_pipeline.folder, sqlite_pipeline.clock,
        web_port=free_port(), trusted_proxies=trusted,
    )  # fmt: skip
    with running({"web": container}):
        answers = [
            raw_request(container.settings.web_port, "POST", "/account", f"X-Forwarded-For: 192.0.2.{number}",
                        body="email=ada%40example.com")
            for number in range(PER_HOUR["ask_for_link"] + 1)
        ]  # fmt: skip
    assert [status_of(each) for each in answers] == [200] * PER_HOUR["ask_for_link"] + [last]


def test_made_up_addresses_share_one_limit(sqlite_pipeline: PipelineUnderTest) -> None:
    container = make_parts(sqlite_pipeline.url, sqlite_pipeline.folder, sqlite_pipeline.clock, web_port=free_port())
    with running({"web": container}):
        statuses = [
            status_of(raw_request(container.settings.web_port, "POST", "/account", f"X-Forwarded-For: bogus{number}",
                                  body="email=ada%40example.com"))
            for number in range(PER_HOUR["ask_for_link"] + 1)
        ]  # fmt: skip
    assert statuses[-1] == 429
