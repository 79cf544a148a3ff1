"""A body we have no reader for still says whose it is: PayPal's own samples, and shapes that are none."""

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
from tests.support.pipeline_under_test import River, delivery, happened

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(
        st.sampled_from(["payer_id", "custom_id", "custom", "subscription_id", "seller_transaction_id", "other"]), inside
    ),
    max_leaves=30,
)  # fmt: skip


def of_paypal(shared: Path, kind: str) -> ParsedEvent:
    return parse_webhook((shared / "events" / f"{kind}.json").read_bytes())


@pytest.mark.parametrize(
    ("kind", "person"),
    [
        ("CHECKOUT.ORDER.APPROVED", {"payer": "QYR5Z8XDVJNXQ", "custom": "ORDER-1001"}),
        ("CHECKOUT.ORDER.COMPLETED", {"payer": "QYR5Z8XDVJNXQ", "custom": "ORDER-1001"}),
        ("CHECKOUT.PAYMENT-APPROVAL.REVERSED", {"custom": "MERCHANT_CUSTOM_ID"}),
        ("PAYMENT.CAPTURE.COMPLETED", {"custom": "ORDER-1001"}),
        ("PAYMENT.CAPTURE.REFUNDED", {"custom": "ORDER-1001"}),
        ("PAYMENT.REFUND.PENDING", {}),
        ("CATALOG.PRODUCT.CREATED", {}),
    ],
)
def test_whose_an_order_or_a_capture_is_stands_in_paypals_samples(
    shared: Path, kind: str, person: dict[str, str]
) -> None:
    found = of_paypal(shared, kind)
    assert (found.person, found.facts) == (person, {})
    assert found.key_id == found.id


def test_a_dispute_is_about_a_sale(shared: Path) -> None:
    found = of_paypal(shared, "CUSTOMER.DISPUTE.CREATED")
    assert found.facts == {"sale": "45V487086B989905H"}
    assert found.key_id == "45V487086B989905H", "so it is sealed with what its subscriber's erasure destroys"


def test_every_sample_of_paypals_that_we_do_not_handle_is_kept_with_who_it_names(shared: Path, river: River) -> None:
    bodies = {path.stem: path.read_bytes() for path in sorted((shared / "events").glob("*.json"))}
    river.store(*[delivery(body) for body in bodies.values()])
    rows = {row.type: row for row in river.rows(Event)}
    order = rows["CHECKOUT.ORDER.APPROVED"]
    assert order.customer_id == order.facts["custom_ref"]
    assert order.facts["payer_ref"].startswith("p")
    assert rows["PAYMENT.CAPTURE.COMPLETED"].customer_id == order.customer_id
    assert rows["BILLING.SUBSCRIPTION.ACTIVATED"].customer_id is None, "its subscription says whose it is"
    assert "ORDER-1001" not in str([row.facts for row in rows.values()])


def test_the_outermost_of_each_counts() -> None:
    resource = {"a": [{"custom": "inner", "payer_id": "PAYER1"}], "custom_id": "outer"}
    assert find_references(resource) == ({}, {"payer": "PAYER1", "custom": "outer"})


def test_a_subscription_named_anywhere_owns_the_event(brook: River) -> None:
    resource = {"items": [{"billing_agreement_id": "I-BW452GLLEP1G"}], "custom_id": "ours-17"}
    brook.store(delivery(happened("WH-1", resource=resource)))
    row = brook.event("WH-1")
    assert (row.key_id, row.customer_id) == ("I-BW452GLLEP1G", None)


@pytest.mark.parametrize("id", ["B-5YM51074LT", "I-", "I-ada@example.com", 17, None, ["I-BW452GLLEP1G"]])
def test_what_is_no_subscriptions_id_is_not_taken_for_one(id: Any) -> None:
    assert find_references({"subscription_id": id}) == ({}, {})


@pytest.mark.parametrize("card", ["4111 1111 1111 1111", "DE89 3704 0044 0532 0130 00"])
def test_a_card_number_is_nobodys_name(card: str) -> None:
    found = parse_webhook(orjson.dumps(happened("WH-1", resource={"custom_id": card})))
    assert found.person == {}


@given(resource=st.dictionaries(st.text(max_size=9), JSON))
def test_nothing_that_is_sent_ever_raises(resource: dict[str, Any]) -> None:
    facts, person = find_references(resource)
    assert facts.keys() <= {"subscription", "sale"}
    assert person.keys() <= {"payer", "custom"}
    assert all(value and not re.search(r"[\x00-\x1f\x7f-\x9f]", value) for value in person.values())
