"""PayPal API client against an HTTP server on loopback."""

import base64
import gzip
import json
import logging
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pipeline.paypal.api import PaypalApi
from pipeline.paypal.client import FAILURE_SECONDS, PaypalClient
from pipeline.paypal.errors import Issue, PaypalNotFoundError, PaypalRejectedError, PaypalUnavailableError
from pipeline.paypal.requests import LookupKind, SalesGetRequest
from pipeline.settings import SettingsError
from tests.support.loopback_http import Answer, Asked, Loopback, loopback

ID, SECRET = "example-client", "example:secret/+ü"
TOKEN = "/v1/oauth2/token"
SALE = "/v1/payments/sale/80021663DE681814L"
SALE_BODY = {"id": "80021663DE681814L", "billing_agreement_id": "I-BW452GLLEP1G", "Mixed-Case": {"dict": 1}}


def as_json(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Answer:
    return Answer(status, json.dumps(value).encode(), {"Content-Type": "application/json"} | (headers or {}))


def error(status: int, name: str, debug_id: str = "90957fca61718") -> Answer:
    return as_json({"name": name, "message": "jane@example.com", "debug_id": debug_id}, status)


class Api:
    """PayPal's API: issues tokens 1, 2, …, refuses those in `refused`, and answers look-ups with `answer`."""

    def __init__(self) -> None:
        self.tokens, self.refused, self.expires_in = 0, set[str](), 32400
        self.token: Callable[[], Answer] | None = None
        self.answer: Callable[[], Answer] = lambda: as_json(SALE_BODY)

    def __call__(self, asked: Asked) -> Answer:
        if asked.path == TOKEN:
            self.tokens += 1
            found = {"access_token": f"A21AA-{self.tokens}", "token_type": "Bearer", "expires_in": self.expires_in}
            return self.token() if self.token else as_json(found)
        if asked.headers.get("authorization", "").removeprefix("Bearer A21AA-") in self.refused:
            return as_json({"error": "invalid_token", "error_description": "A21AA-1"}, 401)
        return self.answer()


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


def look_up_sale(paypal: PaypalApi) -> dict[str, Any]:
    return paypal.get("sale", "80021663DE681814L")


# Look-ups


@pytest.mark.parametrize(
    ("kind", "id", "path"),
    [
        ("subscription", "I-BW452GLLEP1G", "/v1/billing/subscriptions/I-BW452GLLEP1G?fields=last_failed_payment,plan"),
        ("plan", "P-5ML4271244454362W", "/v1/billing/plans/P-5ML4271244454362W"),
        ("sale", "80021663DE681814L", SALE),
        ("refund", "4CF18861HF410323U", "/v1/payments/refund/4CF18861HF410323U"),
    ],
)
def test_each_kind_has_its_own_path(
    kind: LookupKind, id: str, path: str, paypal: PaypalApi, server: Loopback, api: Api
) -> None:
    api.answer = lambda: as_json(SALE_BODY | {"id": id})
    assert paypal.get(kind, id) == SALE_BODY | {"id": id}
    token, lookup = server.asked
    basic = base64.b64encode(f"{ID}:{SECRET}".encode()).decode()
    assert (token.verb, token.path, token.body) == ("POST", TOKEN, b"grant_type=client_credentials")
    assert token.headers["authorization"] == f"Basic {basic}"
    assert token.headers["content-type"] == "application/x-www-form-urlencoded"
    assert (lookup.verb, lookup.path, lookup.body) == ("GET", path, b"")
    assert lookup.headers["authorization"] == "Bearer A21AA-1"


@pytest.mark.parametrize(
    "id", ["", "../../oauth2/token", "I-1/cancel", "I-1?x", "I-1#", "I 1", "I-1\n", "é", "%2e", "A" * 65]
)
def test_invalid_id_is_not_requested(id: str, paypal: PaypalApi, server: Loopback) -> None:
    with pytest.raises(PaypalNotFoundError):
        paypal.get("subscription", id)
    assert server.asked == []


def test_calls_share_one_connection_and_one_token(paypal: PaypalApi, server: Loopback) -> None:
    for _ in range(5):
        assert look_up_sale(paypal) == SALE_BODY
    assert (server.connections, server.count(TOKEN), server.count(SALE)) == (1, 1, 5)


@pytest.mark.parametrize("status", [200, 204])
def test_look_up_without_a_body_has_no_answer(status: int, paypal: PaypalApi, api: Api) -> None:
    api.answer = lambda: Answer(status)
    with pytest.raises(PaypalUnavailableError, match="not a JSON object"):
        look_up_sale(paypal)


@pytest.mark.parametrize("id", ["9VX07531FT1384014", "80021663de681814l", None, 80021663])
def test_answer_about_another_object_is_no_answer(id: object, paypal: PaypalApi, api: Api) -> None:
    api.answer = lambda: as_json(SALE_BODY | {"id": id})
    with pytest.raises(PaypalUnavailableError, match="another sale than 80021663DE681814L"):
        look_up_sale(paypal)


# The token


def test_parallel_first_calls_fetch_one_token(paypal: PaypalApi, server: Loopback) -> None:
    start = threading.Barrier(8)

    def look_up(_: int) -> dict[str, Any]:
        start.wait()
        return look_up_sale(paypal)

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(look_up, range(8))) == [SALE_BODY] * 8
    assert (server.count(TOKEN), server.count(SALE)) == (1, 8)


def test_refused_token_is_replaced_once(paypal: PaypalApi, server: Loopback, api: Api) -> None:
    look_up_sale(paypal)
    api.refused = {"1"}
    assert look_up_sale(paypal) == SALE_BODY
    assert look_up_sale(paypal) == SALE_BODY
    assert (server.count(TOKEN), server.count(SALE)) == (2, 4)


def test_parallel_calls_replace_refused_token_once(paypal: PaypalApi, server: Loopback, api: Api) -> None:
    look_up_sale(paypal)
    start, together = threading.Barrier(6), threading.Barrier(6)
    api.refused = {"1"}

    def look_up(_: int) -> dict[str, Any]:
        start.wait()
        return look_up_sale(paypal)

    def answer_together() -> Answer:
        together.wait()
        return as_json(SALE_BODY)

    api.answer = answer_together
    with ThreadPoolExecutor(6) as threads:
        assert list(threads.map(look_up, range(6))) == [SALE_BODY] * 6
    assert server.count(TOKEN) == 2


def test_second_refusal_raises_rejected(paypal: PaypalApi, server: Loopback, api: Api) -> None:
    api.refused = {"1", "2"}
    with pytest.raises(PaypalRejectedError, match="SMT_PAYPAL_CLIENT_SECRET") as rejected:
        look_up_sale(paypal)
    assert (rejected.value.status, rejected.value.name) == (401, "invalid_token")
    assert (server.count(TOKEN), server.count(SALE)) == (2, 2)


def test_token_is_replaced_in_its_last_minute(server: Loopback) -> None:
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


def test_credentials_can_be_checked(paypal: PaypalApi, server: Loopback, api: Api) -> None:
    paypal.check_credentials()
    api.token = lambda: as_json({"error": "invalid_client", "error_description": "no"}, 401, {"Paypal-Debug-Id": "f1"})
    with pytest.raises(PaypalRejectedError, match=r"401 invalid_client \(debug id f1\)"):
        paypal.check_credentials()
    assert (server.count(TOKEN), len(server.asked)) == (2, 2)


@pytest.mark.parametrize(
    "found",
    [{}, {"access_token": "", "expires_in": 1}, {"access_token": "a\nb", "expires_in": 1}, {"access_token": "a"}],
)
def test_answer_without_usable_token_raises_unavailable(found: dict[str, Any], paypal: PaypalApi, api: Api) -> None:
    api.token = lambda: as_json(found)
    with pytest.raises(PaypalUnavailableError, match="no access token"):
        look_up_sale(paypal)


# Errors


def test_unknown_id_raises_not_found(paypal: PaypalApi, api: Api) -> None:
    api.answer = lambda: error(404, "RESOURCE_NOT_FOUND")
    with pytest.raises(PaypalNotFoundError, match="90957fca61718"):
        look_up_sale(paypal)


@pytest.mark.parametrize("status", [400, 403, 422])
def test_rejection_has_paypals_error_name_and_debug_id(status: int, paypal: PaypalApi, api: Api) -> None:
    api.answer = lambda: error(status, "UNPROCESSABLE_ENTITY")
    with pytest.raises(PaypalRejectedError, match=r"UNPROCESSABLE_ENTITY.*90957fca61718") as rejected:
        look_up_sale(paypal)
    assert (rejected.value.status, rejected.value.name) == (status, "UNPROCESSABLE_ENTITY")
    assert rejected.value.debug_id == "90957fca61718"


def test_rejection_names_paypals_reasons_without_the_value(paypal: PaypalApi, api: Api) -> None:
    reason = {
        "field": "/plan_id",
        "issue": "PLAN_STATUS_INVALID",
        "description": "Plan is inactive.",
        "value": "jane@example.com",
    }
    api.answer = lambda: as_json({"name": "UNPROCESSABLE_ENTITY", "details": [reason, "odd", {"issue": 1}]}, 422)
    with pytest.raises(PaypalRejectedError, match=r"PLAN_STATUS_INVALID \(/plan_id\): Plan is inactive;") as rejected:
        look_up_sale(paypal)
    assert rejected.value.issues == (Issue("PLAN_STATUS_INVALID", "/plan_id", "Plan is inactive."),)
    assert "jane" not in repr(rejected.value)


def test_debug_id_is_read_from_the_header(paypal: PaypalApi, api: Api) -> None:
    api.answer = lambda: as_json({"name": "UNPROCESSABLE_ENTITY"}, 422, {"Paypal-Debug-Id": "f8d2c1"})
    with pytest.raises(PaypalRejectedError, match="debug id f8d2c1") as rejected:
        look_up_sale(paypal)
    assert (rejected.value.name, rejected.value.debug_id) == ("UNPROCESSABLE_ENTITY", "f8d2c1")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 422])
@pytest.mark.parametrize("body", [b"<html>gateway</html>", b"", b"[]", b'{"name": 404}'])
def test_answer_of_a_gateway_says_nothing_about_the_object(
    status: int, body: bytes, paypal: PaypalApi, api: Api
) -> None:
    api.answer = lambda: Answer(status, body)
    with pytest.raises(PaypalUnavailableError, match=rf"{status} .*try again"):
        look_up_sale(paypal)


@pytest.mark.parametrize("status", [400, 404, 409, 422, 429, 500])
def test_refused_token_request_says_nothing_about_the_object(status: int, paypal: PaypalApi, api: Api) -> None:
    api.token = lambda: error(status, "RESOURCE_NOT_FOUND")
    with pytest.raises(PaypalUnavailableError, match="POST /v1/oauth2/token"):
        look_up_sale(paypal)


def test_failed_token_request_is_not_repeated_by_each_thread(server: Loopback, api: Api) -> None:
    elapsed = [0.0]
    client = PaypalClient(f"http://127.0.0.1:{server.port}", ID, SECRET, elapsed=lambda: elapsed[0])
    api.token = lambda: error(503, "SERVICE_UNAVAILABLE")
    for _ in range(5):
        with pytest.raises(PaypalUnavailableError):
            client.execute(SalesGetRequest("80021663DE681814L"))
    assert server.count(TOKEN) == 1
    api.token, elapsed[0] = None, FAILURE_SECONDS
    assert client.execute(SalesGetRequest("80021663DE681814L")) == SALE_BODY
    client.close()


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": "999999999999"}, 3600),
        ({"Retry-After": "Tue, 01 Dec 2026 10:01:30 GMT", "Date": "Tue, 01 Dec 2026 10:00:00 GMT"}, 90),
        ({"Retry-After": "Tue, 01 Dec 2026 09:00:00 GMT", "Date": "Tue, 01 Dec 2026 10:00:00 GMT"}, 0),
        ({"Retry-After": "soon"}, None),
        ({}, None),
    ],
)
def test_pause_that_paypal_asks_for_is_reported(
    headers: dict[str, str], expected: int | None, paypal: PaypalApi, api: Api
) -> None:
    """RFC 9110, section 10.2.3: seconds or a date. The date counts from the answer's own Date."""
    api.answer = lambda: as_json({"name": "RATE_LIMIT_REACHED"}, 429, headers)
    with pytest.raises(PaypalUnavailableError) as unavailable:
        look_up_sale(paypal)
    assert unavailable.value.retry_after == (None if expected is None else timedelta(seconds=expected))


@pytest.mark.parametrize("status", [300, 304, 408, 409, 425, 429, 500, 502, 503])
def test_temporary_status_raises_unavailable(status: int, paypal: PaypalApi, api: Api) -> None:
    api.answer = lambda: as_json({"name": "RATE_LIMIT_REACHED", "debug_id": "d1"}, status)
    with pytest.raises(PaypalUnavailableError, match=rf"{status} .*try again"):
        look_up_sale(paypal)


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b"[]",
        b'"text"',
        b"null",
        b"{",
        b'{"a": NaN}',
        b"\xff\xfe\xfd",
        b'{"a":' * 99999,
        b'{"a": "\\ud83d"}',
        b'{"a": 1e999}',
    ],
)
def test_answer_that_is_not_a_json_object_raises_unavailable(body: bytes, paypal: PaypalApi, api: Api) -> None:
    api.answer = lambda: Answer(200, body, {"Content-Type": "application/json"})
    with pytest.raises(PaypalUnavailableError, match="not a JSON object"):
        look_up_sale(paypal)


def test_missing_answer_times_out(server: Loopback, api: Api) -> None:
    client = PaypalApi(f"http://127.0.0.1:{server.port}", ID, SECRET, read_seconds=0.2)
    api.answer = lambda: Answer(200, b"{}", late=True)
    with pytest.raises(PaypalUnavailableError, match="no answer in time"):
        look_up_sale(client)
    client.close()


@pytest.mark.parametrize("answer", [Answer(200, b" " * 1000, drip=True), Answer(200, slow_head=True)])
@pytest.mark.parametrize("path", ["token", "object"])
def test_whole_exchange_has_a_deadline(answer: Answer, path: str, server: Loopback, api: Api) -> None:
    """Each byte comes in time, so the time-out of single reads never ends the call."""
    client = PaypalClient(f"http://127.0.0.1:{server.port}", ID, SECRET, read_seconds=5, exchange_seconds=0.3)
    if path == "token":
        api.token = lambda: answer
    else:
        api.answer = lambda: answer
    started = time.monotonic()
    with pytest.raises(PaypalUnavailableError):
        client.execute(SalesGetRequest("80021663DE681814L"))
    assert time.monotonic() - started < 3
    client.close()


@pytest.mark.parametrize("packed", [False, True])
def test_answer_of_more_than_a_mebibyte_is_not_read(packed: bool, paypal: PaypalApi, api: Api) -> None:
    body = json.dumps(SALE_BODY | {"more": "x" * 200_000_000 if packed else "x" * 1024 * 1024}).encode()
    answer = Answer(200, gzip.compress(body, 1), {"Content-Encoding": "gzip"}) if packed else Answer(200, body)
    del body
    api.answer = lambda: answer
    tracemalloc.start()
    with pytest.raises(PaypalUnavailableError, match="larger than 1,024 KiB"):
        look_up_sale(paypal)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000


def test_packed_answer_is_read(paypal: PaypalApi, api: Api) -> None:
    body = json.dumps(SALE_BODY | {"more": "x" * 900_000}).encode()
    api.answer = lambda: Answer(200, gzip.compress(body), {"Content-Encoding": "gzip"})
    assert look_up_sale(paypal)["more"] == "x" * 900_000


def test_look_up_is_repeated_once_if_the_connection_breaks(paypal: PaypalApi, server: Loopback, api: Api) -> None:
    answers = [Answer(broken=True), as_json(SALE_BODY), *[Answer(broken=True)] * 2]
    api.answer = lambda: answers.pop(0)
    assert look_up_sale(paypal) == SALE_BODY
    with pytest.raises(PaypalUnavailableError, match=r"the answer is incomplete or not HTTP|the connection failed"):
        look_up_sale(paypal)
    assert server.count(SALE) == 4


def test_change_without_a_key_is_not_repeated(paypal: PaypalApi, server: Loopback, api: Api) -> None:
    api.answer = lambda: Answer(broken=True)
    with pytest.raises(PaypalUnavailableError):
        paypal.cancel_subscription("I-BW452GLLEP1G", "because")
    assert server.count("/v1/billing/subscriptions/I-BW452GLLEP1G/cancel") == 1


def test_unreachable_server_raises_unavailable(server: Loopback) -> None:
    with loopback(Api()) as stopped:
        url = f"http://127.0.0.1:{stopped.port}"
    client = PaypalApi(url, ID, SECRET)
    with pytest.raises(PaypalUnavailableError, match=r"POST /v1/oauth2/token: connection refused"):
        look_up_sale(client)
    client.close()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_is_not_followed(status: int, paypal: PaypalApi, server: Loopback, api: Api) -> None:
    api.answer = lambda: Answer(status, b"", {"Location": f"http://127.0.0.1:{server.port}/elsewhere"})
    with pytest.raises(PaypalUnavailableError, match=str(status)):
        look_up_sale(paypal)
    assert server.count("/elsewhere") == 0


# Secrets


def test_environment_proxies_and_passwords_are_ignored(
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
    assert look_up_sale(paypal) == SALE_BODY
    assert [each.headers["authorization"].split()[0] for each in server.asked] == ["Basic", "Bearer"]


def test_cookies_are_not_stored(paypal: PaypalApi, server: Loopback, api: Api) -> None:
    api.answer = lambda: as_json(SALE_BODY, headers={"Set-Cookie": "name=value; Path=/"})
    look_up_sale(paypal)
    look_up_sale(paypal)
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
def test_errors_and_logs_contain_no_secret_or_token(
    fault: Answer,
    server: Loopback,
    api: Api,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    client = PaypalApi(f"http://127.0.0.1:{server.port}", ID, SECRET, read_seconds=0.2)
    api.answer = lambda: fault
    with pytest.raises((PaypalNotFoundError, PaypalRejectedError, PaypalUnavailableError)) as raised:
        look_up_sale(client)
    client.close()
    shown = [caplog.text, *capfd.readouterr(), repr(client), repr(vars(client)), *texts_of(raised.value)]
    basic = base64.b64encode(f"{ID}:{SECRET}".encode()).decode()
    assert [secret for secret in (SECRET, basic, "A21AA-", "jane@example.com") if secret in "\n".join(shown)] == []


def texts_of(error: BaseException | None) -> Iterator[str]:
    """Yield all texts of an error and its causes, including attributes that a logger may print."""
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
def test_unsafe_base_url_raises_settings_error(url: str) -> None:
    with pytest.raises(SettingsError, match="SMT_PAYPAL_BASE_URL"):
        PaypalApi(url, ID, SECRET)


@pytest.mark.parametrize("url", ["https://api-m.paypal.com", "https://api-m.sandbox.paypal.com/", "http://[::1]:8001"])
def test_paypals_urls_and_local_simulator_are_accepted(url: str) -> None:
    PaypalApi(url, ID, SECRET).close()
