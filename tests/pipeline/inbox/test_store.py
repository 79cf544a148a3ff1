"""Stored once however often and at once it comes; what conflicts, what cannot be read, and whom it is about."""

import hashlib
import itertools
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import orjson
import pytest
from sqlalchemy import event as listening
from sqlalchemy import text

from pipeline.crypto.keyring import Keyring
from pipeline.db.engine import Database
from pipeline.db.models import EncryptionKey, Event, Redelivery
from pipeline.inbox import store as inbox
from pipeline.inbox.store import PUBLISH_GRACE, NewEvent
from tests.support.pipeline_under_test import River, delivery, happened, outcomes
from tests.support.subprocesses import until

ONE = happened("WH-1")
OTHER = happened("WH-1", resource={"id": "another"})

# Stored once


def test_an_event_is_stored_and_to_be_published(river: River) -> None:
    [stored] = river.store(delivery(ONE, "T-1"))
    assert (stored.outcome, stored.event_id, stored.publish) == ("stored", "WH-1", True)
    row = river.event("WH-1")
    assert (row.type, row.source, row.state, row.reason) == ("TEST.HAPPENED", "webhook", "received", None)
    assert row.received_at == river.now
    assert row.due_at == river.now + PUBLISH_GRACE
    assert row.occurred_at == river.now - timedelta(seconds=30)
    assert row.transmission_id == "T-1"
    assert row.signature_verdict == "signed for webhook TEST"
    assert row.body_sha256 == hashlib.sha256(orjson.dumps(ONE)).hexdigest()


@pytest.mark.parametrize("source", ["import", "read"])
def test_what_no_one_publishes_is_due_at_once(brook: River, source: str) -> None:
    brook.store(delivery(ONE, source=source))  # type: ignore[arg-type]
    with brook.database.transaction() as session:
        assert inbox.lease_due(session, brook.now, 100) == ["WH-1"]


def test_the_whole_body_is_kept_sealed(river: River) -> None:
    river.store(delivery(happened("WH-1", resource={"note": "for Ada"})))
    row = river.event("WH-1")
    assert row.body is not None
    assert b"Ada" not in row.body
    with river.database.transaction() as session:
        opened = river.keyring(session).system_key(row.key_id).decrypt("event.body", row.body)
    assert orjson.loads(opened)["resource"] == {"note": "for Ada"}


@pytest.mark.parametrize("together", [True, False], ids=["in one group", "one after the other"])
def test_the_same_bytes_are_a_duplicate(river: River, together: bool) -> None:
    told = [delivery(ONE, f"T-{number}") for number in range(3)]
    found = outcomes(river, *told) if together else [outcomes(river, each)[0] for each in told]
    assert found == ["stored", "duplicate", "duplicate"]
    assert river.count(Event) == 1
    assert [row.transmission_id for row in river.rows(Redelivery)] == ["T-1", "T-2"]


def test_the_same_transmission_again_is_a_duplicate(river: River) -> None:
    assert outcomes(river, delivery(ONE, "T-1"), delivery(ONE, "T-1")) == ["stored", "duplicate"]
    assert outcomes(river, delivery(ONE, "T-1")) == ["duplicate"]
    assert river.count(Redelivery) == 0


@pytest.mark.parametrize("together", [True, False], ids=["in one group", "one after the other"])
def test_the_same_event_written_otherwise_is_a_duplicate(river: River, together: bool) -> None:
    """PayPal's API shows an event with keys in another order, with `status`, `transmissions` and other links."""
    webhook = {
        **happened("WH-1", resource={"id": "I-1", "b": [1, 2], "links": [{"href": "x"}]}),
        "event_version": "1.0",
    }
    api = {
        "transmissions": [{"transmission_id": "T-1", "status": "SUCCESS"}],
        "status": "SUCCESS",
        "links": [{"rel": "self"}],
        "resource": {"b": [1, 2], "id": "I-1", "links": []},
        **{name: webhook[name] for name in ("create_time", "event_type", "id")},
    }
    told = [delivery(webhook, "T-1"), delivery(orjson.dumps(api, option=orjson.OPT_INDENT_2), source="import")]
    found = outcomes(river, *told) if together else [outcomes(river, each)[0] for each in told]
    assert found == ["stored", "duplicate"]
    assert river.count(Event) == 1


def test_a_duplicate_changes_nothing(river: River) -> None:
    river.store(delivery(ONE, "T-1"))
    with river.database.transaction() as session:
        inbox.mark_events(session, ["WH-1"], "handled", river.now)
    before = vars(river.event("WH-1"))
    river.clock.advance(timedelta(days=3))
    [stored] = river.store(delivery(ONE, "T-2"))
    assert not stored.publish
    after = vars(river.event("WH-1"))
    assert {name: after[name] for name in after if name != "_sa_instance_state"} == {
        name: before[name] for name in before if name != "_sa_instance_state"
    }


def test_imports_of_one_event_are_duplicates_of_each_other_and_of_nothing_else(river: River) -> None:
    """They have no transmission id, which must not make them all alike."""
    one, two = delivery(ONE, source="import"), delivery(happened("WH-2"), source="import")
    assert outcomes(river, one, two) == ["stored", "stored"]
    assert outcomes(river, one) == ["duplicate"]
    assert outcomes(river, delivery(OTHER, source="import"), two) == ["stored", "duplicate"]


def test_a_duplicate_without_a_transmission_does_not_load_all_the_others(brook: River) -> None:
    brook.store(*[delivery(happened(f"WH-{number}"), source="import") for number in range(300)])
    statements: list[str] = []
    listening.listen(brook.database.engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    assert outcomes(brook, delivery(happened("WH-1"), source="import")) == ["duplicate"]
    assert [each for each in statements if "IS NULL" in each] == []


@pytest.mark.parametrize("kind", ["threads", "databases"])
def test_the_same_events_at_once_are_stored_once(river: River, kind: str) -> None:
    """As when two web processes get the same events, each in its own order."""
    about = {"resource": {"id": "I-ADA", "status": "ACTIVE"}}
    told = [
        delivery(happened(f"WH-{number:02}", "BILLING.SUBSCRIPTION.UPDATED", **about), f"T-{number}")
        for number in range(20)
    ]
    river.store(delivery(happened("WH-00", "BILLING.SUBSCRIPTION.UPDATED", **about), "T-0"))  # its key is there already
    databases = [river.database if kind == "threads" else Database(river.url) for _ in range(4)]
    met = threading.Barrier(4, timeout=30)

    def store(number: int) -> list[str]:
        order = told if number % 2 else told[::-1]
        met.wait()
        with databases[number].transaction() as session:
            done = inbox.store(session, Keyring(river.master, session, river.now), order, river.now)
        return [item.event_id for item in done if item.outcome == "stored"]

    with ThreadPoolExecutor(4) as pool:
        stored = list(pool.map(store, range(4)))
    assert sorted(itertools.chain(*stored)) == [f"WH-{number:02}" for number in range(1, 20)]
    assert river.count(Event) == 20
    for database in databases:
        database.close()


def test_two_groups_with_the_same_events_in_opposite_order_never_wait_for_each_other_in_a_circle(
    stream: River,
) -> None:
    """As two web processes may have them. Both are made to stop in the middle of their rows, and then let go on."""
    about = {"resource": {"id": "I-ADA", "status": "ACTIVE"}}
    told = [delivery(happened(name, "BILLING.SUBSCRIPTION.UPDATED", **about), f"T-{name}") for name in "AMZ"]
    stream.store(delivery(happened("FIRST", "BILLING.SUBSCRIPTION.UPDATED", **about)))  # their key is there already
    with ThreadPoolExecutor(2) as pool:
        with stream.database.transaction() as middle:
            inbox.store(middle, stream.keyring(middle), [told[1]], stream.now)
            storing = [pool.submit(stream.store, *told), pool.submit(stream.store, *told[::-1])]
            until(lambda: waiting(stream) == 2, 20, "both wait")
            middle.rollback()
        outcomes = [[item.outcome for item in each.result()] for each in storing]
    assert sorted(outcomes) == [["duplicate"] * 3, ["stored"] * 3]


def waiting(river: River) -> int:
    with river.database.reading() as session:
        return int(session.execute(text("SELECT count(*) FROM pg_locks WHERE NOT granted")).scalar_one())


def test_an_order_of_keys_that_two_groups_make_at_once_does_not_make_them_wait_for_each_other(stream: River) -> None:
    """Keys are made for labels in their order, whatever the order of the events."""
    for turn in range(10):
        told = [delivery(happened(f"WH-{turn}-{number}"), f"T-{turn}-{number}") for number in range(30)]
        met = threading.Barrier(2, timeout=30)

        def store(order: Sequence[NewEvent], met: threading.Barrier = met) -> None:
            met.wait()
            stream.store(*order)

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(store, (told, told[::-1])))
    assert stream.count(Event) == 300


# Conflicts


@pytest.mark.parametrize("together", [True, False], ids=["in one group", "one after the other"])
def test_another_body_under_a_known_id_is_parked_beside_the_first(river: River, together: bool) -> None:
    told = [delivery(ONE, "T-1"), delivery(OTHER, "T-2")]
    stored = river.store(*told) if together else [*river.store(told[0]), *river.store(told[1])]
    assert [item.outcome for item in stored] == ["stored", "stored"]
    assert [item.publish for item in stored] == [True, False]
    first, second = river.rows(Event)
    assert (first.id, first.state) == ("WH-1", "received")
    assert second.id == stored[1].event_id
    assert second.id.startswith("WH-1~")
    assert (second.state, second.reason) == ("parked", "conflict: another body under the known id WH-1")
    assert second.due_at is None
    assert second.done_at == river.now
    assert second.body is not None


def test_a_conflict_is_kept_once_and_a_third_body_too(river: River) -> None:
    third = happened("WH-1", resource={"id": "third"})
    river.store(delivery(ONE, "T-1"), delivery(OTHER, "T-2"))
    assert outcomes(river, delivery(OTHER, "T-3"), delivery(third, "T-4")) == ["duplicate", "stored"]
    assert len(river.states()) == 3


def test_a_conflict_is_not_handled_and_a_person_cannot_make_it_be(river: River) -> None:
    """There is no telling which of the two is true."""
    river.store(delivery(ONE, "T-1"), delivery(OTHER, "T-2"))
    conflict = river.rows(Event)[1].id
    with river.database.transaction() as session:
        assert inbox.retry(session, [conflict], river.now) == []
        assert [row.id for row in inbox.lock_received(session, [conflict, "WH-1"])] == ["WH-1"]


# What cannot be read


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "not JSON"),
        (b"hello", "not JSON"),
        (b'{"id":"WH-1","event_type":NaN}', "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b'"\xed\xa0\x80"', "not JSON"),
        (b"[" * 5000 + b"]" * 5000, "not JSON"),
        (b'{"a":' * 100 + b"1" + b"}" * 100, "nested deeper"),
        (b"[1]", "no object"),
        (b"null", "no object"),
        (b'{"event_type":"X"}', "no id"),
        (b'{"id":"WH-1"}', "no event_type"),
        (b'{"id":"WH\\u0000-1","event_type":"X"}', "no id"),
        (b'{"id":7,"event_type":"X"}', "no id"),
    ],
)
def test_an_unreadable_body_is_stored_parked_and_visible(river: River, body: bytes, why: str) -> None:
    [stored] = river.store(delivery(body, "T-1"))
    assert (stored.outcome, stored.publish) == ("stored", False)
    [row] = river.rows(Event)
    assert row.state == "parked"
    assert row.reason
    assert why in row.reason
    assert row.body is not None
    assert outcomes(river, delivery(body, "T-2")) == ["duplicate"]
    with river.database.transaction() as session:
        assert inbox.retry(session, [row.id], river.now) == []


@pytest.mark.parametrize(
    "resource",
    [
        {"id": "I-\u0000", "note": "\u0000", "subscriber": {"email_address": "\u0000@example.com"}},
        {"id": "I-1", "plan": {"name": "a\u0000b", "billing_cycles": "none"}, "status": "\u0000"},
        {"id": 10**30, "amount": {"total": "1e999", "currency": "USD"}},
        {"id": "x" * 5000, "plan_id": "P" * 5000, "custom_id": "\ud7ff" * 9, "state": "y" * 500},
        {"id": {"$oid": 1}, "amount": [], "links": {"a": {"b": None}}, "billing_info": "gone"},
    ],
)
@pytest.mark.parametrize("kind", ["BILLING.SUBSCRIPTION.ACTIVATED", "PAYMENT.SALE.COMPLETED", "PAYMENT.SALE.REFUNDED"])
def test_a_strange_resource_is_stored_all_the_same(river: River, kind: str, resource: dict[str, object]) -> None:
    body = orjson.dumps({**happened("WH-1", kind=kind), "resource": {}})
    text = body.replace(b'"resource":{}', b'"resource":' + _json(resource))
    assert outcomes(river, delivery(text, "T-1"), delivery(happened("WH-2"), "T-2")) == ["stored", "stored"]


def test_the_longest_id_and_type_fit(river: River) -> None:
    long = happened("W" * 200, kind="T" * 200)
    [stored] = river.store(delivery(long, "T" * 50))
    assert stored.outcome == "stored"
    river.store(delivery({**long, "resource": {"a": 1}}, "U" * 50))
    assert river.count(Event) == 2


# Who it is about


def test_whom_it_names_is_kept_as_a_keyed_hash_only(river: River) -> None:
    resource = {"id": "I-ADA", "status": "ACTIVE", "custom_id": "ada@example.com", "subscriber": {"payer_id": "PAYER7"}}
    for number in (1, 2):
        event = happened(f"WH-{number}", kind="BILLING.SUBSCRIPTION.ACTIVATED", resource=resource)
        river.store(delivery(event, f"T-{number}"))
    one, two = (row.facts for row in river.rows(Event))
    assert one["custom_ref"] == two["custom_ref"]
    assert one["payer_ref"] == two["payer_ref"] != one["custom_ref"]
    assert "ada@" not in str(one)
    assert "PAYER7" not in str(one)
    labels = {row.key_id for row in river.rows(EncryptionKey)}
    assert labels == {"smt:index", "I-ADA"}


def _json(value: object) -> bytes:
    """orjson writes no integers beyond 64 bits."""
    import json

    return json.dumps(value).encode()
