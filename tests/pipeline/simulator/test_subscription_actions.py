"""Suspend, activate, capture, revise and PATCH a subscription at the simulated PayPal."""

from datetime import timedelta
from random import Random

import pytest

from pipeline.clock import MovableClock
from pipeline.simulator import scenarios
from pipeline.simulator.people import PEOPLE
from pipeline.simulator.plans import CLOUD, CLOUD_SEATS, CLOUD_TRIAL, LICENCE
from pipeline.simulator.server.api import FakePaypalApi
from pipeline.simulator.timeline import Json
from tests.support.api_vendor import Vendor, issues
from tests.support.subprocesses import until

PAGES = {"return_url": "https://billing.example.com/done", "cancel_url": "https://billing.example.com/not-done"}
EUR_29 = {"currency_code": "EUR", "value": "29.00"}


def path(subscription: str, action: str = "") -> str:
    return f"/v1/billing/subscriptions/{subscription}" + (f"/{action}" if action else "")


def wait_for(sent: list[str], expected: list[str]) -> None:
    until(lambda: sent == expected, 10, f"PayPal sends {expected}, not {sent}")


@pytest.fixture
def indebted(paypal: FakePaypalApi, clock: MovableClock, vendor: Vendor) -> str:
    """Id of a subscription that owes 29.00 EUR after a failed charge and its retries."""
    deliveries = scenarios.card_fails_then_recovers(PEOPLE[0], CLOUD, clock.now(), Random(1))
    failed = [number for number, each in enumerate(deliveries) if each.type.endswith("PAYMENT.FAILED")]
    for delivery in deliveries[: failed[-1] + 1]:
        paypal.world.apply(delivery)
    clock.move_to(deliveries[failed[-1]].at)
    vendor.sign_in()
    return paypal.world.ids("subscription")[0]


def test_suspended_subscription_has_no_next_charge(vendor: Vendor, subscription: str, sent: list[str]) -> None:
    assert vendor.post(path(subscription, "suspend"), {"reason": "Pause"}).status_code == 204
    found = vendor.get(path(subscription)).json()
    assert (found["status"], found["status_change_note"]) == ("SUSPENDED", "Pause")
    assert "next_billing_time" not in found["billing_info"]
    wait_for(sent, ["BILLING.SUBSCRIPTION.SUSPENDED"])


def test_activated_subscription_skips_the_cycles_of_its_pause(
    vendor: Vendor, subscription: str, sent: list[str], clock: MovableClock
) -> None:
    vendor.post(path(subscription, "suspend"), {"reason": "Pause"})
    clock.advance(timedelta(days=60))  # from 23 February to 24 April 2025
    vendor.sign_in()
    assert vendor.post(path(subscription, "activate"), {"reason": "Go on"}).status_code == 204
    found = vendor.get(path(subscription)).json()
    assert (found["status"], found["billing_info"]["next_billing_time"]) == ("ACTIVE", "2025-05-14T10:00:00Z")
    wait_for(sent, ["BILLING.SUBSCRIPTION.SUSPENDED", "BILLING.SUBSCRIPTION.ACTIVATED"])


@pytest.mark.parametrize("action", ["cancel", "suspend"])
@pytest.mark.parametrize(
    ("reason", "issue"), [("x" * 129, "INVALID_STRING_MAX_LENGTH"), ("", "INVALID_STRING_MIN_LENGTH")]
)
def test_reason_has_1_to_128_characters(
    vendor: Vendor, subscription: str, action: str, reason: str, issue: str
) -> None:
    answer = vendor.post(path(subscription, action), {"reason": reason})
    assert (answer.status_code, issues(answer)) == (400, [issue])
    assert vendor.get(path(subscription)).json()["status"] == "ACTIVE"


def test_action_that_the_status_does_not_allow_is_refused(vendor: Vendor, subscription: str, sent: list[str]) -> None:
    answer = vendor.post(path(subscription, "activate"), {"reason": "Again"})
    assert (answer.status_code, issues(answer)) == (422, ["SUBSCRIPTION_STATUS_INVALID"])
    vendor.post(path(subscription, "cancel"), {"reason": "The end"})
    for action in ("cancel", "suspend", "activate"):
        assert issues(vendor.post(path(subscription, action), {"reason": "x"})) == ["SUBSCRIPTION_STATUS_INVALID"]
    wait_for(sent, ["BILLING.SUBSCRIPTION.CANCELLED"])


def test_capture_collects_the_balance_once_per_request_id(
    vendor: Vendor, indebted: str, sent: list[str], paypal: FakePaypalApi
) -> None:
    body = {"note": "Open amount", "capture_type": "OUTSTANDING_BALANCE", "amount": EUR_29}
    answers = [vendor.post(path(indebted, "capture"), body, request_id="capture-1") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json() == answers[1].json()
    assert answers[0].json()["amount_with_breakdown"]["gross_amount"] == EUR_29
    found = vendor.get(path(indebted)).json()["billing_info"]
    assert (found["outstanding_balance"]["value"], found["failed_payments_count"]) == ("0.0", 0)
    assert vendor.get(f"/v1/payments/sale/{answers[0].json()['id']}").json()["billing_agreement_id"] == indebted
    wait_for(sent, ["PAYMENT.SALE.COMPLETED"])
    assert issues(vendor.post(path(indebted, "capture"), body)) == ["ZERO_OUTSTANDING_BALANCE"]


@pytest.mark.parametrize(
    ("amount", "issue"),
    [
        ({"currency_code": "EUR", "value": "29.01"}, "AMOUNT_GREATER_THAN_OUTSTANDING_BALANCE"),
        ({"currency_code": "USD", "value": "29.00"}, "CURRENCY_MISMATCH"),
    ],
)
def test_capture_of_another_amount_is_refused(vendor: Vendor, indebted: str, amount: Json, issue: str) -> None:
    body = {"note": "Open amount", "capture_type": "OUTSTANDING_BALANCE", "amount": amount}
    answer = vendor.post(path(indebted, "capture"), body)
    assert (answer.status_code, issues(answer)) == (422, [issue])


def test_revision_takes_effect_when_the_buyer_approves(vendor: Vendor, subscription: str, sent: list[str]) -> None:
    body = {"plan_id": CLOUD_TRIAL.id, "quantity": "3", "application_context": PAGES}
    answer = vendor.post(path(subscription, "revise"), body)
    assert (answer.status_code, answer.json()["plan_id"], answer.json()["quantity"]) == (200, CLOUD_TRIAL.id, "3")
    assert vendor.get(path(subscription)).json()["plan_id"] == CLOUD.id
    page = next(link["href"] for link in answer.json()["links"] if link["rel"] == "approve")
    approved = vendor.session.post(page, allow_redirects=False, timeout=10)
    assert approved.headers["Location"].startswith(PAGES["return_url"])
    found = vendor.get(path(subscription)).json()
    assert (found["plan_id"], found["quantity"], found["status"]) == (CLOUD_TRIAL.id, "3", "ACTIVE")
    wait_for(sent, ["BILLING.SUBSCRIPTION.UPDATED"])


def test_revision_of_an_ended_subscription_changes_nothing(vendor: Vendor, subscription: str, sent: list[str]) -> None:
    answer = vendor.post(path(subscription, "revise"), {"plan_id": CLOUD_TRIAL.id})
    vendor.post(path(subscription, "cancel"), {"reason": "The end"})
    page = next(link["href"] for link in answer.json()["links"] if link["rel"] == "approve")
    vendor.session.post(page, allow_redirects=False, timeout=10)
    assert vendor.get(path(subscription)).json()["plan_id"] == CLOUD.id
    wait_for(sent, ["BILLING.SUBSCRIPTION.CANCELLED"])


def test_revision_to_another_currency_or_product_is_refused(vendor: Vendor, subscription: str) -> None:
    answer = vendor.post(path(subscription, "revise"), {"plan_id": LICENCE.id})
    assert (answer.status_code, issues(answer)) == (422, ["CURRENCY_MISMATCH"])
    product = vendor.post("/v1/catalogs/products", {"name": "Other", "type": "SERVICE"}).json()["id"]
    plan = {
        "name": "Other",
        "product_id": product,
        "billing_cycles": [
            {
                "frequency": {"interval_unit": "MONTH", "interval_count": 1},
                "tenure_type": "REGULAR",
                "sequence": 1,
                "total_cycles": 0,
                "pricing_scheme": {"fixed_price": EUR_29},
            }
        ],
        "payment_preferences": {},
    }
    other = vendor.post("/v1/billing/plans", plan).json()["id"]
    answer = vendor.post(path(subscription, "revise"), {"plan_id": other})
    assert (answer.status_code, issues(answer)) == (422, ["PLAN_PRODUCT_NOT_COMPATIBLE"])


def test_patch_overrides_price_and_tax_of_this_subscription_only(
    vendor: Vendor, subscription: str, sent: list[str]
) -> None:
    price = "/plan/billing_cycles/@sequence==1/pricing_scheme/fixed_price"
    changes = [
        {"op": "replace", "path": price, "value": {"currency_code": "EUR", "value": "19.00"}},
        {"op": "replace", "path": "/plan/taxes/percentage", "value": "19.0"},
        {"op": "replace", "path": "/custom_id", "value": "customer-9"},
    ]
    assert vendor.send("PATCH", path(subscription), changes).status_code == 204
    found = vendor.get(path(subscription), fields="plan").json()
    assert (found["plan_overridden"], found["custom_id"]) == (True, "customer-9")
    assert found["plan"]["billing_cycles"][0]["pricing_scheme"]["fixed_price"]["value"] == "19.0"
    assert found["plan"]["taxes"]["percentage"] == "19.0"
    plan = vendor.get(f"/v1/billing/plans/{CLOUD.id}").json()
    assert plan["billing_cycles"][0]["pricing_scheme"]["fixed_price"]["value"] == "29.0"
    assert "plan" not in vendor.get(path(subscription)).json()
    wait_for(sent, ["BILLING.SUBSCRIPTION.UPDATED"])


def test_patch_writes_off_a_balance_but_never_raises_it(vendor: Vendor, indebted: str) -> None:
    def change(value: str) -> object:
        balance = {"currency_code": "EUR", "value": value}
        return [{"op": "replace", "path": "/billing_info/outstanding_balance", "value": balance}]

    answer = vendor.send("PATCH", path(indebted), change("29.01"))
    assert (answer.status_code, issues(answer)) == (422, ["AMOUNT_GREATER_THAN_OUTSTANDING_BALANCE"])
    assert vendor.send("PATCH", path(indebted), change("0.00")).status_code == 204
    assert vendor.get(path(indebted)).json()["billing_info"]["outstanding_balance"]["value"] == "0.0"


@pytest.mark.parametrize(
    ("change", "issue"),
    [
        ({"op": "replace", "path": "/status", "value": "CANCELLED"}, "INVALID_PATCH_PATH"),
        ({"op": "remove", "path": "/custom_id"}, "UNSUPPORTED_PATCH_OPERATION"),
        ({"op": "replace", "path": "/shipping_amount", "value": "5.00"}, "INVALID_PARAMETER_VALUE"),
        ({"op": "replace", "path": "/custom_id", "value": "é"}, "INVALID_PARAMETER_SYNTAX"),
    ],
)
def test_patch_of_other_fields_is_refused(vendor: Vendor, subscription: str, change: Json, issue: str) -> None:
    answer = vendor.send("PATCH", path(subscription), [change])
    assert (answer.status_code, issues(answer)) == (400, [issue])


@pytest.mark.parametrize(
    ("change", "issue"),
    [
        ({"custom_id": ""}, "INVALID_PARAMETER_SYNTAX"),
        ({"custom_id": "é"}, "INVALID_PARAMETER_SYNTAX"),
        ({"custom_id": "x" * 128}, "INVALID_STRING_MAX_LENGTH"),
        ({"quantity": "x"}, "INVALID_PARAMETER_SYNTAX"),
        ({"quantity": 2}, "INVALID_PARAMETER_SYNTAX"),
        ({"application_context": {**PAGES, "return_url": "x"}}, "INVALID_PARAMETER_SYNTAX"),
        ({"application_context": {**PAGES, "user_action": "BOGUS"}}, "INVALID_PARAMETER_VALUE"),
        ({"application_context": {"return_url": PAGES["return_url"]}}, "MISSING_REQUIRED_PARAMETER"),
    ],
)
def test_invalid_field_of_a_new_subscription_is_refused(vendor: Vendor, change: Json, issue: str) -> None:
    body = {"plan_id": CLOUD_SEATS.id, "application_context": PAGES, **change}
    answer = vendor.post("/v1/billing/subscriptions", body)
    assert (answer.status_code, issues(answer)) == (400, [issue])


def test_subscription_needs_an_active_plan_that_supports_the_quantity(vendor: Vendor) -> None:
    body = {"plan_id": CLOUD.id, "application_context": PAGES}
    answer = vendor.post("/v1/billing/subscriptions", {**body, "quantity": "2"})
    assert (answer.status_code, issues(answer)) == (422, ["SUBSCRIPTION_CANNOT_HAVE_QUANTITY"])
    assert vendor.post(f"/v1/billing/plans/{CLOUD.id}/deactivate").status_code == 204
    answer = vendor.post("/v1/billing/subscriptions", body)
    assert (answer.status_code, issues(answer)) == (422, ["PLAN_STATUS_INVALID"])


def test_body_must_be_json_and_say_so(vendor: Vendor, subscription: str) -> None:
    url = vendor.base_url + path(subscription, "suspend")
    answer = vendor.session.post(url, data=b'{"reason": "x"}', timeout=10)
    assert (answer.status_code, answer.json()["name"]) == (415, "UNSUPPORTED_MEDIA_TYPE")
    answer = vendor.session.post(url, data=b"{", headers={"Content-Type": "application/json"}, timeout=10)
    assert (answer.status_code, issues(answer)) == (400, ["MALFORMED_REQUEST_JSON"])
