"""A body is parsed into facts, personal data and the redacted body, and no body raises an exception."""

import copy
from datetime import timedelta
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


def parse(event: dict[str, Any]) -> ParsedEvent:
    return parse_webhook(orjson.dumps(event))


# -- facts, personal data, redacted body


def test_facts_and_personal_data_are_separate() -> None:
    found = parse(sample(ACTIVATED))
    assert found.id == sample(ACTIVATED)["id"]
    assert found.facts["subscription"] == ALICE.subscription
    assert found.person == {
        "custom": ALICE.custom_id, "payer": ALICE.payer_id,
        "given_name": "Alice", "surname": "Andersson", "email": "alice@example.com",
    }  # fmt: skip


@pytest.mark.parametrize("kind", kinds())
def test_facts_contain_no_personal_data(kind: str) -> None:
    facts = orjson.dumps(parse(sample(kind)).facts).decode()
    for private in ("@", "Alice", "Andersson", "Brontë", "Čapek", "customer-00", "4KALC7NQ2WX8T", "Storgatan"):
        assert private not in facts


def test_redacted_body_is_the_whole_body() -> None:
    event = sample(ACTIVATED)
    assert orjson.loads(parse(event).redacted_body) == event


@pytest.mark.parametrize(("kind", "key_id"), [
    (ACTIVATED, ALICE.subscription), (COMPLETED, ALICE.subscription), ("PAYMENT.SALE.REFUNDED", "sale:3AL51924877811803"),
    ("PAYMENT.SALE.REVERSED", "event:WH-3BB73166LH251908N-9UW40827JA336591T"),
    ("READ.PLAN", f"event:{sample('READ.PLAN')['id']}"),
])  # fmt: skip
def test_key_id_is_subscription_or_sale_or_event(kind: str, key_id: str) -> None:
    assert parse(sample(kind)).key_id == key_id


def test_unknown_type_is_stored_whole_with_its_customer() -> None:
    event = {**sample(ACTIVATED), "event_type": "RISK.DISPUTE.CREATED"}
    found = parse(event)
    assert (found.facts, found.problem) == ({}, None)
    assert found.person == {"payer": ALICE.payer_id, "custom": ALICE.custom_id}
    assert orjson.loads(found.redacted_body) == event


# -- content hash


def test_format_and_delivery_fields_do_not_change_the_content_hash() -> None:
    event = sample(COMPLETED)
    fetched = {
        **dict(reversed(event.items())), "status": "SUCCESS", "transmissions": [{"webhook_url": "https://example.com"}],
        "links": [], "resource": {**event["resource"], "links": []},
    }  # fmt: skip
    fetched.pop("event_version")
    first, second = parse(event), parse_webhook(orjson.dumps(fetched, option=orjson.OPT_INDENT_2))
    assert first.body_sha256 != second.body_sha256
    assert first.content_sha256 == second.content_sha256


def test_other_amount_changes_the_content_hash() -> None:
    event = sample(COMPLETED)
    other = sample(COMPLETED, {"amount.total": "29.01"}) | {"id": event["id"]}
    assert parse(event).content_sha256 != parse(other).content_sha256


def test_same_answer_is_one_event_and_changed_answer_another(clock: MovableClock) -> None:
    document = sample("READ.SALE")["resource"]
    first = parse_webhook(event_from_lookup("sale", document, clock.now()))
    assert first.type == "READ.SALE"
    assert first.id == parse_webhook(event_from_lookup("sale", document | {"links": []}, LONG_AGO)).id
    changed = {**document, "state": "pending"}
    assert first.id != parse_webhook(event_from_lookup("sale", changed, clock.now())).id


def test_same_answer_about_a_subscription_at_another_time_is_another_event(clock: MovableClock) -> None:
    """PayPal changes no update time at a renewal or a failed charge, so the same answer later says something new."""
    document = sample("READ.SUBSCRIPTION")["resource"]
    first, again, later = (
        parse_webhook(event_from_lookup("subscription", document, at)).id
        for at in (clock.now(), clock.now(), clock.now() + timedelta(seconds=1))
    )
    assert first == again != later


# -- unreadable bodies and fields


@pytest.mark.parametrize(("body", "problem"), [
    (b"", "the body is not JSON"),
    (b"{", "the body is not JSON"),
    (b'{"id": NaN}', "the body is not JSON"),
    (b'{"id": "\\ud800"}', "the body is not JSON"),
    (b"[]", "the body is JSON, but not an object"),
    (b"null", "the body is JSON, but not an object"),
    (b"{}", "the body has no id"),
    (b'{"id": "", "event_type": "X"}', "the body has no id"),
    (b'{"id": 7, "event_type": "X"}', "the body has no id"),
    (b'{"id": "a\\u0000b", "event_type": "X"}', "the body has no id"),
    (b'{"id": "WH-1"}', "the body has no event_type"),
    (b'{"id": "WH-1", "event_type": "X", "a": ' + b"[" * 70 + b"]" * 70 + b"}", f"nested deeper than {MAX_DEPTH}"),
])  # fmt: skip
def test_unreadable_body_is_kept_with_its_problem(body: bytes, problem: str) -> None:
    found = parse_webhook(body)
    assert found.type == UNREADABLE
    assert problem in str(found.problem)
    assert found.id.startswith(UNREADABLE)
    assert found.redacted_body == body.decode("utf-8", "replace").encode()


def test_brackets_in_a_text_are_not_nesting() -> None:
    event = sample(ACTIVATED, {"status_change_note": "[{" * 200})
    assert parse(event).problem is None


def test_unreadable_fields_are_omitted_and_listed() -> None:
    event = sample(COMPLETED, {"amount": "29.00", "create_time": "yesterday", "id": "a b", "custom": ["x"]})
    found = parse(event)
    assert found.facts["unread"] == ["create_time", "id", "amount"]
    assert not found.facts.keys() & {"sale", "amount"}
    assert found.person == {}


def test_unknown_fields_change_nothing() -> None:
    extra = {"new_field": {"deep": [1, 2]}, "billing_info.brand_new": True, "subscriber.phone": {"phone_number": "1"}}
    assert parse(sample(ACTIVATED, extra)).facts == parse(sample(ACTIVATED)).facts


# -- no exception

# Unexpected values for any field: every JSON type, and texts that are no time, amount, count or id.
UNEXPECTED_VALUES: list[Any] = [
    None, True, 0, -(2**63), 2**64 - 1, 0.5, "", "\x00", "x" * 300, "9999-12-31T23:59:59-12:00", "REGULAR", "I-" + "9" * 60,
    [], {}, ["REGULAR"], [[]], [None], [{}], {"": {}}, {"value": [], "total": {}, "currency": 1},
]  # fmt: skip


@given(st.binary(max_size=400))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_any_bytes_are_parsed(body: bytes) -> None:
    assert parse_webhook(body).body_sha256


@pytest.mark.parametrize("kind", kinds())
def test_unexpected_values_are_parsed(kind: str) -> None:
    event = copy.deepcopy(sample(kind))
    for holder, key in all_items(event):
        original = holder[key]
        for unexpected in UNEXPECTED_VALUES:
            holder[key] = unexpected
            found = parse(event)
            assert orjson.loads(orjson.dumps(found.facts)) == found.facts
            assert all(found.person.values())
        holder[key] = original


def all_items(value: Any) -> Any:
    """Yield each container in a document with each of its keys."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in list(items):
        yield value, key
        yield from all_items(item)


def test_real_events_are_parsed_completely(shared: Path) -> None:
    paths = sorted([*shared.glob("events/*.json"), *shared.glob("legacy-v1/*.json")])
    assert len(paths) > 50
    for path in paths:
        event = orjson.loads(path.read_bytes())
        found = parse_webhook(path.read_bytes())
        assert (found.id, found.type, found.problem) == (event["id"], event["event_type"], None), path.name
        assert "unread" not in found.facts, path.name


def test_event_with_another_id_is_another_event() -> None:
    assert parse(renamed(sample(ACTIVATED))).id != parse(sample(ACTIVATED)).id
