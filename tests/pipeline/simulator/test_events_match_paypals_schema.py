"""The simulator's events have the format of recorded PayPal events. Skipped where the recordings are not available."""

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest

from pipeline.clock import parse_time
from pipeline.inbox.parsing import parse_webhook
from pipeline.simulator import plans, scenarios, shapes
from pipeline.simulator.people import HOSTILE, PEOPLE, SILENT, crowd
from tests.support.recorded_samples import recorded

START = datetime(2025, 2, 11, 16, 20, 31, tzinfo=UTC)

TYPES = (
    "BILLING.SUBSCRIPTION.CREATED",
    "BILLING.SUBSCRIPTION.ACTIVATED",
    "BILLING.SUBSCRIPTION.UPDATED",
    "BILLING.SUBSCRIPTION.PAYMENT.FAILED",
    "BILLING.SUBSCRIPTION.SUSPENDED",
    "BILLING.SUBSCRIPTION.RE-ACTIVATED",
    "BILLING.SUBSCRIPTION.CANCELLED",
    "BILLING.SUBSCRIPTION.EXPIRED",
    "PAYMENT.SALE.COMPLETED",
    "PAYMENT.SALE.PENDING",
    "PAYMENT.SALE.DENIED",
    "PAYMENT.SALE.REFUNDED",
    "PAYMENT.SALE.REVERSED",
    "CUSTOMER.DISPUTE.CREATED",
    "CUSTOMER.DISPUTE.UPDATED",
    "CUSTOMER.DISPUTE.RESOLVED",
    "BILLING.PLAN.PRICING-CHANGE.ACTIVATED",
)
# Keys of the recorded events that the simulator omits, with the reason.
OMITTED = (
    r"status|transmissions(\[\].*|\..*)?",  # added when an event is read through the API
    r"(resource\.)?links\[\]\.encType",  # added by the API, too
    r"resource\.shipping_amount(\..*)?",  # software is not shipped
    r"resource\.parent_payment",  # a subscription's sale has no parent payment
    r"resource\.amount\.details\.(tax|shipping)",  # our prices have neither
)
OMITTED_BY_TYPE = {
    "BILLING.SUBSCRIPTION.CREATED": r"resource\.subscriber(\..*)?",  # current events do not have it
    # The simulator plays no offers; its disputes name neither buyer nor the buyer's due date.
    "CUSTOMER.DISPUTE.CREATED": r"resource\.buyer_response_due_date",
    "CUSTOMER.DISPUTE.UPDATED": r"resource\.(extensions|offer)(\..*)?|.*\.(buyer|seller)\..*|.*\.buyer",
    "CUSTOMER.DISPUTE.RESOLVED": r".*\.buyer_transaction_id",
}


def sample(path: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(recorded(f"paypal/{path}").read_text("utf-8"))
    return found


def paths(value: Any, at: str = "") -> Iterator[str]:
    """Yield the paths of all keys, for example `resource.links[].href`."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield f"{at}.{key}".lstrip(".")
            yield from paths(item, f"{at}.{key}".lstrip("."))
    elif isinstance(value, list):
        for item in value:
            yield from paths(item, at + "[]")


def is_omitted(kind: str, path: str) -> bool:
    return any(re.fullmatch(pattern, path) for pattern in (*OMITTED, OMITTED_BY_TYPE.get(kind, "")))


@pytest.fixture(scope="module")
def simulated() -> dict[str, list[dict[str, Any]]]:
    """All events of all scenarios, by type."""
    events: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for scenario in scenarios.SCENARIOS.values():
        for plan in plans.PLANS.values():
            for delivery in scenario(PEOPLE[1], plan, START, Random(3)):
                events[delivery.type].append(json.loads(delivery.body))
    return events


def test_scenarios_contain_every_handled_event_type(simulated: dict[str, list[dict[str, Any]]]) -> None:
    assert sorted(simulated) == sorted(TYPES)


@pytest.mark.parametrize("kind", TYPES)
def test_event_has_the_keys_of_the_recorded_event(kind: str, simulated: dict[str, list[dict[str, Any]]]) -> None:
    wanted = {path for path in paths(sample(f"events/{kind}.json")) if not is_omitted(kind, path)}
    found = {path for event in simulated[kind] for path in paths(event)}
    # Only pending eCheck sales have a reason code and only held sales have a hold; together they have all keys.
    assert wanted - found == set()


@pytest.mark.parametrize("kind", TYPES)
def test_event_has_the_envelope_of_the_recorded_event(kind: str, simulated: dict[str, list[dict[str, Any]]]) -> None:
    recorded_event = sample(f"events/{kind}.json")
    for event in simulated[kind]:
        assert event.get("resource_version") == recorded_event.get("resource_version")
        assert event["event_version"] == "1.0"
        assert re.fullmatch(r"WH-[A-Z0-9]{17}-[A-Z0-9]{17}", event["id"])
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", event["create_time"])
        assert [link["rel"] for link in event["links"]] == ["self", "resend"]


@pytest.mark.parametrize("kind", [kind for kind in TYPES if kind.startswith("BILLING.SUBSCRIPTION.")])
def test_subscription_has_status_and_links_of_recorded_event(
    kind: str, simulated: dict[str, list[dict[str, Any]]]
) -> None:
    recorded_event = sample(f"events/{kind}.json")["resource"]
    for event in simulated[kind]:
        resource = event["resource"]
        assert resource["status"] == recorded_event["status"]
        assert isinstance(resource["quantity"], str)
        assert [link["rel"] for link in resource["links"]] == [link["rel"] for link in recorded_event["links"]]
        following = resource.get("billing_info", {}).get("next_billing_time")
        assert following is None or following.endswith("T10:00:00Z")


@pytest.mark.parametrize(
    ("kind", "absent"),
    [
        ("BILLING.SUBSCRIPTION.CREATED", "subscriber"),
        ("BILLING.SUBSCRIPTION.CREATED", "billing_info"),
        ("BILLING.SUBSCRIPTION.CANCELLED", "billing_info.next_billing_time"),
        ("BILLING.SUBSCRIPTION.EXPIRED", "billing_info.next_billing_time"),
        ("BILLING.SUBSCRIPTION.SUSPENDED", "billing_info.next_billing_time"),
        ("BILLING.SUBSCRIPTION.ACTIVATED", "billing_info.last_failed_payment"),
        ("PAYMENT.SALE.COMPLETED", "parent_payment"),
        ("PAYMENT.SALE.REFUNDED", "billing_agreement_id"),
        ("PAYMENT.SALE.REVERSED", "sale_id"),
    ],
)
def test_fields_absent_from_real_events_are_absent(
    kind: str, absent: str, simulated: dict[str, list[dict[str, Any]]]
) -> None:
    assert [event["id"] for event in simulated[kind] if absent in set(paths(event["resource"]))] == []


@pytest.mark.parametrize("plan", plans.PLANS.values(), ids=lambda plan: plan.name)
def test_plan_has_the_keys_of_the_recorded_plan(plan: plans.Plan) -> None:
    assert set(paths(sample("api/plan.get.json"))) - set(paths(shapes.plan(plan))) == set()


def test_body_is_compact_unescaped_utf8() -> None:
    sale = next(
        each
        for each in scenarios.first_year(PEOPLE[2], plans.CLOUD, START, Random(1))
        if each.type.startswith("PAYMENT")
    )
    assert "Payment completed for € 29.0 EUR".encode() in sale.body
    assert b'": ' not in sale.body
    assert b"\\u" not in sale.body
    assert b"\\/" not in sale.body


@pytest.mark.parametrize(
    ("plan", "in_sale", "in_subscription"),
    [
        (plans.CLOUD, {"total": "29.00", "currency": "EUR"}, {"currency_code": "EUR", "value": "29.0"}),
        (plans.CLOUD_JAPAN, {"total": "4800", "currency": "JPY"}, {"currency_code": "JPY", "value": "4800"}),
        (plans.CLOUD_SEATS, {"total": "45.00", "currency": "USD"}, {"currency_code": "USD", "value": "45.0"}),
        (plans.LICENCE, {"total": "499.00", "currency": "USD"}, {"currency_code": "USD", "value": "499.0"}),
    ],
    ids=["euro", "yen", "seats", "year"],
)
def test_amounts_have_paypals_format(
    plan: plans.Plan, in_sale: dict[str, str], in_subscription: dict[str, str]
) -> None:
    by_type = {each.type: each.event["resource"] for each in scenarios.first_year(PEOPLE[0], plan, START, Random(1))}
    amount = by_type["PAYMENT.SALE.COMPLETED"]["amount"]
    assert {key: amount[key] for key in ("total", "currency")} == in_sale
    assert by_type["BILLING.SUBSCRIPTION.ACTIVATED"]["billing_info"]["last_payment"]["amount"] == in_subscription


def test_unknown_customer_data_is_omitted() -> None:
    subscriber = shapes.subscriber(SILENT)
    assert "email_address" not in subscriber
    assert "shipping_address" not in subscriber
    assert subscriber["payer_id"] == SILENT.payer_id


def test_hostile_name_is_sent_unchanged() -> None:
    activated = scenarios.first_year(HOSTILE, plans.CLOUD, START, Random(1))
    names = [each.event["resource"]["subscriber"]["name"] for each in activated if each.type.endswith(".ACTIVATED")]
    assert names[0]["given_name"] == "Eve\r\nBcc: everyone@example.com"


def test_customers_have_unique_addresses_under_example_com() -> None:
    for person in crowd(60, Random(5)):
        assert person.email.rpartition("@")[2].endswith("example.com")
    assert len({person.email for person in crowd(60, Random(5))}) == 60
    assert len({person.payer_id for person in crowd(60, Random(5))}) == 60


def test_all_times_can_be_parsed(simulated: dict[str, list[dict[str, Any]]]) -> None:
    for events in simulated.values():
        for event in events:
            text = json.dumps(event)
            assert all(parse_time(found) for found in re.findall(r'_time": "([^"]*)"', text))


def test_webhook_parser_keeps_every_simulated_event_complete() -> None:
    for delivery in scenarios.vendor_months(11, 12, datetime(2026, 3, 1, tzinfo=UTC), 40):
        found = parse_webhook(delivery.body)
        assert (found.id, found.type, found.problem) == (delivery.id, delivery.type, None)
        assert found.facts.get("unread") is None
        if not delivery.type.startswith(("CUSTOMER.DISPUTE.", "BILLING.PLAN.")):
            assert found.key_id.startswith("I-") or "refund" in found.facts
        assert json.loads(found.redacted_body) == delivery.event
