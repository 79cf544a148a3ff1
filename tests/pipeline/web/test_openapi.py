"""The description of what may be asked is true, and nothing that fits it or not brings the door or a page to a fault."""

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
from starlette.routing import Route

from pipeline.app import site
from pipeline.app.container import Container
from pipeline.clock import MovableClock
from pipeline.db.models import Event
from pipeline.paypal.signature import HEADERS
from pipeline.simulator.plans import CLOUD
from pipeline.simulator.server.api import FakePaypalApi
from pipeline.web.views import webhook
from tests.conftest import MORNING
from tests.support.pipeline_under_test import River, happened, make_parts, open_door, sign

PATH = "/webhooks/paypal"
TOLD: dict[str, Any] = json.loads((Path(webhook.__file__).parents[1] / "openapi.json").read_text("utf-8"))
OPERATIONS = [(path, method) for path, offered in TOLD["paths"].items() for method in offered]
WEBHOOK = TOLD["paths"]["/webhooks/paypal"]["post"]
FORMS = [
    path
    for path, offered in TOLD["paths"].items()
    if "application/x-www-form-urlencoded" in offered.get("post", {}).get("requestBody", {}).get("content", {})
]
TRUTHS = ("status_code_conformance", "content_type_conformance", "response_schema_conformance")

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
def river(tmp_path_factory: pytest.TempPathFactory) -> Iterator[River]:
    folder = tmp_path_factory.mktemp("door")
    made = River(f"sqlite:///{folder / 'smt-billing.db'}", folder, MovableClock(MORNING))
    yield made
    made.database.close()


@pytest.fixture(scope="module")
def container(river: River) -> Iterator[Container]:
    """Sign-up is open, at a pretend PayPal."""
    paypal = FakePaypalApi(clock=river.clock)
    kept = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("SMT_")}
    with paypal.serve() as paypal_url:
        made = make_parts(
            river.url,
            river.folder,
            river.clock,
            paypal_base_url=paypal_url,
            paypal_client_id="simulator",
            paypal_client_secret="simulator-secret",
            plans={CLOUD.name: CLOUD.id},
        )
        os.environ.update(kept)
        yield made
        made.paypal.close()


@pytest.fixture(scope="module")
def door(container: Container) -> Iterator[httpx.Client]:
    """One door for all examples: what one of them breaks, the next would see."""
    with (
        site.serve_pages(container) as (routes, lost),
        open_door(container, routes, lost) as base,
        httpx.Client(base_url=base, trust_env=False, timeout=30) as client,
    ):
        yield client


def test_what_is_described_is_what_is_offered(container: Container) -> None:
    with site.serve_pages(container) as (routes, _):
        offered = {
            (route.path, method.lower())
            for route in container.web().app(routes).routes
            if isinstance(route, Route)
            for method in set(route.methods or ()) - {"HEAD"}
        }
    assert offered == set(OPERATIONS)


def test_the_headers_described_are_those_that_are_read() -> None:
    asked = [TOLD["components"]["parameters"][ref["$ref"].rpartition("/")[2]] for ref in WEBHOOK["parameters"]]
    assert {each["name"].lower() for each in asked} == set(HEADERS)


@pytest.mark.parametrize("path", FORMS)
def test_the_fields_described_are_those_that_a_form_takes(door: httpx.Client, path: str) -> None:
    [(kind, body)] = TOLD["paths"][path]["post"]["requestBody"]["content"].items()
    assert kind == "application/x-www-form-urlencoded"
    answer = door.post(re.sub(r"\{\w+\}", "x", path), data={"surprise": "1"})
    found = re.search(r"What we take is: (.*)\.", answer.text)
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
def test_where_there_is_nothing_each_is_told_so_as_they_read(
    door: httpx.Client, path: str, accept: str, kind: str
) -> None:
    answer = door.get(path, headers={"Accept": accept})
    assert (answer.status_code, answer.headers["content-type"]) == (404, kind)
    assert "here is nothing at this address" in answer.text
    assert ("<nav" in answer.text) == (kind[:9] == "text/html")


@pytest.mark.slow
@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_whatever_is_asked_the_answer_is_one_that_is_described(door: httpx.Client, path: str, method: str) -> None:
    import schemathesis  # here, because it takes longer to import than the rest of the suite
    from schemathesis.checks import CHECKS, load_all_checks

    load_all_checks()
    checks = CHECKS.get_by_names(list(TRUTHS))
    operation = schemathesis.openapi.from_dict(of_this_shop())[path][method.upper()]

    @quick
    @given(case=operation.as_strategy())
    def ask(case: Any) -> None:
        answer = case.call(base_url=str(door.base_url), allow_redirects=False)
        case.validate_response(answer, checks=checks)
        assert_no_fault(answer.status_code, answer.text)

    ask()


def of_this_shop() -> dict[str, Any]:
    """The description with a plan that can be had, so that a sign-up may come to its end."""
    told = copy.deepcopy(TOLD)
    told["components"]["schemas"]["SignUp"]["properties"]["plan"] = {"enum": [CLOUD.name]}
    return told


def assert_no_fault(status: int, text: str) -> None:
    """503 is said of a certificate that cannot be had; never of a fault of ours."""
    assert status < 500 or (status == 503 and "please send it again" in text), text


# What PayPal would have signed


def written(value: Any) -> bytes:
    return json.dumps(value).encode()


def post(door: httpx.Client, body: bytes) -> httpx.Response:
    return door.post(PATH, content=body, headers=sign(body))


@quick
@given(body=st.binary(max_size=200) | junk.map(written))
def test_any_body_that_is_signed_is_kept(door: httpx.Client, body: bytes) -> None:
    assert post(door, body).status_code == 200


@quick
@given(resource=junk, kind=st.sampled_from(["PAYMENT.SALE.COMPLETED", "BILLING.SUBSCRIPTION.ACTIVATED", "X"]))
def test_any_resource_of_an_event_is_kept(door: httpx.Client, resource: Any, kind: str) -> None:
    body = written(happened(f"WH-{crc32(written(resource))}", kind, resource=resource))
    assert post(door, body).status_code == 200


@pytest.mark.parametrize("depth", [10, 64, 65, 500, 1000, 5000, 130_000])
@pytest.mark.parametrize(("begin", "end"), [(b"[", b"]"), (b'{"a":', b"}")], ids=["lists", "objects"])
def test_json_however_deep_is_kept(door: httpx.Client, river: River, depth: int, begin: bytes, end: bytes) -> None:
    depth = min(depth, (webhook.LARGEST_BODY - 200) // len(begin + end))
    name = f"WH-DEEP-{depth}-{begin[0]}"
    body = b'{"id":"%s","event_type":"TEST.HAPPENED","resource":%s1%s}' % (name.encode(), begin * depth, end * depth)
    assert post(door, body).status_code == 200
    assert post(door, body).json()["outcome"] == "duplicate"
    assert river.count(Event) > 0


def test_a_great_many_keys_and_a_huge_number_are_kept(door: httpx.Client) -> None:
    many = orjson.dumps(happened("WH-MANY", resource={f"k{number}": number for number in range(15_000)}))
    assert len(many) < webhook.LARGEST_BODY
    assert post(door, many).status_code == 200
    assert post(door, b'{"id":"WH-HUGE","event_type":"X","resource":{"n":%s}}' % (b"9" * 200_000)).status_code == 200


@quick
@given(
    headers=st.lists(st.tuples(st.sampled_from(HEADERS), st.binary(max_size=60)), max_size=8),
    body=st.binary(max_size=60),
)
def test_whatever_bytes_its_headers_hold_they_make_no_fault(
    door: httpx.Client, headers: list[tuple[str, bytes]], body: bytes
) -> None:
    """As bytes on the wire, whatever an HTTP client would refuse to send."""
    url = door.base_url
    head = b"".join(b"%s: %s\r\n" % (name.encode(), value) for name, value in headers)
    said = raw(
        url.port or 0,
        b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n%s\r\n%s" % (PATH.encode(), len(body), head, body),
    )
    assert said.startswith((b"HTTP/1.1 40", b"HTTP/1.1 2")) or said == b"", said
    assert b" 500 " not in said[:20]


def raw(port: int, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(request)
        return connection.recv(65536)
