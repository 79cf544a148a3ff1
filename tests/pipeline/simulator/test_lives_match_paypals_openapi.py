"""Every object of random lives is a valid answer by PayPal's OpenAPI files. Skipped where the files are not available."""

import json
from random import Random

import pytest

from pipeline.simulator.random_life import random_life
from pipeline.simulator.timeline import Kind
from pipeline.simulator.world import PaypalState
from tests.support.paypal_openapi import Exchange, OpenApiJudge
from tests.support.recorded_samples import recorded

PATHS: dict[Kind, str] = {
    "subscription": "/v1/billing/subscriptions/",
    "plan": "/v1/billing/plans/",
    "sale": "/v1/payments/sale/",
    "refund": "/v1/payments/refund/",
    "capture": "/v2/payments/captures/",
    "capture_refund": "/v2/payments/refunds/",
    "dispute": "/v1/customer/disputes/",
}


@pytest.fixture(scope="module")
def judge() -> OpenApiJudge:
    recorded("paypal/openapi")
    return OpenApiJudge()


@pytest.mark.parametrize("kind", PATHS)
def test_objects_of_lives_are_valid_answers(kind: Kind, judge: OpenApiJudge) -> None:
    problems: set[str] = set()
    judged = 0
    for seed in range(12):
        world = PaypalState(())
        for delivery in random_life(Random(seed)).deliveries:
            world.apply(delivery)
        for shown in world.show_all(kind):
            path = PATHS[kind] + str(shown.get("id") or shown["dispute_id"])
            problems |= set(judge.compare(Exchange("GET", path, {}, b"", 200, json.dumps(shown).encode())))
            judged += 1
    assert judged > 0
    assert not problems
