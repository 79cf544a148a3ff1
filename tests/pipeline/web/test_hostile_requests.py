"""No path, query, header or body of a stranger causes an internal error, on either database."""

import re
from collections.abc import Iterator
from typing import Any

import httpx
import orjson
import pytest
from starlette.routing import Route

from pipeline.app import site
from pipeline.app.container import Container
from pipeline.customers.sign_up import FIELDS
from pipeline.simulator.plans import CLOUD
from pipeline.simulator.server.api import FakePaypalApi
from tests.support.pipeline_under_test import PipelineUnderTest, make_parts
from tests.support.raw_http import raw_request, status_of
from tests.support.running_roles import running
from tests.support.subprocesses import free_port

HOSTILE = {
    "NUL": "%00", "day and NUL": "2025-05-01%00", "invalid UTF-8": "%ff%fe", "half a character": "%c3",
    "surrogate": "%ed%a0%80", "surrogate pair": "%ed%a0%bd%ed%b8%80", "line end": "%0d%0aX-Injected:%201",
    "very long": "a" * 20_000, "long and NUL": "a" * 5_000 + "%00", "dots": "..%2f..%2fetc%2fpasswd", "dot": ".",
    "parent": "../..", "escaped dots": "%2e%2e", "percent": "%", "half an escape": "%4", "double escape": "%2500",
    "quote": "'%22%3b--", "markup": "%3Cscript%3E", "next day": "9999-12-31", "no day": "2025-13-45",
    "Unicode digits": "%d9%a2%d9%a0%d9%a2%d9%a5-%d9%a0%d9%a5-%d9%a0%d9%a1", "right to left": "%e2%80%ae", "empty": "",
    "slashes": "//", "raw byte": "\xe9", "astral": "%f0%9f%92%a9",
}  # fmt: skip
VALID = {"name": "Ada", "email": "ada@example.com", "plan": CLOUD.name, "adult": True}
WRONG_TYPES: dict[str, Any] = {
    "list": ["x"], "object": {"a": 1}, "number": 1, "fraction": 1.5, "huge number": 2**63, "empty list": [], "zero": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def paypal() -> Iterator[str]:
    with FakePaypalApi().serve() as url:
        yield url


@pytest.fixture
def container(pipeline: PipelineUnderTest, paypal: str) -> Container:
    return make_parts(
        pipeline.url, pipeline.folder, pipeline.clock, web_port=free_port(), paypal_base_url=paypal,
        paypal_client_id="simulator", paypal_client_secret="simulator-secret", plans={CLOUD.name: CLOUD.id},
    )  # fmt: skip


@pytest.fixture
def port(container: Container) -> Iterator[int]:
    with running({"web": container}):
        yield container.settings.web_port


@pytest.fixture
def routes(container: Container) -> list[Route]:
    with site.serve_pages(container) as (pages, lost):
        return [each for each in container.web().app(pages, lost).routes if isinstance(each, Route)]


def targets(route: Route, part: str) -> set[str]:
    """Return the route's path with this text as parameter, below it, and as query."""
    filled = re.sub(r"\{[^}]*\}", lambda _: part, route.path)
    return {filled, f"{filled}/{part}", f"{filled}?note={part}", f"{filled}?{part}"}


def test_no_path_causes_an_internal_error(port: int, routes: list[Route]) -> None:
    assert len(routes) > 20
    requests = {
        (method, target)
        for route in routes
        for method in sorted(route.methods or ())
        for part in HOSTILE.values()
        for target in targets(route, part)
        if route.path not in ("/healthz", "/metrics")
    }
    answers = {each: raw_request(port, *each, "Accept: text/html") for each in sorted(requests)}
    assert {each: answer[:200] for each, answer in answers.items() if status_of(answer) >= 500} == {}
    assert not any(b"X-Injected" in answer.partition(b"\r\n\r\n")[0] for answer in answers.values())


@pytest.mark.parametrize("path", ["/privacy/", "/account/open/", "/account/export/", "/unsubscribe/"])
def test_nul_in_a_path_is_not_found(port: int, path: str) -> None:
    for part in ("%00", "2025-05-01%00", "x%00y"):
        assert status_of(raw_request(port, "GET", path + part)) == 404
        assert status_of(raw_request(port, "POST", path + part, body="x=1")) in (404, 405)


@pytest.mark.parametrize(
    "name", ["Cookie: __Host-session=", "User-Agent: ", "Idempotency-Key: ", "X-Forwarded-For: ", "Accept: "]
)
@pytest.mark.parametrize("value", ["\xff\xfe", "a" * 20_000, "\x01", "%00", "'; --", ",,,", "=\xa0;"])
def test_no_header_causes_an_internal_error(port: int, name: str, value: str) -> None:
    for method, path in (("GET", "/account"), ("POST", "/account/export"), ("POST", "/api/signup"), ("GET", "/x")):
        assert status_of(raw_request(port, method, path, f"{name}{value}", body="" if method == "GET" else "a=b")) < 500


@pytest.mark.parametrize(
    "value", ["%00", "a%00b%40example.com", "%ff", "%ed%a0%80", "a" * 9_000, "%e2%80%ae", "%f0%9f%92%a9"]
)
def test_no_form_causes_an_internal_error(port: int, routes: list[Route], value: str) -> None:
    paths = {
        route.path.replace("{secret}", "x").replace("{token}", "x")
        for route in routes
        if "POST" in (route.methods or ())
    }
    bodies = [f"{name}={value}" for name in (*FIELDS, "token", "List-Unsubscribe", value)]
    full = f"name={value}&email={value}&company={value}&phone={value}&plan={CLOUD.name}&adult=yes&token={value}"
    answers = {
        (path, body): status_of(raw_request(port, "POST", path, body=body))
        for path in paths
        for body in [*bodies, full]
    }
    assert {each: status for each, status in answers.items() if status >= 500} == {}


def api(port: int, body: Any) -> httpx.Response:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return httpx.post(
        f"http://127.0.0.1:{port}/api/signup", content=raw, headers={"Content-Type": "application/json"}, trust_env=False,
        timeout=30,
    )  # fmt: skip


@pytest.mark.parametrize("field", FIELDS)
def test_json_value_of_another_type_is_refused_by_name(port: int, field: str) -> None:
    wrong = WRONG_TYPES | ({} if field in ("adult", "news") else {"true": True, "false": False})
    for kind, value in wrong.items():
        answer = api(port, VALID | {field: value})
        assert (kind, answer.status_code, list(answer.json().get("errors", {}))) == (kind, 422, [field])


@pytest.mark.parametrize(
    "body",
    [
        b'{"name":' + b"[" * 1000 + b"]" * 1000 + b"}",
        b'{"adult":' + b'{"a":' * 1000 + b"1" + b"}" * 1000 + b"}",
        b"[" * 5000,
        b'{"name":"\\ud800"}',
        b'{"name":"\\u0000","email":"a\\u0000@example.com"}',
        b'{"\\u0000":1}',
        b'{"name":1e999}',
        b"\xff",
        b"null",
        b"",
    ],
)
def test_no_json_causes_an_internal_error(port: int, body: bytes) -> None:
    assert api(port, body).status_code in (400, 422)


def test_null_counts_as_missing(port: int) -> None:
    assert api(port, VALID | {"company": None, "phone": None, "news": None}).status_code == 201
