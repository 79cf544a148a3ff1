"""The simulated PayPal API, called over HTTP."""

from datetime import UTC, datetime, timedelta
from random import Random

import pytest
import requests

from pipeline.clock import MovableClock
from pipeline.simulator import scenarios
from pipeline.simulator.people import PEOPLE
from pipeline.simulator.plans import CLOUD, PLANS, Plan
from pipeline.simulator.server.api import EXPIRES_IN, TOKEN_PATH, FakePaypalApi
from pipeline.simulator.timeline import Delivery, Json
from tests.support.api_vendor import Vendor

START = datetime(2025, 1, 14, 8, 30, tzinfo=UTC)


def apply_all(paypal: FakePaypalApi, deliveries: list[Delivery]) -> Json:
    """Apply all deliveries. Return the resource of the last event."""
    for delivery in deliveries:
        paypal.world.apply(delivery)
    found: Json = deliveries[-1].event["resource"]
    return found


def test_correct_secret_gets_token(vendor: Vendor) -> None:
    answer = vendor.token()
    assert answer.status_code == 200
    assert answer.json()["token_type"] == "Bearer"
    assert answer.json()["expires_in"] == EXPIRES_IN


def test_wrong_secret_gets_no_token(vendor: Vendor) -> None:
    answer = vendor.token(("simulator", "guess"))
    assert answer.status_code == 401
    assert answer.json()["error"] == "invalid_client"


def test_unsupported_grant_gets_no_token(vendor: Vendor) -> None:
    assert vendor.token(grant="password").json()["error"] == "unsupported_grant_type"


def test_request_without_token_is_refused(vendor: Vendor) -> None:
    del vendor.session.headers["Authorization"]
    answer = vendor.get(f"/v1/billing/plans/{CLOUD.id}")
    assert (answer.status_code, answer.json()["name"]) == (401, "AUTHENTICATION_FAILURE")


def test_expired_token_is_refused(vendor: Vendor, clock: MovableClock) -> None:
    clock.advance(timedelta(seconds=EXPIRES_IN - 1))
    assert vendor.get(f"/v1/billing/plans/{CLOUD.id}").status_code == 200
    clock.advance(timedelta(seconds=1))
    answer = vendor.get(f"/v1/billing/plans/{CLOUD.id}")
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_token")
    vendor.sign_in()
    assert vendor.get(f"/v1/billing/plans/{CLOUD.id}").status_code == 200


@pytest.mark.parametrize("plan", PLANS.values(), ids=lambda plan: plan.name)
def test_every_plan_is_returned(plan: Plan, vendor: Vendor) -> None:
    shown = vendor.get(f"/v1/billing/plans/{plan.id}").json()
    assert shown["name"] == plan.name
    assert shown["billing_cycles"][-1]["frequency"] == {"interval_unit": plan.unit, "interval_count": plan.count}


def test_renewed_subscription_shows_next_billing_time(paypal: FakePaypalApi, vendor: Vendor) -> None:
    sale = apply_all(paypal, scenarios.first_year(PEOPLE[2], CLOUD, START, Random(1))[:4])
    shown = vendor.get(f"/v1/billing/subscriptions/{sale['billing_agreement_id']}").json()
    assert shown["billing_info"]["next_billing_time"] == "2025-03-14T10:00:00Z"
    assert shown["billing_info"]["last_payment"]["time"] == sale["create_time"]
    assert shown["subscriber"]["email_address"] == PEOPLE[2].email
    assert shown["subscriber"]["name"]["given_name"] == PEOPLE[2].given_name


def test_fields_parameter_adds_optional_data(paypal: FakePaypalApi, vendor: Vendor) -> None:
    failed = apply_all(paypal, scenarios.card_fails_then_recovers(PEOPLE[0], CLOUD, START, Random(1))[:4])
    path = f"/v1/billing/subscriptions/{failed['id']}"
    plain = vendor.get(path).json()
    assert "last_failed_payment" not in plain["billing_info"]
    assert "plan" not in plain
    full = vendor.get(path + "?fields=last_failed_payment,plan").json()
    assert full["billing_info"]["last_failed_payment"] == failed["billing_info"]["last_failed_payment"]
    assert full["plan"]["id"] == CLOUD.id


def test_sale_and_refunds_are_returned(paypal: FakePaypalApi, vendor: Vendor) -> None:
    deliveries = scenarios.refund(PEOPLE[0], CLOUD, START, Random(1), name_sale=False)
    refunded = [each for each in deliveries if each.type.endswith("REFUNDED")]
    sale = next(each.event["resource"]["id"] for each in deliveries if each.type.endswith("COMPLETED"))
    states = []
    for each in refunded:
        apply_all(paypal, deliveries[: deliveries.index(each) + 1])
        assert vendor.get(f"/v1/payments/refund/{each.event['resource']['id']}").json()["sale_id"] == sale
        states.append(vendor.get(f"/v1/payments/sale/{sale}").json()["state"])
    assert states == ["partially_refunded", "refunded"]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("v1/billing/subscriptions", "RESOURCE_NOT_FOUND"),
        ("v1/billing/plans", "RESOURCE_NOT_FOUND"),
        ("v1/catalogs/products", "RESOURCE_NOT_FOUND"),
        ("v1/payments/sale", "INVALID_RESOURCE_ID"),
        ("v1/payments/refund", "INVALID_RESOURCE_ID"),
        ("v2/payments/captures", "RESOURCE_NOT_FOUND"),
        ("v2/payments/refunds", "RESOURCE_NOT_FOUND"),
        ("v1/customer/disputes", "RESOURCE_NOT_FOUND"),
        ("v1/notifications/webhooks", "INVALID_RESOURCE_ID"),
        ("v1/notifications/webhooks-events", "INVALID_RESOURCE_ID"),
    ],
)
def test_unknown_id_is_not_found(path: str, name: str, vendor: Vendor, paypal: FakePaypalApi) -> None:
    answer = vendor.get(f"/{path}/I-NOBODY000000")
    assert answer.status_code == 404
    assert answer.json()["name"] == name
    assert answer.json()["debug_id"] == answer.headers["Paypal-Debug-Id"]
    assert paypal.unknown == []


def test_unknown_paths_are_recorded(vendor: Vendor, paypal: FakePaypalApi) -> None:
    assert vendor.get("/v2/nothing/1").status_code == 404
    url = f"{vendor.base_url}/v1/payments/payouts"
    assert vendor.session.post(url, json={}, timeout=10).status_code == 404
    assert paypal.unknown == ["GET /v2/nothing/1", "POST /v1/payments/payouts"]
    assert paypal.asked[-1] == "POST /v1/payments/payouts"


@pytest.mark.parametrize(
    ("how", "status", "name"), [("500", 500, "INTERNAL_SERVER_ERROR"), ("429", 429, "RATE_LIMIT_REACHED")]
)
def test_error_repeats_as_often_as_requested(
    how: str, status: int, name: str, vendor: Vendor, paypal: FakePaypalApi
) -> None:
    paypal.misbehave("500" if how == "500" else "429", times=2)
    assert vendor.token().status_code == 200
    for _ in range(2):
        answer = vendor.get(f"/v1/billing/plans/{CLOUD.id}")
        assert (answer.status_code, answer.json()["name"]) == (status, name)
        assert answer.json()["debug_id"]
    assert vendor.get(f"/v1/billing/plans/{CLOUD.id}").status_code == 200


def test_failure_can_be_limited_to_a_path(vendor: Vendor, paypal: FakePaypalApi) -> None:
    paypal.misbehave("500", path=TOKEN_PATH)
    assert vendor.get(f"/v1/billing/plans/{CLOUD.id}").status_code == 200
    assert vendor.token().status_code == 500
    assert vendor.token().status_code == 200


def test_garbage_has_status_200_without_json(vendor: Vendor, paypal: FakePaypalApi) -> None:
    paypal.misbehave("garbage")
    answer = vendor.get(f"/v1/billing/plans/{CLOUD.id}")
    assert answer.status_code == 200
    with pytest.raises(requests.JSONDecodeError):
        answer.json()


def test_stalled_request_gets_no_answer(vendor: Vendor, paypal: FakePaypalApi) -> None:
    paypal.misbehave("stall")
    vendor.timeout = 0.2
    with pytest.raises(requests.ReadTimeout):
        vendor.get(f"/v1/billing/plans/{CLOUD.id}")
    vendor.timeout = 10
    assert vendor.get(f"/v1/billing/plans/{CLOUD.id}").status_code == 200


def test_tokens_can_be_invalidated(vendor: Vendor, paypal: FakePaypalApi) -> None:
    paypal.misbehave("expire_token")
    assert vendor.get(f"/v1/billing/plans/{CLOUD.id}").status_code == 401
    vendor.sign_in()
    assert vendor.get(f"/v1/billing/plans/{CLOUD.id}").status_code == 200


def test_api_can_serve_itself(paypal: FakePaypalApi) -> None:
    with paypal.serve() as base_url:
        vendor = Vendor(base_url)
        vendor.sign_in()
        assert vendor.get(f"/v1/billing/plans/{CLOUD.id}").status_code == 200
        vendor.session.close()
