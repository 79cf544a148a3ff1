"""Whatever PayPal's API answers, the process survives, and other questions are answered."""

import json
from collections.abc import Iterator

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from handlers import HANDLERS
from pipeline.db.models import Event, PaypalLookup
from pipeline.inbox import lookup_fetcher, lookups
from pipeline.paypal.api import PaypalApi
from pipeline.paypal.requests import GET_REQUESTS, LookupKind
from tests.support.hostile_text import HOSTILE_TEXT
from tests.support.loopback_http import Answer, Asked, loopback
from tests.support.pipeline_under_test import PipelineUnderTest

KINDS = sorted(GET_REQUESTS)
GOOD = {"id": "P-GOOD", "name": "Good", "update_time": "2026-03-01T11:00:00Z"}
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | HOSTILE_TEXT
documents = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)
FIELDS = (
    "id", "status", "plan_id", "plan", "quantity", "start_time", "subscriber", "billing_info", "billing_cycles", "taxes",
    "amount", "state", "create_time", "update_time", "links", "sale_id", "transaction_fee", "custom_id", "name",
)  # fmt: skip
resources = st.dictionaries(st.sampled_from(FIELDS), documents, max_size=8)


class Paypal:
    """An API that answers questions about X-1 with `odd`, and others well."""

    def __init__(self) -> None:
        self.odd = Answer()

    def __call__(self, asked: Asked) -> Answer:
        if asked.path == "/v1/oauth2/token":
            return Answer(200, b'{"access_token": "A21AA", "expires_in": 32400}')
        return self.odd if "/X-1" in asked.path else Answer(200, orjson.dumps(GOOD))


@pytest.fixture(scope="module")
def api() -> Paypal:
    return Paypal()


@pytest.fixture(scope="module")
def paypal(api: Paypal) -> Iterator[PaypalApi]:
    with loopback(api) as serving:
        client = PaypalApi(f"http://127.0.0.1:{serving.port}", "client", "secret")
        yield client
        client.close()


def survive(pipeline: PipelineUnderTest, paypal: PaypalApi, kind: LookupKind) -> None:
    """Ask about X-1 and P-GOOD, and handle the answers. The second one must arrive."""
    pipeline.empty()
    with pipeline.database.transaction() as session:
        wanted = [
            lookups.LookupRequest(kind, "X-1", pipeline.now),
            lookups.LookupRequest("plan", "P-GOOD", pipeline.now),
        ]
        lookups.enqueue(session, wanted)
    ids = lookup_fetcher.fetch_due(pipeline.database, pipeline.master, pipeline.clock, paypal)
    pipeline.worker(HANDLERS, may_read=True).handle(ids)
    states = {row.type: row.state for row in pipeline.rows(Event) if row.facts.get("plan") == "P-GOOD"}
    assert states == {"READ.PLAN": "handled"}
    left = [row for row in pipeline.rows(PaypalLookup) if row.id == "X-1"]
    assert all(row.due_at is None or row.due_at > pipeline.now or row.reason is None for row in left)


slow = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@slow
@given(kind=st.sampled_from(KINDS), resource=resources, named=st.booleans())
def test_odd_json_does_no_harm(
    sqlite_pipeline: PipelineUnderTest,
    api: Paypal,
    paypal: PaypalApi,
    kind: LookupKind,
    resource: dict[str, object],
    named: bool,
) -> None:
    api.odd = Answer(200, json.dumps(resource | ({"id": "X-1"} if named else {})).encode("utf-8", "surrogatepass"))
    survive(sqlite_pipeline, paypal, kind)


@slow
@given(
    kind=st.sampled_from(KINDS),
    status=st.integers(100, 599).filter(lambda status: status >= 200),
    body=st.binary(max_size=200),
)
def test_odd_bytes_do_no_harm(
    sqlite_pipeline: PipelineUnderTest, api: Paypal, paypal: PaypalApi, kind: LookupKind, status: int, body: bytes
) -> None:
    api.odd = Answer(status, b"" if status in (204, 304) else body)
    survive(sqlite_pipeline, paypal, kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "body",
    [
        b'{"id": "X-1", "description": "\\ud83d"}',
        b'{"id": "X-1", "quantity": 99999999999999999999999}',
        b'{"id": "X-1", "quantity": 1e400}',
        b'{"id": "X-1", "plan": ' + b"[" * 500 + b"]" * 500 + b"}",
        b'{"id": "X-1", "status": "ACTIVE", "billing_info": {"next_billing_time": "9999-12-31T23:59:59Z"}}',
        b'{"id": "X-1", "name": "\\u0000"}',
    ],
)
def test_known_odd_answers_do_no_harm(
    sqlite_pipeline: PipelineUnderTest, api: Paypal, paypal: PaypalApi, kind: LookupKind, body: bytes
) -> None:
    api.odd = Answer(200, body)
    survive(sqlite_pipeline, paypal, kind)
