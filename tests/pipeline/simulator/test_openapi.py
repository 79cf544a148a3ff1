"""The comparison with PayPal's OpenAPI files finds what it should find. Skipped where the files are not available.

The comparison itself runs in every test that uses the simulated PayPal: see `_match_openapi` in tests/conftest.py.
"""

import json
from dataclasses import replace
from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest

from pipeline.simulator import scenarios
from pipeline.simulator.people import PEOPLE
from pipeline.simulator.plans import CLOUD, CLOUD_JAPAN, CLOUD_SEATS, Plan
from pipeline.simulator.server.api import FakePaypalApi
from pipeline.simulator.server.operations import READS
from pipeline.simulator.timeline import Kind
from tests.support.api_vendor import Vendor
from tests.support.paypal_openapi import Exchange, OpenApiJudge
from tests.support.recorded_samples import recorded

# Beginning of an event's type, and the kind of its resource: it has the shape in which the API shows that object.
RESOURCES: tuple[tuple[str, Kind], ...] = (
    ("BILLING.SUBSCRIPTION.", "subscription"),
    ("BILLING.PLAN.", "plan"),
    ("CATALOG.PRODUCT.", "product"),
    ("PAYMENT.SALE.REFUNDED", "refund"),
    ("PAYMENT.SALE.REVERSED", "refund"),
    ("PAYMENT.SALE.", "sale"),
    ("PAYMENT.CAPTURE.REFUNDED", "capture_refund"),
    ("PAYMENT.CAPTURE.REVERSED", "capture_refund"),
    ("PAYMENT.REFUND.", "capture_refund"),
    ("PAYMENT.CAPTURE.", "capture"),
    ("CUSTOMER.DISPUTE.", "dispute"),
)
ERROR = {"name": "RESOURCE_NOT_FOUND", "message": "The specified resource does not exist.", "debug_id": "d1"}


@pytest.fixture(scope="module")
def judge() -> OpenApiJudge:
    return OpenApiJudge(recorded("paypal/openapi"))


@pytest.fixture(scope="module")
def plan() -> Exchange:
    answer = recorded("paypal/api/plan.get.json").read_bytes()
    return Exchange("GET", "/v1/billing/plans/P-5ML4271244454362WXNWU5NQ", {}, b"", 200, answer)


def changed(exchange: Exchange, **change: object) -> Exchange:
    return replace(exchange, answer=json.dumps({**json.loads(exchange.answer), **change}).encode())


def test_recorded_answer_matches(judge: OpenApiJudge, plan: Exchange) -> None:
    assert judge.compare(plan) == []


@pytest.mark.parametrize(
    "change", [{"status": "OPEN"}, {"billing_cycles": []}, {"name": 7}, {"taxes": {"percentage": 19}}]
)
def test_answer_of_another_shape_is_found(judge: OpenApiJudge, plan: Exchange, change: dict[str, Any]) -> None:
    assert len(judge.compare(changed(plan, **change))) == 1


def test_unknown_field_is_found(judge: OpenApiJudge, plan: Exchange) -> None:
    assert [text.partition(": ")[2] for text in judge.compare(changed(plan, price=7, links=[{"url": "x"}]))] == [
        "$.links[0]: 'href' is a required property",
        "$.links[0]: 'rel' is a required property",
        "unknown field links[].url",
        "unknown field price",
    ]


def test_error_with_another_text_is_found(judge: OpenApiJudge, plan: Exchange) -> None:
    missing = replace(plan, status=404)
    assert judge.compare(replace(missing, answer=json.dumps(ERROR).encode())) == []
    assert judge.compare(replace(missing, answer=json.dumps({**ERROR, "message": "Not found"}).encode()))


def test_unknown_call_status_and_parameter_are_found(judge: OpenApiJudge, plan: Exchange) -> None:
    assert judge.compare(replace(plan, path="/v1/billing/prices/1"))
    assert judge.compare(replace(plan, status=202))
    assert judge.compare(replace(plan, query={"page": "1"}))


@pytest.mark.parametrize(
    "body",
    [{}, {"reason": ""}, {"reason": "x" * 129}, {"reason": 7}],
    ids=["missing", "empty", "long", "number"],
)
def test_accepted_request_that_does_not_match_is_found(judge: OpenApiJudge, body: dict[str, Any]) -> None:
    path = "/v1/billing/subscriptions/I-BW452GLLEP1G/cancel"
    cancel = Exchange("POST", path, {}, json.dumps({"reason": "x"}).encode(), 204, b"")
    assert judge.compare(cancel) == []
    assert judge.compare(replace(cancel, body=json.dumps(body).encode()))


@pytest.mark.parametrize("plan", [CLOUD, CLOUD_JAPAN, CLOUD_SEATS], ids=lambda plan: plan.name)
def test_resources_of_simulated_events_match(judge: OpenApiJudge, plan: Plan) -> None:
    start, problems = datetime(2025, 2, 11, 16, 20, 31, tzinfo=UTC), set()
    for scenario in scenarios.SCENARIOS.values():
        for delivery in scenario(PEOPLE[1], plan, start, Random(3)):
            kind = next((kind for beginning, kind in RESOURCES if delivery.type.startswith(beginning)), None)
            if kind:
                answer = json.dumps(delivery.event["resource"]).encode()
                shown = Exchange("GET", READS[kind].format(id="1"), {}, b"", 200, answer)
                problems |= {f"{delivery.type}: {problem}" for problem in judge.compare(shown)}
    assert sorted(problems) == []


def test_comparison_runs_in_every_test(
    judge: OpenApiJudge, vendor: Vendor, paypal: FakePaypalApi, openapi_problems: list[str]
) -> None:
    created = vendor.post("/v1/catalogs/products", {"name": "x", "type": "SERVICE", "category": "BOGUS"})
    assert [problem.startswith("POST /v1/catalogs/products -> 201") for problem in openapi_problems] == [True, True]
    openapi_problems.clear()
    assert vendor.get(READS["product"].format(id=created.json()["id"])).status_code == 200
    assert len(openapi_problems) == 1
    openapi_problems.clear()
