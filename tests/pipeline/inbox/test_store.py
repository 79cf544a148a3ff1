"""The inbox stores each event once, parks conflicts and unreadable bodies, and hashes customer references."""

import hashlib
import itertools
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import orjson
import pytest
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy import text

from pipeline.crypto.keyring import Keyring
from pipeline.db.engine import Database
from pipeline.db.models import EncryptionKey, Event, Redelivery
from pipeline.inbox import store as inbox
from pipeline.inbox.store import PUBLISH_GRACE, NewEvent
from tests.support.pipeline_under_test import PipelineUnderTest, delivery, happened, outcomes
from tests.support.subprocesses import until

ONE = happened("WH-1")
OTHER = happened("WH-1", resource={"id": "another"})

# Stored once


def test_event_is_stored_and_to_be_published(pipeline: PipelineUnderTest) -> None:
    [stored] = pipeline.store(delivery(ONE, "T-1"))
    assert (stored.outcome, stored.event_id, stored.publish) == ("stored", "WH-1", True)
    row = pipeline.event("WH-1")
    assert (row.type, row.source, row.state, row.reason) == ("TEST.HAPPENED", "webhook", "received", None)
    assert row.received_at == pipeline.now
    assert row.due_at == pipeline.now + PUBLISH_GRACE
    assert row.occurred_at == pipeline.now - timedelta(seconds=30)
    assert row.transmission_id == "T-1"
    assert row.signature_verdict == "signed for webhook TEST"
    assert row.body_sha256 == hashlib.sha256(orjson.dumps(ONE)).hexdigest()


@pytest.mark.parametrize("source", ["import", "read"])
def test_event_that_is_not_published_is_due_at_once(sqlite_pipeline: PipelineUnderTest, source: str) -> None:
    sqlite_pipeline.store(delivery(ONE, source=source))  # type: ignore[arg-type]
    with sqlite_pipeline.database.transaction() as session:
        assert inbox.lease_due(session, sqlite_pipeline.now, 100) == ["WH-1"]


def test_whole_body_is_stored_encrypted(pipeline: PipelineUnderTest) -> None:
    pipeline.store(delivery(happened("WH-1", resource={"note": "for Ada"})))
    row = pipeline.event("WH-1")
    assert row.body is not None
    assert b"Ada" not in row.body
    with pipeline.database.transaction() as session:
        decrypted = pipeline.keyring(session).system_key(row.key_id).decrypt("event.body", row.body)
    assert orjson.loads(decrypted)["resource"] == {"note": "for Ada"}


@pytest.mark.parametrize("together", [True, False], ids=["in one group", "one after the other"])
def test_same_bytes_are_a_duplicate(pipeline: PipelineUnderTest, together: bool) -> None:
    deliveries = [delivery(ONE, f"T-{number}") for number in range(3)]
    found = outcomes(pipeline, *deliveries) if together else [outcomes(pipeline, each)[0] for each in deliveries]
    assert found == ["stored", "duplicate", "duplicate"]
    assert pipeline.count(Event) == 1
    assert [row.transmission_id for row in pipeline.rows(Redelivery)] == ["T-1", "T-2"]


def test_same_transmission_is_a_duplicate(pipeline: PipelineUnderTest) -> None:
    assert outcomes(pipeline, delivery(ONE, "T-1"), delivery(ONE, "T-1")) == ["stored", "duplicate"]
    assert outcomes(pipeline, delivery(ONE, "T-1")) == ["duplicate"]
    assert pipeline.count(Redelivery) == 0


@pytest.mark.parametrize("together", [True, False], ids=["in one group", "one after the other"])
def test_same_event_in_another_format_is_a_duplicate(pipeline: PipelineUnderTest, together: bool) -> None:
    """PayPal's API returns an event with keys in another order, and with `status`, `transmissions` and other links."""
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
    deliveries = [delivery(webhook, "T-1"), delivery(orjson.dumps(api, option=orjson.OPT_INDENT_2), source="import")]
    found = outcomes(pipeline, *deliveries) if together else [outcomes(pipeline, each)[0] for each in deliveries]
    assert found == ["stored", "duplicate"]
    assert pipeline.count(Event) == 1


def test_duplicate_changes_nothing(pipeline: PipelineUnderTest) -> None:
    pipeline.store(delivery(ONE, "T-1"))
    with pipeline.database.transaction() as session:
        inbox.mark_events(session, ["WH-1"], "handled", pipeline.now)
    before = vars(pipeline.event("WH-1"))
    pipeline.clock.advance(timedelta(days=3))
    [stored] = pipeline.store(delivery(ONE, "T-2"))
    assert not stored.publish
    after = vars(pipeline.event("WH-1"))
    assert {name: after[name] for name in after if name != "_sa_instance_state"} == {
        name: before[name] for name in before if name != "_sa_instance_state"
    }


def test_repeated_import_is_a_duplicate(pipeline: PipelineUnderTest) -> None:
    """Imports have no transmission id. That must not make different imports duplicates of each other."""
    one, two = delivery(ONE, source="import"), delivery(happened("WH-2"), source="import")
    assert outcomes(pipeline, one, two) == ["stored", "stored"]
    assert outcomes(pipeline, one) == ["duplicate"]
    assert outcomes(pipeline, delivery(OTHER, source="import"), two) == ["stored", "duplicate"]


def test_duplicate_import_does_not_load_other_imports(sqlite_pipeline: PipelineUnderTest) -> None:
    sqlite_pipeline.store(*[delivery(happened(f"WH-{number}"), source="import") for number in range(300)])
    statements: list[str] = []
    sqlalchemy_event.listen(
        sqlite_pipeline.database.engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2])
    )
    assert outcomes(sqlite_pipeline, delivery(happened("WH-1"), source="import")) == ["duplicate"]
    assert [each for each in statements if "IS NULL" in each] == []


@pytest.mark.parametrize("kind", ["threads", "databases"])
def test_concurrent_deliveries_are_stored_once(pipeline: PipelineUnderTest, kind: str) -> None:
    """Concurrent web processes receive the same events in different orders."""
    content = {"resource": {"id": "I-ADA", "status": "ACTIVE"}}
    deliveries = [
        delivery(happened(f"WH-{number:02}", "BILLING.SUBSCRIPTION.UPDATED", **content), f"T-{number}")
        for number in range(20)
    ]
    pipeline.store(
        delivery(happened("WH-00", "BILLING.SUBSCRIPTION.UPDATED", **content), "T-0")
    )  # its key exists already
    databases = [pipeline.database if kind == "threads" else Database(pipeline.url) for _ in range(4)]
    barrier = threading.Barrier(4, timeout=30)

    def store(number: int) -> list[str]:
        order = deliveries if number % 2 else deliveries[::-1]
        barrier.wait()
        with databases[number].transaction() as session:
            done = inbox.store(session, Keyring(pipeline.master, session, pipeline.now), order, pipeline.now)
        return [item.event_id for item in done if item.outcome == "stored"]

    with ThreadPoolExecutor(4) as pool:
        stored = list(pool.map(store, range(4)))
    assert sorted(itertools.chain(*stored)) == [f"WH-{number:02}" for number in range(1, 20)]
    assert pipeline.count(Event) == 20
    for database in databases:
        database.close()


def test_groups_in_opposite_order_do_not_deadlock(
    postgresql_pipeline: PipelineUnderTest,
) -> None:
    """Two web processes may do so. Both are blocked in the middle of their rows, and then continue."""
    content = {"resource": {"id": "I-ADA", "status": "ACTIVE"}}
    deliveries = [delivery(happened(name, "BILLING.SUBSCRIPTION.UPDATED", **content), f"T-{name}") for name in "AMZ"]
    postgresql_pipeline.store(
        delivery(happened("FIRST", "BILLING.SUBSCRIPTION.UPDATED", **content))
    )  # their key exists already
    with ThreadPoolExecutor(2) as pool:
        with postgresql_pipeline.database.transaction() as middle:
            inbox.store(middle, postgresql_pipeline.keyring(middle), [deliveries[1]], postgresql_pipeline.now)
            storing = [
                pool.submit(postgresql_pipeline.store, *deliveries),
                pool.submit(postgresql_pipeline.store, *deliveries[::-1]),
            ]
            until(lambda: waiting(postgresql_pipeline) == 2, 20, "both wait")
            middle.rollback()
        outcomes = [[item.outcome for item in each.result()] for each in storing]
    assert sorted(outcomes) == [["duplicate"] * 3, ["stored"] * 3]


def waiting(pipeline: PipelineUnderTest) -> int:
    with pipeline.database.reading() as session:
        return int(session.execute(text("SELECT count(*) FROM pg_locks WHERE NOT granted")).scalar_one())


def test_concurrent_key_creation_does_not_deadlock(postgresql_pipeline: PipelineUnderTest) -> None:
    """Keys are created in the order of their key ids, independent of the order of the events."""
    for turn in range(10):
        deliveries = [delivery(happened(f"WH-{turn}-{number}"), f"T-{turn}-{number}") for number in range(30)]
        barrier = threading.Barrier(2, timeout=30)

        def store(order: Sequence[NewEvent], barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            postgresql_pipeline.store(*order)

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(store, (deliveries, deliveries[::-1])))
    assert postgresql_pipeline.count(Event) == 300


# Conflicts


@pytest.mark.parametrize("together", [True, False], ids=["in one group", "one after the other"])
def test_different_body_under_a_known_id_is_parked(pipeline: PipelineUnderTest, together: bool) -> None:
    deliveries = [delivery(ONE, "T-1"), delivery(OTHER, "T-2")]
    stored = (
        pipeline.store(*deliveries) if together else [*pipeline.store(deliveries[0]), *pipeline.store(deliveries[1])]
    )
    assert [item.outcome for item in stored] == ["stored", "stored"]
    assert [item.publish for item in stored] == [True, False]
    first, second = pipeline.rows(Event)
    assert (first.id, first.state) == ("WH-1", "received")
    assert second.id == stored[1].event_id
    assert second.id.startswith("WH-1~")
    assert (second.state, second.reason) == ("parked", "conflict: a different body under the known id WH-1")
    assert second.due_at is None
    assert second.done_at == pipeline.now
    assert second.body is not None


def test_each_conflicting_body_is_stored_once(pipeline: PipelineUnderTest) -> None:
    third = happened("WH-1", resource={"id": "third"})
    pipeline.store(delivery(ONE, "T-1"), delivery(OTHER, "T-2"))
    assert outcomes(pipeline, delivery(OTHER, "T-3"), delivery(third, "T-4")) == ["duplicate", "stored"]
    assert len(pipeline.states()) == 3


def test_conflict_is_never_handled_or_retried(pipeline: PipelineUnderTest) -> None:
    """It is unknown which of the two bodies is genuine."""
    pipeline.store(delivery(ONE, "T-1"), delivery(OTHER, "T-2"))
    conflict = pipeline.rows(Event)[1].id
    with pipeline.database.transaction() as session:
        assert inbox.retry(session, [conflict], pipeline.now) == []
        assert [row.id for row in inbox.lock_received(session, [conflict, "WH-1"])] == ["WH-1"]


# Unreadable bodies


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
        (b"[1]", "not an object"),
        (b"null", "not an object"),
        (b'{"event_type":"X"}', "no id"),
        (b'{"id":"WH-1"}', "no event_type"),
        (b'{"id":"WH\\u0000-1","event_type":"X"}', "no id"),
        (b'{"id":7,"event_type":"X"}', "no id"),
    ],
)
def test_unreadable_body_is_parked_with_a_reason(pipeline: PipelineUnderTest, body: bytes, why: str) -> None:
    [stored] = pipeline.store(delivery(body, "T-1"))
    assert (stored.outcome, stored.publish) == ("stored", False)
    [row] = pipeline.rows(Event)
    assert row.state == "parked"
    assert row.reason
    assert why in row.reason
    assert row.body is not None
    assert outcomes(pipeline, delivery(body, "T-2")) == ["duplicate"]
    with pipeline.database.transaction() as session:
        assert inbox.retry(session, [row.id], pipeline.now) == []


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
def test_unusual_resource_is_stored(pipeline: PipelineUnderTest, kind: str, resource: dict[str, object]) -> None:
    body = orjson.dumps({**happened("WH-1", kind=kind), "resource": {}})
    text = body.replace(b'"resource":{}', b'"resource":' + _json(resource))
    assert outcomes(pipeline, delivery(text, "T-1"), delivery(happened("WH-2"), "T-2")) == ["stored", "stored"]


def test_longest_id_and_type_are_stored(pipeline: PipelineUnderTest) -> None:
    long = happened("W" * 200, kind="T" * 200)
    [stored] = pipeline.store(delivery(long, "T" * 50))
    assert stored.outcome == "stored"
    pipeline.store(delivery({**long, "resource": {"a": 1}}, "U" * 50))
    assert pipeline.count(Event) == 2


# Customer references


def test_customer_references_are_stored_as_keyed_hashes(pipeline: PipelineUnderTest) -> None:
    resource = {"id": "I-ADA", "status": "ACTIVE", "custom_id": "ada@example.com", "subscriber": {"payer_id": "PAYER7"}}
    for number in (1, 2):
        event = happened(f"WH-{number}", kind="BILLING.SUBSCRIPTION.ACTIVATED", resource=resource)
        pipeline.store(delivery(event, f"T-{number}"))
    one, two = (row.facts for row in pipeline.rows(Event))
    assert one["custom_ref"] == two["custom_ref"]
    assert one["payer_ref"] == two["payer_ref"] != one["custom_ref"]
    assert "ada@" not in str(one)
    assert "PAYER7" not in str(one)
    key_ids = {row.key_id for row in pipeline.rows(EncryptionKey)}
    assert key_ids == {"smt:index", "I-ADA"}


def _json(value: object) -> bytes:
    """Return the value as JSON. orjson cannot write integers beyond 64 bits."""
    import json

    return json.dumps(value).encode()
