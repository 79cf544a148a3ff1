"""References in events of unknown types: PayPal's samples and generated JSON."""

import re
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.db.models import Event
from pipeline.inbox.parsing import ParsedEvent, parse_webhook
from pipeline.paypal.references import find_references
from tests.support.pipeline_under_test import PipelineUnderTest, delivery, happened

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["payer_id", "custom_id", "custom", "subscription_id", "seller_transaction_id", "other"]), inner
    ),
    max_leaves=30,
)  # fmt: skip

MONEY = ("amount", "amounts", "fee", "refunded_total", "returned_fee", "net")


def parse_sample(shared: Path, kind: str) -> ParsedEvent:
    return parse_webhook((shared / "events" / f"{kind}.json").read_bytes())


@pytest.mark.parametrize(
    ("kind", "person", "key", "money"),
    [
        (
            "CHECKOUT.ORDER.APPROVED",
            {"payer": "QYR5Z8XDVJNXQ", "custom": "ORDER-1001"},
            None,
            {"amounts": [[10000, "USD"]]},
        ),
        (
            "CHECKOUT.ORDER.COMPLETED",
            {"payer": "QYR5Z8XDVJNXQ", "custom": "ORDER-1001"},
            None,
            {"amounts": [[10000, "USD"]]},
        ),
        ("CHECKOUT.PAYMENT-APPROVAL.REVERSED", {"custom": "MERCHANT_CUSTOM_ID"}, None, {}),
        (
            "PAYMENT.CAPTURE.COMPLETED",
            {"custom": "ORDER-1001"},
            "sale:2GG279541U471931P",
            {"amount": [1099, "USD"], "fee": [33, "USD"]},
        ),
        (
            "PAYMENT.CAPTURE.REFUNDED",
            {"custom": "ORDER-1001"},
            "sale:2GG279541U471931P",
            {"amount": [1099, "USD"], "refunded_total": [1099, "USD"], "returned_fee": [0, "USD"]},
        ),
        (
            "PAYMENT.REFUND.PENDING",
            {},
            "sale:2GG279541U471931P",
            {"amount": [1099, "USD"], "refunded_total": [1099, "USD"], "returned_fee": [0, "USD"]},
        ),
        ("CATALOG.PRODUCT.CREATED", {}, None, {}),
    ],
)
def test_orders_and_captures_identify_the_customer(
    shared: Path, kind: str, person: dict[str, str], key: str | None, money: dict[str, Any]
) -> None:
    found = parse_sample(shared, kind)
    assert found.person == person
    assert found.key_id == (key or f"event:{found.id}")
    assert {name: value for name, value in found.facts.items() if name in MONEY} == money


def test_dispute_names_its_sale(shared: Path) -> None:
    found = parse_sample(shared, "CUSTOMER.DISPUTE.CREATED")
    assert found.facts["sale"] == "45V487086B989905H"
    assert found.facts["amount"] == [1156, "USD"]
    assert found.key_id == "sale:45V487086B989905H", "the sale's key encrypts it, so the customer's erasure covers it"


def test_unhandled_samples_are_stored_with_their_customer(shared: Path, pipeline: PipelineUnderTest) -> None:
    bodies = {path.stem: path.read_bytes() for path in sorted((shared / "events").glob("*.json"))}
    pipeline.store(*[delivery(body) for body in bodies.values()])
    rows = {row.type: row for row in pipeline.rows(Event)}
    order = rows["CHECKOUT.ORDER.APPROVED"]
    assert order.customer_id == order.facts["custom_ref"]
    assert order.facts["payer_ref"].startswith("p")
    assert rows["PAYMENT.CAPTURE.COMPLETED"].customer_id == order.customer_id
    assert rows["BILLING.SUBSCRIPTION.ACTIVATED"].customer_id is None, "the subscription identifies the customer"
    assert "ORDER-1001" not in str([row.facts for row in rows.values()])


def test_outermost_id_is_used() -> None:
    resource = {"a": [{"custom": "inner", "payer_id": "PAYER1"}], "custom_id": "outer"}
    assert find_references(resource) == ({}, {"payer": "PAYER1", "custom": "outer"})


def test_nested_subscription_id_determines_the_key(sqlite_pipeline: PipelineUnderTest) -> None:
    resource = {"items": [{"billing_agreement_id": "I-BW452GLLEP1G"}], "custom_id": "ours-17"}
    sqlite_pipeline.store(delivery(happened("WH-1", resource=resource)))
    row = sqlite_pipeline.event("WH-1")
    assert (row.key_id, row.customer_id) == ("I-BW452GLLEP1G", None)


@pytest.mark.parametrize("id", ["B-5YM51074LT", "I-", "I-ada@example.com", 17, None, ["I-BW452GLLEP1G"]])
def test_invalid_subscription_id_is_ignored(id: Any) -> None:
    assert find_references({"subscription_id": id}) == ({}, {})


@pytest.mark.parametrize("card", ["4111 1111 1111 1111", "DE89 3704 0044 0532 0130 00"])
def test_card_number_is_not_stored_as_custom_id(card: str) -> None:
    found = parse_webhook(orjson.dumps(happened("WH-1", resource={"custom_id": card})))
    assert found.person == {}


@given(resource=st.dictionaries(st.text(max_size=9), JSON))
def test_arbitrary_json_never_raises(resource: dict[str, Any]) -> None:
    facts, person = find_references(resource)
    assert facts.keys() <= {"subscription", "sale"}
    assert person.keys() <= {"payer", "custom"}
    assert all(value and not re.search(r"[\x00-\x1f\x7f-\x9f]", value) for value in person.values())
