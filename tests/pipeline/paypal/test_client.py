"""The client against a real server on loopback that plays PayPal's API."""

import base64
import json
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pipeline.paypal.api import PaypalApi
from pipeline.paypal.client import PaypalClient
from pipeline.paypal.errors import PaypalNotFoundError, PaypalRejectedError, PaypalUnavailableError
from pipeline.paypal.requests import LookupKind, SalesGetRequest
from pipeline.settings import SettingsError
from tests.support.loopback_http import Answer, Asked, Loopback, loopback

ID, SECRET = "example-client", "example:secret/+ü"
TOKEN = "/v1/oauth2/token"
SALE = "/v1/payments/sale/80021663DE681814L"
HELD = {"id": "80021663DE681814L", "billing_agreement_id": "I-BW452GLLEP1G", "Mixed-Case": {"dict": 1}}


def as_json(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Answer:
    return Answer(status, json.dumps(value).encode(), {"Content-Type": "application/json"} | (headers or {}))


def error(status: int, name: str, debug_id: str = "90957fca61718") -> Answer:
    return as_json({"name": name, "message": "jane@example.com", "debug_id": debug_id}, status)


class Api:
    """PayPal's API: hands out the tokens 1, 2, ..., takes those not in `refused`, and answers `held` to every read."""

    def __init__(self) -> None:
        self.tokens, self.refused, self.expires_in = 0, set[str](), 32400
        self.token: Callable[[], Answer] | None = None
        self.held: Callable[[], Answer] = lambda: as_json(HELD)

    def __call__(self, asked: Asked) -> Answer:
        if asked.path == TOKEN:
            self.tokens += 1
            found = {"access_token": f"A21AA-{self.tokens}", "token_type": "Bearer", "expires_in": self.expires_in}
            return self.token() if self.token else as_json(found)
        if asked.headers.get("authorization", "").removeprefix("Bearer A21AA-") in self.refused:
            return as_json({"error": "invalid_token", "error_description": "A21AA-1"}, 401)
        return self.held()


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
def server(api: Api) -> Iterator[Loopback]:
    with loopback(api) as serving:
        yield serving


@pytest.fixture
def paypal(server: Loopback) -> Iterator[PaypalApi]:
    with ExitStack() as stack:
        client = PaypalApi(f"http://127.0.0.1:{server.port}/", ID, SECRET, connect_seconds=2, read_seconds=2)
        stack.callback(client.close)
        yield client


def read_sale(paypal: PaypalApi) -> dict[str, Any]:
    return paypal.get("sale", "80021663DE681814L")


# Reads


@pytest.mark.parametrize(
    ("kind", "id", "path"),
    [
        ("subscription", "I-BW452GLLEP1G", "/v1/billing/subscriptions/I-BW452GLLEP1G?fields=last_failed_payment,plan"),
        ("plan", "P-5ML4271244454362W", "/v1/billing/plans/P-5ML4271244454362W"),
        ("sale", "80021663DE681814L", SALE),
        ("refund", "4CF18861HF410323U", "/v1/payments/refund/4CF18861HF410323U"),
    ],
)
def test_each_kind_is_read_from_its_own_address(
    kind: LookupKind, id: str, path: str, paypal: PaypalApi, server: Loopback
) -> None:
    assert paypal.get(kind, id) == HELD
    token, read = server.asked
    basic = base64.b64encode(f"{ID}:{SECRET}".encode()).decode()
    assert (token.verb, token.path, token.body) == ("POST", TOKEN, b"grant_type=client_credentials")
    assert token.headers["authorization"] == f"Basic {basic}"
    assert token.headers["content-type"] == "application/x-www-form-urlencoded"
    assert (read.verb, read.path, read.body) == ("GET", path, b"")
    assert read.headers["authorization"] == "Bearer A21AA-1"


@pytest.mark.parametrize(
    "id", ["", "../../oauth2/token", "I-1/cancel", "I-1?x", "I-1#", "I 1", "I-1\n", "é", "%2e", "A" * 65]
)
def test_what_can_be_no_id_is_not_asked_for(id: str, paypal: PaypalApi, server: Loopback) -> None:
    with pytest.raises(PaypalNotFoundError):
        paypal.get("subscription", id)
    assert server.asked == []


def test_one_connection_and_one_token_serve_call_after_call(paypal: PaypalApi, server: Loopback) -> None:
    for _ in range(5):
        assert read_sale(paypal) == HELD
    assert (server.connections, server.count(TOKEN), server.count(SALE)) == (1, 1, 5)


def test_an_empty_answer_is_an_empty_object(paypal: PaypalApi, api: Api) -> None:
    api.held = lambda: Answer(204)
    assert read_sale(paypal) == {}


# The token


def test_first_calls_in_parallel_fetch_one_token(paypal: PaypalApi, server: Loopback) -> None:
    start = threading.Barrier(8)

    def read(_: int) -> dict[str, Any]:
        start.wait()
        return read_sale(paypal)

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(read, range(8))) == [HELD] * 8
    assert (server.count(TOKEN), server.count(SALE)) == (1, 8)


def test_a_refused_token_is_replaced_once_and_the_call_succeeds(paypal: PaypalApi, server: Loopback, api: Api) -> None:
    read_sale(paypal)
    api.refused = {"1"}
    assert read_sale(paypal) == HELD
    assert read_sale(paypal) == HELD
    assert (server.count(TOKEN), server.count(SALE)) == (2, 4)


def test_calls_in_parallel_replace_a_refused_token_once(paypal: PaypalApi, server: Loopback, api: Api) -> None:
    read_sale(paypal)
    start, together = threading.Barrier(6), threading.Barrier(6)
    api.refused = {"1"}

    def read(_: int) -> dict[str, Any]:
        start.wait()
        return read_sale(paypal)

    def hold() -> Answer:
        together.wait()
        return as_json(HELD)

    api.held = hold
    with ThreadPoolExecutor(6) as threads:
        assert list(threads.map(read, range(6))) == [HELD] * 6
    assert server.count(TOKEN) == 2


def test_a_second_refusal_is_the_answer(paypal: PaypalApi, server: Loopback, api: Api) -> None:
    api.refused = {"1", "2"}
    with pytest.raises(PaypalRejectedError, match="SMT_PAYPAL_CLIENT_SECRET") as rejected:
        read_sale(paypal)
    assert (rejected.value.status, rejected.value.name) == (401, "invalid_token")
    assert (server.count(TOKEN), server.count(SALE)) == (2, 2)


def test_a_token_is_not_used_in_its_last_minute(server: Loopback) -> None:
    elapsed = 1000.0
    client = PaypalClient(f"http://127.0.0.1:{server.port}", ID, SECRET, elapsed=lambda: elapsed)
    sale = SalesGetRequest("80021663DE681814L")
    client.execute(sale)
    elapsed += 32400 - 60 - 1
    client.execute(sale)
    assert server.count(TOKEN) == 1
    elapsed += 1
    client.execute(sale)
    client.close()
    assert server.count(TOKEN) == 2
    assert server.asked[-1].headers["authorization"] == "Bearer A21AA-2"


def test_the_credentials_can_be_checked(paypal: PaypalApi, server: Loopback, api: Api) -> None:
    paypal.check_credentials()
    api.token = lambda: as_json({"error": "invalid_client", "error_description": "no"}, 401, {"Paypal-Debug-Id": "f1"})
    with pytest.raises(PaypalRejectedError, match=r"401 invalid_client \(debug id f1\)"):
        paypal.check_credentials()
    assert (server.count(TOKEN), len(server.asked)) == (2, 2)


@pytest.mark.parametrize(
    "found",
    [{}, {"access_token": "", "expires_in": 1}, {"access_token": "a\nb", "expires_in": 1}, {"access_token": "a"}],
)
def test_an_answer_without_a_usable_token_is_no_token(found: dict[str, Any], paypal: PaypalApi, api: Api) -> None:
    api.token = lambda: as_json(found)
    with pytest.raises(PaypalUnavailableError, match="no access token"):
        read_sale(paypal)


# What goes wrong


def test_nothing_under_that_id_is_its_own_error(paypal: PaypalApi, api: Api) -> None:
    api.held = lambda: error(404, "RESOURCE_NOT_FOUND")
    with pytest.raises(PaypalNotFoundError, match="90957fca61718"):
        read_sale(paypal)


@pytest.mark.parametrize("status", [400, 403, 409, 422])
def test_a_refusal_carries_paypals_word_and_debug_id(status: int, paypal: PaypalApi, api: Api) -> None:
    api.held = lambda: error(status, "UNPROCESSABLE_ENTITY")
    with pytest.raises(PaypalRejectedError, match=r"UNPROCESSABLE_ENTITY.*90957fca61718") as rejected:
        read_sale(paypal)
    assert (rejected.value.status, rejected.value.name) == (status, "UNPROCESSABLE_ENTITY")
    assert rejected.value.debug_id == "90957fca61718"


def test_the_debug_id_is_taken_from_the_header_too(paypal: PaypalApi, api: Api) -> None:
    api.held = lambda: Answer(422, b"<html>", {"Paypal-Debug-Id": "f8d2c1"})
    with pytest.raises(PaypalRejectedError, match="debug id f8d2c1") as rejected:
        read_sale(paypal)
    assert (rejected.value.name, rejected.value.debug_id) == ("", "f8d2c1")


@pytest.mark.parametrize("status", [300, 304, 408, 429, 500, 502, 503])
def test_what_may_pass_is_tried_again_later(status: int, paypal: PaypalApi, api: Api) -> None:
    api.held = lambda: as_json({"name": "RATE_LIMIT_REACHED", "debug_id": "d1"}, status)
    with pytest.raises(PaypalUnavailableError, match=rf"{status} .*try again"):
        read_sale(paypal)


@pytest.mark.parametrize(
    "body", [b"<html>", b"[]", b'"text"', b"null", b"{", b'{"a": NaN}', b"\xff\xfe\xfd", b'{"a":' * 99999]
)
def test_an_answer_that_is_no_json_object_is_tried_again_later(body: bytes, paypal: PaypalApi, api: Api) -> None:
    api.held = lambda: Answer(200, body, {"Content-Type": "application/json"})
    with pytest.raises(PaypalUnavailableError, match="not a JSON object"):
        read_sale(paypal)


def test_an_answer_that_does_not_come_ends_in_a_time_out(server: Loopback, api: Api) -> None:
    client = PaypalApi(f"http://127.0.0.1:{server.port}", ID, SECRET, read_seconds=0.2)
    api.held = lambda: Answer(200, b"{}", late=True)
    with pytest.raises(PaypalUnavailableError, match="ReadTimeout"):
        read_sale(client)
    client.close()


def test_a_server_that_is_away_is_tried_again_later(server: Loopback) -> None:
    with loopback(Api()) as gone:
        url = f"http://127.0.0.1:{gone.port}"
    client = PaypalApi(url, ID, SECRET)
    with pytest.raises(PaypalUnavailableError, match=r"POST /v1/oauth2/token: ConnectionError"):
        read_sale(client)
    client.close()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(status: int, paypal: PaypalApi, server: Loopback, api: Api) -> None:
    api.held = lambda: Answer(status, b"", {"Location": f"http://127.0.0.1:{server.port}/elsewhere"})
    with pytest.raises(PaypalUnavailableError, match=str(status)):
        read_sale(paypal)
    assert server.count("/elsewhere") == 0


# Secrets


def test_proxies_and_passwords_in_the_environment_are_ignored(
    paypal: PaypalApi, server: Loopback, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login someone password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert read_sale(paypal) == HELD
    assert [each.headers["authorization"].split()[0] for each in server.asked] == ["Basic", "Bearer"]


def test_cookies_are_not_kept(paypal: PaypalApi, server: Loopback, api: Api) -> None:
    api.held = lambda: as_json(HELD, headers={"Set-Cookie": "who=me; Path=/"})
    read_sale(paypal)
    read_sale(paypal)
    assert "cookie" not in server.asked[-1].headers


@pytest.mark.parametrize(
    "fault",
    [
        error(404, "X"),
        error(422, "A21AA-1 and more"),
        error(500, "X"),
        Answer(200, b"A21AA-1"),
        Answer(200, b"{}", {"Content-Length": "many"}),
        as_json({"error": "invalid_token", "error_description": "A21AA-1"}, 401),
        Answer(late=True),
    ],
)
def test_no_secret_and_no_token_is_in_an_error_a_log_line_or_on_the_screen(
    fault: Answer,
    server: Loopback,
    api: Api,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    client = PaypalApi(f"http://127.0.0.1:{server.port}", ID, SECRET, read_seconds=0.2)
    api.held = lambda: fault
    with pytest.raises((PaypalNotFoundError, PaypalRejectedError, PaypalUnavailableError)) as raised:
        read_sale(client)
    client.close()
    shown = [caplog.text, *capfd.readouterr(), repr(client), repr(vars(client)), *told(raised.value)]
    basic = base64.b64encode(f"{ID}:{SECRET}".encode()).decode()
    assert [secret for secret in (SECRET, basic, "A21AA-", "jane@example.com") if secret in "\n".join(shown)] == []


def told(error: BaseException | None) -> Iterator[str]:
    """All that an error and its causes tell, also to a logger that prints their attributes."""
    while error:
        yield f"{error} {error!r} {vars(error)} {error.args}"
        request = getattr(error, "request", None)
        yield str(request and request.headers)
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api-m.paypal.com",
        "http://api-m.paypal.com",
        "http://localhost.example.com",
        "https://user:password@api-m.paypal.com",
        "https://api-m.paypal.com/v1",
        "https://api-m.paypal.com?x",
        "ftp://127.0.0.1",
    ],
)
def test_an_address_that_would_carry_the_secret_in_the_clear_or_elsewhere_stops_the_start(url: str) -> None:
    with pytest.raises(SettingsError, match="SMT_PAYPAL_BASE_URL"):
        PaypalApi(url, ID, SECRET)


@pytest.mark.parametrize("url", ["https://api-m.paypal.com", "https://api-m.sandbox.paypal.com/", "http://[::1]:8001"])
def test_paypals_addresses_and_a_simulator_on_this_machine_are_accepted(url: str) -> None:
    PaypalApi(url, ID, SECRET).close()
