"""Parsing of PayPal's resources, old and new formats, into facts and personal data."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from pipeline.inbox.parsing import parse_webhook
from tests.support.example_people import ALICE, BOB
from tests.support.sample_events import GONE, sample

ACTIVATED, COMPLETED, REFUNDED = "BILLING.SUBSCRIPTION.ACTIVATED", "PAYMENT.SALE.COMPLETED", "PAYMENT.SALE.REFUNDED"
FAILED, SUSPENDED, PLAN = "BILLING.SUBSCRIPTION.PAYMENT.FAILED", "BILLING.SUBSCRIPTION.SUSPENDED", "READ.PLAN"


def facts(kind: str, changes: dict[str, Any] | None = None, at: str = "") -> dict[str, Any]:
    return parse_webhook(orjson.dumps(sample(kind, changes, at=at))).facts


def agreement(kind: str, **changes: Any) -> dict[str, Any]:
    """Return an event of an old billing agreement, in the format of 2015."""
    amount = {"value": "10.00"}
    definitions = [
        {"type": "TRIAL", "frequency": "Day", "frequency_interval": "7", "amount": {"value": "0.00"}, "cycles": "1"},
        {"type": "REGULAR", "frequency": "Month", "frequency_interval": "3", "amount": amount, "cycles": "0"},
    ]
    info = {"email": BOB.email, "first_name": "Bob", "last_name": "Brontë", "payer_id": BOB.payer_id}
    resource = {
        "id": BOB.subscription,
        "state": "Active",
        "description": "Licence",
        "start_date": "2026-01-31T07:00:00Z",
        "plan": {"curr_code": "USD", "links": [], "payment_definitions": definitions},
        "payer": {"payment_method": "paypal", "status": "verified", "payer_info": info},
        "agreement_details": {
            "outstanding_balance": {"value": "0.00"},
            "num_cycles_completed": "1",
            "next_billing_date": "2026-04-30T10:00:00Z",
            "last_payment_date": "2026-01-31T11:29:54Z",
            "failed_payment_count": "0",
        },
    }
    created = "2026-01-31T11:37:14Z"
    return {"id": "WH-1", "create_time": created, "event_type": kind, "resource": {**resource, **changes}}


# -- subscriptions


def test_subscription_is_parsed() -> None:
    assert {name: value for name, value in facts(ACTIVATED).items() if not name.endswith("_ref")} == {
        "subscription": ALICE.subscription,
        "status": "ACTIVE",
        "status_at": "2026-02-24T09:16:40Z",
        "status_changed_at": "2026-02-24T09:16:40Z",
        "at": "2026-02-24T09:16:41Z",
        "plan": ALICE.plan,
        "quantity": 1,
        "start_at": "2026-02-24T09:15:00Z",
        "next_billing_at": "2026-03-24T10:00:00Z",
        "last_payment_at": "2026-02-24T09:16:38Z",
        "failed_count": 0,
        "outstanding": [0, "EUR"],
        "shipping": [0, "EUR"],
        "cycles_left": {"trial": 0, "regular": None},
    }


def test_billing_agreement_gives_the_same_facts() -> None:
    found = parse_webhook(orjson.dumps(agreement("BILLING.SUBSCRIPTION.UPDATED")))
    assert found.facts == {
        "subscription": BOB.subscription,
        "status": "ACTIVE",
        "status_at": "2026-01-31T11:37:14Z",
        "at": "2026-01-31T11:37:14Z",
        "terms": {"unit": "MONTH", "count": 3, "price": [1000, "USD"], "has_trial": True},
        "start_at": "2026-01-31T07:00:00Z",
        "next_billing_at": "2026-04-30T10:00:00Z",
        "last_payment_at": "2026-01-31T11:29:54Z",
        "failed_count": 0,
        "outstanding": [0, "USD"],
    }
    assert found.person == {
        "payer": BOB.payer_id, "given_name": "Bob", "surname": "Brontë", "email": "bob@example.com",
    }  # fmt: skip


@pytest.mark.parametrize(("state", "status"), [
    ("Pending", "APPROVAL_PENDING"), ("Active", "ACTIVE"), ("Reactivated", "ACTIVE"), ("Suspended", "SUSPENDED"),
    ("Suspend", "SUSPENDED"), ("Cancelled", "CANCELLED"), ("Canceled", "CANCELLED"), ("Cancel", "CANCELLED"),
    ("Expired", "EXPIRED"), ("Completed", "EXPIRED"),
])  # fmt: skip
def test_old_status_names_are_mapped(state: str, status: str) -> None:
    event = agreement("BILLING.SUBSCRIPTION.UPDATED", state=state)
    assert parse_webhook(orjson.dumps(event)).facts["status"] == status


def test_status_is_taken_from_event_type_if_missing() -> None:
    assert facts(SUSPENDED, {"status": GONE})["status"] == "SUSPENDED"
    assert "status" not in facts("BILLING.SUBSCRIPTION.UPDATED", {"status": "SOMETHING_NEW"})


def test_resource_status_takes_precedence_over_event_type() -> None:
    assert facts(SUSPENDED, {"status": "CANCELLED"})["status"] == "CANCELLED"


def test_retry_time_is_read_from_both_field_names() -> None:
    last = "billing_info.last_failed_payment"
    found = facts(FAILED)
    assert (found["failed_at"], found["failed_amount"]) == ("2026-03-24T11:13:07Z", [2900, "EUR"])
    assert (found["failed_reason"], found["retry_at"]) == ("PAYMENT_DENIED", "2026-03-29T10:00:00Z")
    other = {f"{last}.next_payment_retry_time": None, f"{last}.next_payment_retry_date": "2026-03-30T10:00:00Z"}
    assert facts(FAILED, other)["retry_at"] == "2026-03-30T10:00:00Z"
    assert "retry_at" not in facts(FAILED, {f"{last}.next_payment_retry_time": None})


@pytest.mark.parametrize(("missing", "status_at", "at"), [
    ((), "2026-02-24T09:16:40Z", "2026-02-24T09:16:41Z"),
    (("status_update_time",), "2026-02-24T09:16:41Z", "2026-02-24T09:16:41Z"),
    (("update_time",), "2026-02-24T09:16:40Z", "2026-02-24T09:16:40Z"),
    (("update_time", "status_update_time"), "2026-02-24T09:16:45.640000Z", "2026-02-24T09:16:45.640000Z"),
])  # fmt: skip
def test_most_specific_time_is_used(missing: tuple[str, ...], status_at: str, at: str) -> None:
    found = facts(ACTIVATED, dict.fromkeys(missing, GONE))
    assert (found["status_at"], found["at"]) == (status_at, at)


@pytest.mark.parametrize(
    "time", ["2018-19-12T22:20:32.000Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "soon", 7]
)
def test_unusable_time_is_listed_as_unread(time: object) -> None:
    found = facts(ACTIVATED, {"billing_info.next_billing_time": time})
    assert "next_billing_at" not in found
    assert found["unread"] == ["billing_info.next_billing_time"]


def test_control_characters_are_removed() -> None:
    event = sample(ACTIVATED, {"subscriber.name.given_name": "Alice\r\nBcc: x\x00"})
    assert parse_webhook(orjson.dumps(event)).person["given_name"] == "Alice  Bcc: x"
    assert facts(PLAN, {"name": "\x00"}).get("name") is None


# -- plans


def cycles(**regular: Any) -> dict[str, Any]:
    trial, cycle = (sample(PLAN)["resource"]["billing_cycles"][0] for _ in range(2))
    return {"billing_cycles": [{**trial, "tenure_type": "TRIAL"}, {**cycle, **regular}]}


def test_plan_terms_come_from_the_regular_cycle() -> None:
    found = facts(PLAN, cycles(frequency={"interval_unit": "YEAR", "interval_count": 1}))
    price = {"unit": "YEAR", "count": 1, "price": [2900, "EUR"]}
    trial = {"sequence": 1, "total": 1, "unit": "MONTH", "count": 1, "price": [2900, "EUR"]}
    assert found["terms"] == price | {
        "bills_balance": True,
        "has_trial": True,
        "failures": 2,
        "version": 1,
        "price_at": "2025-11-03T09:00:00Z",
        "trials": [trial],
    }
    assert (found["plan"], found["name"]) == (ALICE.plan, "SMT-CRM managed cloud, monthly")


@pytest.mark.parametrize("frequency", [
    {}, None, {"interval_unit": "FORTNIGHT", "interval_count": 1},
    {"interval_unit": "DAY", "interval_count": 999_999_999},
])  # fmt: skip
def test_unsupported_interval_gives_no_terms(frequency: Any) -> None:
    assert "terms" not in facts(PLAN, cycles(frequency=frequency))


def test_terms_come_from_the_embedded_plan() -> None:
    price = {"unit": "YEAR", "count": 1, "price": [49900, "USD"]}
    own = {"bills_balance": True, "failures": 2, "version": 1, "price_at": "2025-11-03T09:00:00Z", "plan": BOB.plan}
    assert facts("READ.SUBSCRIPTION")["terms"] == price | own


def test_snapshot_is_as_new_as_the_look_up() -> None:
    """PayPal does not change a subscription's update time at a renewal, but its next billing time."""
    document = sample("READ.SUBSCRIPTION")
    read = parse_webhook(orjson.dumps(document | {"read_at": "2027-03-01T12:00:00Z"}))
    assert read.facts["at"] == "2027-03-01T12:00:00Z"
    assert read.facts["status_at"] == facts("READ.SUBSCRIPTION")["status_at"]
    assert read.content_sha256 == parse_webhook(orjson.dumps(document)).content_sha256


@pytest.mark.parametrize(
    ("tiers", "model", "expected"),
    [
        ([(1, 10, "5.00"), (11, None, "4.00")], "VOLUME", {"tiers": [[1, 10, [500, "EUR"]], [11, None, [400, "EUR"]]]}),
        ([(1, None, "5.00")], "TIERED", {"tiers": [[1, None, [500, "EUR"]]], "is_graduated": True}),
        ([(1, 10, "odd")], "VOLUME", {}),
    ],
)
def test_prices_by_quantity_are_read(
    tiers: list[tuple[int, int | None, str]], model: str, expected: dict[str, Any]
) -> None:
    scheme = {
        "pricing_model": model,
        "tiers": [
            {"starting_quantity": str(first), "amount": {"value": price, "currency_code": "EUR"}}
            | ({"ending_quantity": str(last)} if last else {})
            for first, last, price in tiers
        ],
    }
    terms = facts(PLAN, cycles(pricing_scheme=scheme))["terms"]
    assert {name: terms[name] for name in ("tiers", "is_graduated") if name in terms} == expected
    assert terms["price"] is None


@pytest.mark.parametrize(("taxes", "expected"), [
    ({"percentage": "19.0", "inclusive": False}, {"tax": "19"}), ({"percentage": "0.0", "inclusive": False}, {}),
    ({"percentage": "19", "inclusive": True}, {}), ({"percentage": "19"}, {}), (None, {}),
    ({"percentage": "odd", "inclusive": False}, {"has_surcharge": True}), ({"inclusive": False}, {"has_surcharge": True}),
    ({"percentage": "-5", "inclusive": False}, {"has_surcharge": True}),
])  # fmt: skip
def test_tax_on_top_of_the_price_is_read(taxes: Any, expected: dict[str, Any]) -> None:
    terms = facts(PLAN, cycles() | {"taxes": taxes})["terms"]
    assert {name: terms[name] for name in ("tax", "has_surcharge") if name in terms} == expected


def test_charge_models_and_automatic_billing_of_old_plans_are_read() -> None:
    old = agreement("BILLING.SUBSCRIPTION.UPDATED")
    plan = old["resource"]["plan"]
    plan["payment_definitions"][1]["charge_models"] = [{"type": "TAX", "amount": {"value": "1.90"}}]
    plan["merchant_preferences"] = {"auto_bill_amount": "YES"}
    terms = parse_webhook(orjson.dumps(old)).facts["terms"]
    assert (terms["has_surcharge"], terms["bills_balance"]) == (True, True)


@pytest.mark.parametrize(("cycles_left", "expected"), [
    ([("TRIAL", 1, 3, 2), ("REGULAR", 0, 0, 0)], {"trial": 2, "regular": None, "trials": [[0, 2]]}),
    ([("REGULAR", 3, 3, 0)], {"trial": 0, "regular": 0}),
    ([("REGULAR", 3, 0, 0)], {"trial": 0, "regular": None}),
    ([], None),
])  # fmt: skip
def test_remaining_cycles_are_read(cycles_left: list[tuple[str, int, int, int]], expected: Any) -> None:
    executions = [
        {"tenure_type": tenure, "cycles_completed": done, "total_cycles": total, "cycles_remaining": left}
        for tenure, done, total, left in cycles_left
    ]
    assert facts(ACTIVATED, {"billing_info.cycle_executions": executions}).get("cycles_left") == expected


# -- sales and refunds


def test_sale_is_parsed() -> None:
    assert facts(COMPLETED) == {
        "sale": "3AL51924877811803",
        "subscription": ALICE.subscription,
        "amount": [2900, "EUR"],
        "fee": [150, "EUR"],
        "state": "completed",
        "created_at": "2026-02-24T09:16:38Z",
        "at": "2026-02-24T09:16:38Z",
    }
    assert facts("PAYMENT.SALE.PENDING")["held"] is True


@pytest.mark.parametrize(("changes", "sale"), [
    ({}, "3AL51924877811803"),
    ({"sale_id": GONE}, "3AL51924877811803"),
    ({"links": [{"rel": "sale", "href": "http://10.71.8.2/v1/payments/sale/9T0916710M1105906"}], "sale_id": GONE},
     "9T0916710M1105906"),
    ({"links": [{"rel": "sale", "href": "api.paypal.com/v1/payments/sale/../../x"}], "sale_id": GONE}, None),
    ({"links": [{"rel": "self", "href": "/v1/payments/sale/9T0916710M1105906"}], "sale_id": GONE}, None),
    ({"links": "none", "sale_id": GONE}, None),
])  # fmt: skip
def test_refunds_sale_is_read_from_field_or_link(changes: dict[str, Any], sale: str | None) -> None:
    assert facts(REFUNDED, changes).get("sale") == sale


@pytest.mark.parametrize("total", ["9.00", "-9.00", "9", "9.0"])
def test_refund_amount_is_positive(total: str) -> None:
    found = facts(REFUNDED, {"amount.total": total, "total_refunded_amount.total": total})
    assert (found["amount"], found["refunded_total"]) == ([900, "EUR"], [900, "EUR"])


def test_refund_time_is_converted_to_utc() -> None:
    assert facts(REFUNDED, {"create_time": "2026-02-27T08:20:28-08:00"})["created_at"] == "2026-02-27T16:20:28Z"


@pytest.mark.parametrize("amount", [
    {"total": "29,00", "currency": "EUR"}, {"total": "29.00", "currency": "EURO"}, {"total": "29.00"},
    {"total": "29.005", "currency": "EUR"}, {"total": "4800.50", "currency": "JPY"}, {"total": True, "currency": "EUR"},
    "29.00 EUR", 29,
])  # fmt: skip
def test_unreadable_amount_is_listed_as_unread(amount: Any) -> None:
    found = facts(COMPLETED, {"amount": amount})
    assert "amount" not in found
    assert found["unread"] == ["amount"]


# -- recorded events


def test_recorded_events_contain_the_facts_handlers_need(shared: Path) -> None:
    needed = {
        "BILLING.SUBSCRIPTION.": {"subscription", "status", "status_at", "at"},
        "PAYMENT.SALE.REFUNDED": {"refund", "sale", "amount", "created_at", "at"},
        "PAYMENT.SALE.REVERSED": {"refund", "amount", "created_at", "at"},
        "PAYMENT.SALE.": {"sale", "amount", "state", "created_at", "at"},
    }
    for path in [*shared.glob("events/*.json"), *shared.glob("legacy-v1/*.json")]:
        found = parse_webhook(path.read_bytes())
        required = next((keys for prefix, keys in needed.items() if found.type.startswith(prefix)), set())
        assert required <= found.facts.keys(), path.name
