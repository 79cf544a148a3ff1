"""A body is taken apart at the door: facts, what it tells of a person, the rest; and nothing sent ever raises."""

import copy
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.clock import MovableClock
from pipeline.inbox.parsing import MAX_DEPTH, UNREADABLE, ParsedEvent, event_from_lookup, parse_webhook
from tests.support.event_feeder import LONG_AGO
from tests.support.example_people import ALICE
from tests.support.sample_events import kinds, renamed, sample

ACTIVATED, COMPLETED = "BILLING.SUBSCRIPTION.ACTIVATED", "PAYMENT.SALE.COMPLETED"


def taken_apart(event: dict[str, Any]) -> ParsedEvent:
    return parse_webhook(orjson.dumps(event))


# -- the three parts


def test_facts_are_clear_and_the_person_stands_apart() -> None:
    found = taken_apart(sample(ACTIVATED))
    assert found.id == sample(ACTIVATED)["id"]
    assert found.facts["subscription"] == ALICE.subscription
    assert found.person == {
        "custom": ALICE.custom_id, "payer": ALICE.payer_id,
        "given_name": "Alice", "surname": "Andersson", "email": "alice@example.com",
    }  # fmt: skip


@pytest.mark.parametrize("kind", kinds())
def test_no_fact_tells_of_a_person(kind: str) -> None:
    facts = orjson.dumps(taken_apart(sample(kind)).facts).decode()
    for private in ("@", "Alice", "Andersson", "Brontë", "Čapek", "customer-00", "4KALC7NQ2WX8T", "Storgatan"):
        assert private not in facts


def test_the_rest_is_the_whole_body() -> None:
    event = sample(ACTIVATED)
    assert orjson.loads(taken_apart(event).redacted_body) == event


@pytest.mark.parametrize(("kind", "label"), [
    (ACTIVATED, ALICE.subscription), (COMPLETED, ALICE.subscription), ("PAYMENT.SALE.REFUNDED", "3AL51924877811803"),
    ("PAYMENT.SALE.REVERSED", "WH-3BB73166LH251908N-9UW40827JA336591T"),
    ("READ.PLAN", sample("READ.PLAN")["id"]),
])  # fmt: skip
def test_the_label_is_the_subscription_else_the_sale_else_the_event(kind: str, label: str) -> None:
    assert taken_apart(sample(kind)).label == label


def test_a_type_we_do_not_know_tells_whose_it_is_and_is_whole() -> None:
    event = {**sample(ACTIVATED), "event_type": "CUSTOMER.DISPUTE.CREATED"}
    found = taken_apart(event)
    assert (found.facts, found.problem) == ({}, None)
    assert found.person == {"payer": ALICE.payer_id, "custom": ALICE.custom_id}
    assert orjson.loads(found.redacted_body) == event


# -- the same event or another one


def test_how_it_is_written_and_fetched_is_no_part_of_what_it_says() -> None:
    event = sample(COMPLETED)
    fetched = {
        **dict(reversed(event.items())), "status": "SUCCESS", "transmissions": [{"webhook_url": "https://example.com"}],
        "links": [], "resource": {**event["resource"], "links": []},
    }  # fmt: skip
    fetched.pop("event_version")
    first, second = taken_apart(event), parse_webhook(orjson.dumps(fetched, option=orjson.OPT_INDENT_2))
    assert first.body_sha256 != second.body_sha256
    assert first.content_sha256 == second.content_sha256


def test_another_amount_is_another_content() -> None:
    event = sample(COMPLETED)
    other = sample(COMPLETED, {"amount.total": "29.01"}) | {"id": event["id"]}
    assert taken_apart(event).content_sha256 != taken_apart(other).content_sha256


def test_an_answer_read_twice_is_one_event_and_one_that_changed_is_another(clock: MovableClock) -> None:
    document = sample("READ.SUBSCRIPTION")["resource"]
    first = parse_webhook(event_from_lookup("subscription", document, clock.now()))
    assert first.type == "READ.SUBSCRIPTION"
    assert first.id == parse_webhook(event_from_lookup("subscription", document | {"links": []}, LONG_AGO)).id
    changed = {**document, "billing_info": {**document["billing_info"], "next_billing_time": "2027-03-20T10:00:00Z"}}
    assert first.id != parse_webhook(event_from_lookup("subscription", changed, clock.now())).id


# -- what cannot be read


@pytest.mark.parametrize(("body", "problem"), [
    (b"", "the body is not JSON"),
    (b"{", "the body is not JSON"),
    (b'{"id": NaN}', "the body is not JSON"),
    (b'{"id": "\\ud800"}', "the body is not JSON"),
    (b"[]", "the body is JSON, but no object"),
    (b"null", "the body is JSON, but no object"),
    (b"{}", "the body has no id"),
    (b'{"id": "", "event_type": "X"}', "the body has no id"),
    (b'{"id": 7, "event_type": "X"}', "the body has no id"),
    (b'{"id": "a\\u0000b", "event_type": "X"}', "the body has no id"),
    (b'{"id": "WH-1"}', "the body has no event_type"),
    (b'{"id": "WH-1", "event_type": "X", "a": ' + b"[" * 70 + b"]" * 70 + b"}", f"nested deeper than {MAX_DEPTH}"),
])  # fmt: skip
def test_what_is_no_event_is_kept_and_says_why(body: bytes, problem: str) -> None:
    found = parse_webhook(body)
    assert found.type == UNREADABLE
    assert problem in str(found.problem)
    assert found.id.startswith(UNREADABLE)
    assert found.redacted_body == body.decode("utf-8", "replace").encode()


def test_many_brackets_in_a_text_are_not_nesting() -> None:
    event = sample(ACTIVATED, {"status_change_note": "[{" * 200})
    assert taken_apart(event).problem is None


def test_what_is_missing_or_of_another_kind_is_left_out_and_named() -> None:
    event = sample(COMPLETED, {"amount": "29.00", "create_time": "yesterday", "id": "a b", "custom": ["x"]})
    found = taken_apart(event)
    assert found.facts["unread"] == ["create_time", "id", "amount"]
    assert not found.facts.keys() & {"sale", "amount"}
    assert found.person == {}


def test_extra_keys_change_nothing() -> None:
    extra = {"new_field": {"deep": [1, 2]}, "billing_info.brand_new": True, "subscriber.phone": {"phone_number": "1"}}
    assert taken_apart(sample(ACTIVATED, extra)).facts == taken_apart(sample(ACTIVATED)).facts


# -- never raises

# What may stand in any place instead of what belongs there: every type, and what is no time, amount, count or id.
JUNK: list[Any] = [
    None, True, 0, -(2**63), 2**64 - 1, 0.5, "", "\x00", "x" * 300, "9999-12-31T23:59:59-12:00", "REGULAR", "I-" + "9" * 60,
    [], {}, ["REGULAR"], [[]], [None], [{}], {"": {}}, {"value": [], "total": {}, "currency": 1},
]  # fmt: skip


@given(st.binary(max_size=400))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_no_bytes_ever_raise(body: bytes) -> None:
    assert parse_webhook(body).body_sha256


@pytest.mark.parametrize("kind", kinds())
def test_no_shape_ever_raises_whatever_stands_in_any_place(kind: str) -> None:
    event = copy.deepcopy(sample(kind))
    for holder, key in places(event):
        kept = holder[key]
        for junk in JUNK:
            holder[key] = junk
            found = taken_apart(event)
            assert orjson.loads(orjson.dumps(found.facts)) == found.facts
            assert all(found.person.values())
        holder[key] = kept


def places(value: Any) -> Any:
    """Every place in a document: what holds it, and under which key."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in list(items):
        yield value, key
        yield from places(item)


def test_what_paypal_sent_never_raises_and_is_never_lost(shared: Path) -> None:
    paths = sorted([*shared.glob("events/*.json"), *shared.glob("legacy-v1/*.json")])
    assert len(paths) > 50
    for path in paths:
        event = orjson.loads(path.read_bytes())
        found = parse_webhook(path.read_bytes())
        assert (found.id, found.type, found.problem) == (event["id"], event["event_type"], None), path.name
        assert "unread" not in found.facts, path.name


def test_a_renamed_event_is_another_one() -> None:
    assert taken_apart(renamed(sample(ACTIVATED))).id != taken_apart(sample(ACTIVATED)).id
