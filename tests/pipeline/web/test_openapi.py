"""openapi.json matches the application, and no valid or invalid request causes an internal error."""

import copy
import json
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

import httpx
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from starlette.routing import Route

from pipeline.app import site
from pipeline.app.container import Container
from pipeline.clock import MovableClock
from pipeline.db.engine import Database
from pipeline.db.models import Event
from pipeline.paypal.signature import HEADERS
from pipeline.simulator.plans import CLOUD
from pipeline.simulator.server.api import FakePaypalApi
from pipeline.web.views import webhook
from tests.conftest import MORNING
from tests.support.pipeline_under_test import PipelineUnderTest, happened, make_parts, open_door, sign

PATH = "/webhooks/paypal"
DESCRIPTION: dict[str, Any] = json.loads((Path(webhook.__file__).parents[1] / "openapi.json").read_text("utf-8"))
OPERATIONS = [(path, method) for path, offered in DESCRIPTION["paths"].items() for method in offered]
WEBHOOK = DESCRIPTION["paths"]["/webhooks/paypal"]["post"]
FORMS = [
    path
    for path, offered in DESCRIPTION["paths"].items()
    if "application/x-www-form-urlencoded" in offered.get("post", {}).get("requestBody", {}).get("content", {})
]
CHECKED = ("status_code_conformance", "content_type_conformance", "response_schema_conformance")

quick = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
junk = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=20,
)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PipelineUnderTest]:
    folder = tmp_path_factory.mktemp("web")
    instance = PipelineUnderTest(f"sqlite:///{folder / 'smt-billing.db'}", folder, MovableClock(MORNING))
    connect(instance.database)
    yield instance
    instance.database.close()


@pytest.fixture(scope="module")
def container(pipeline: PipelineUnderTest) -> Iterator[Container]:
    """A container with sign-up configured at the simulated PayPal."""
    paypal = FakePaypalApi(clock=pipeline.clock)
    saved = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("SMT_")}
    with paypal.serve() as paypal_url:
        instance = make_parts(
            pipeline.url,
            pipeline.folder,
            pipeline.clock,
            paypal_base_url=paypal_url,
            paypal_client_id="simulator",
            paypal_client_secret="simulator-secret",
            plans={CLOUD.name: CLOUD.id},
        )
        os.environ.update(saved)
        connect(instance.database)
        yield instance
        instance.paypal.close()
        instance.database.close()


def connect(database: Database) -> None:
    """Use the database in the fixture, so that it is not closed after the first test that uses it."""
    with database.reading() as session:
        session.execute(text("SELECT 1"))


@pytest.fixture(scope="module")
def client(container: Container) -> Iterator[httpx.Client]:
    """One application for all examples, so that damage by one example is visible to the next."""
    with (
        site.serve_pages(container) as (routes, lost),
        open_door(container, routes, lost) as base,
        httpx.Client(base_url=base, trust_env=False, timeout=30) as http,
    ):
        yield http


def test_description_lists_all_routes(container: Container) -> None:
    with site.serve_pages(container) as (routes, _):
        offered = {
            (route.path, method.lower())
            for route in container.web().app(routes).routes
            if isinstance(route, Route)
            for method in set(route.methods or ()) - {"HEAD"}
        }
    assert offered == set(OPERATIONS)


def test_description_lists_the_headers_that_are_read() -> None:
    described = [
        DESCRIPTION["components"]["parameters"][ref["$ref"].rpartition("/")[2]] for ref in WEBHOOK["parameters"]
    ]
    assert {each["name"].lower() for each in described} == set(HEADERS)


@pytest.mark.parametrize("path", FORMS)
def test_description_lists_the_fields_of_each_form(client: httpx.Client, path: str) -> None:
    [(kind, body)] = DESCRIPTION["paths"][path]["post"]["requestBody"]["content"].items()
    assert kind == "application/x-www-form-urlencoded"
    answer = client.post(re.sub(r"\{\w+\}", "x", path), data={"surprise": "1"})
    found = re.search(r"Allowed fields: (.*)\.", answer.text)
    assert answer.status_code == 400
    assert found
    assert set(found[1].split(", ")) - {""} == set(body["schema"]["properties"])


@pytest.mark.parametrize("path", ["/nowhere", "/", "/account/x", "/privacy/a/b", "/webhooks/x"])
@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("text/html,application/xhtml+xml,*/*;q=0.8", "text/html; charset=utf-8"),
        ("*/*", "application/problem+json"),
        ("application/json", "application/problem+json"),
    ],
)
def test_unknown_path_is_answered_in_the_accepted_format(
    client: httpx.Client, path: str, accept: str, kind: str
) -> None:
    answer = client.get(path, headers={"Accept": accept})
    assert (answer.status_code, answer.headers["content-type"]) == (404, kind)
    assert ("Page not found" if kind.startswith("text/html") else "There is no page at this address") in answer.text
    assert ("<nav" in answer.text) == (kind[:9] == "text/html")


@pytest.mark.slow
@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_every_response_matches_the_description(client: httpx.Client, path: str, method: str) -> None:
    import schemathesis  # here, because it takes longer to import than the rest of the suite
    from schemathesis.checks import CHECKS, load_all_checks

    load_all_checks()
    checks = CHECKS.get_by_names(list(CHECKED))
    operation = schemathesis.openapi.from_dict(description_with_plan())[path][method.upper()]

    @quick
    @given(case=operation.as_strategy())
    def call(case: Any) -> None:
        answer = case.call(base_url=str(client.base_url), allow_redirects=False)
        case.validate_response(answer, checks=checks)
        assert_no_internal_error(answer.status_code, answer.text)

    call()


def description_with_plan() -> dict[str, Any]:
    """Return the description with an existing plan, so that generated sign-ups can succeed."""
    adapted = copy.deepcopy(DESCRIPTION)
    adapted["components"]["schemas"]["SignUp"]["properties"]["plan"] = {"enum": [CLOUD.name]}
    return adapted


def assert_no_internal_error(status: int, text: str) -> None:
    """503 is correct for a certificate that cannot be downloaded, but not for an internal error."""
    assert status < 500 or (status == 503 and "Please send it again" in text), text


# Signed webhooks


def to_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def post(client: httpx.Client, body: bytes) -> httpx.Response:
    return client.post(PATH, content=body, headers=sign(body))


@quick
@given(body=st.binary(max_size=200) | junk.map(to_json))
def test_any_signed_body_is_stored(client: httpx.Client, body: bytes) -> None:
    assert post(client, body).status_code == 200


@quick
@given(resource=junk, kind=st.sampled_from(["PAYMENT.SALE.COMPLETED", "BILLING.SUBSCRIPTION.ACTIVATED", "X"]))
def test_any_resource_is_stored(client: httpx.Client, resource: Any, kind: str) -> None:
    body = to_json(happened(f"WH-{crc32(to_json(resource))}", kind, resource=resource))
    assert post(client, body).status_code == 200


@pytest.mark.parametrize("depth", [10, 64, 65, 500, 1000, 5000, 130_000])
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")], ids=["lists", "objects"])
def test_deeply_nested_json_is_stored(
    client: httpx.Client, pipeline: PipelineUnderTest, depth: int, opening: bytes, closing: bytes
) -> None:
    depth = min(depth, (webhook.LARGEST_BODY - 200) // len(opening + closing))
    name = f"WH-DEEP-{depth}-{opening[0]}"
    body = b'{"id":"%s","event_type":"TEST.HAPPENED","resource":%s1%s}' % (
        name.encode(),
        opening * depth,
        closing * depth,
    )
    assert post(client, body).status_code == 200
    assert post(client, body).json()["outcome"] == "duplicate"
    assert pipeline.count(Event) > 0


def test_many_keys_and_a_huge_number_are_stored(client: httpx.Client) -> None:
    many = orjson.dumps(happened("WH-MANY", resource={f"k{number}": number for number in range(15_000)}))
    assert len(many) < webhook.LARGEST_BODY
    assert post(client, many).status_code == 200
    assert post(client, b'{"id":"WH-HUGE","event_type":"X","resource":{"n":%s}}' % (b"9" * 200_000)).status_code == 200


@quick
@given(
    headers=st.lists(st.tuples(st.sampled_from(HEADERS), st.binary(max_size=60)), max_size=8),
    body=st.binary(max_size=60),
)
def test_arbitrary_header_bytes_cause_no_internal_error(
    client: httpx.Client, headers: list[tuple[str, bytes]], body: bytes
) -> None:
    """Sent as raw bytes, because an HTTP client would refuse such headers."""
    url = client.base_url
    head = b"".join(b"%s: %s\r\n" % (name.encode(), value) for name, value in headers)
    response = raw(
        url.port or 0,
        b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n%s\r\n%s" % (PATH.encode(), len(body), head, body),
    )
    assert response.startswith((b"HTTP/1.1 40", b"HTTP/1.1 2")) or response == b"", response
    assert b" 500 " not in response[:20]


def raw(port: int, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(request)
        return connection.recv(65536)
