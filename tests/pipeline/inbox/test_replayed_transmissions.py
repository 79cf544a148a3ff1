"""A replayed transmission id with another body is refused, because the signature covers only a CRC-32 of the body."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pipeline.crypto.keyring import Keyring
from pipeline.db.bulk import insert_new
from pipeline.db.engine import Database
from pipeline.db.models import Event
from pipeline.inbox import store as inbox
from pipeline.inbox.store import NewEvent
from tests.support.pipeline_under_test import PipelineUnderTest, delivery, happened, outcomes

ONE = happened("WH-1")
OTHER = happened("WH-1", resource={"id": "another"})
FIRST, REDELIVERY, CONFLICT = delivery(ONE, "T-1"), delivery(ONE, "T-2"), delivery(OTHER, "T-3")


@pytest.mark.parametrize("one_by_one", [True, False], ids=["one after the other", "in one group"])
@pytest.mark.parametrize("body", [OTHER, happened("WH-2"), b"no JSON"], ids=["same id", "another id", "unreadable"])
@pytest.mark.parametrize(
    "transmission", ["T-1", "T-2", "T-3", "T-4"], ids=["first", "redelivery", "conflict", "conflict again"]
)
def test_replayed_transmission_with_another_body_is_refused(
    pipeline: PipelineUnderTest, transmission: str, body: bytes | dict[str, object], one_by_one: bool
) -> None:
    before = [FIRST, REDELIVERY, CONFLICT, delivery(OTHER, "T-4")]
    if transmission == "T-3" and body is OTHER:
        body = ONE
    if transmission == "T-4" and body is OTHER:
        body = happened("WH-1", resource={"id": "yet another"})
    forged = delivery(body, transmission)
    if one_by_one:
        for each in before:
            pipeline.store(each)
        kept = pipeline.states()
        assert outcomes(pipeline, forged) == ["forged"]
        assert pipeline.states() == kept
    else:
        assert outcomes(pipeline, *before, forged) == ["stored", "duplicate", "stored", "duplicate", "forged"]
        assert len(pipeline.states()) == 2


def test_second_new_body_of_one_transmission_is_refused(pipeline: PipelineUnderTest) -> None:
    assert outcomes(pipeline, delivery(ONE, "T-1"), delivery(happened("WH-2"), "T-1")) == ["stored", "forged"]
    assert pipeline.count(Event) == 1


def test_forgery_in_the_group_of_its_redelivery_is_refused(pipeline: PipelineUnderTest) -> None:
    pipeline.store(FIRST)
    assert outcomes(pipeline, REDELIVERY, delivery(OTHER, "T-2"), delivery(happened("WH-2"), "T-2")) == [
        "duplicate", "forged", "forged",
    ]  # fmt: skip
    assert pipeline.count(Event) == 1


def test_forgery_does_not_block_a_genuine_event(pipeline: PipelineUnderTest) -> None:
    """The forgery reuses the transmission of one event and carries the id of another, which arrives right after it."""
    pipeline.store(delivery(ONE, "T-1"))
    forged, genuine = delivery(happened("WH-2", resource={"a": 1}), "T-1"), delivery(happened("WH-2"), "T-2")
    assert outcomes(pipeline, forged, genuine) == ["forged", "stored"]
    assert pipeline.states() == {"WH-1": "received", "WH-2": "received"}
    assert pipeline.event("WH-2").transmission_id == "T-2"


def test_forgery_does_not_block_a_redelivery(pipeline: PipelineUnderTest) -> None:
    pipeline.store(delivery(ONE, "T-1"))
    assert outcomes(pipeline, delivery(happened("WH-2"), "T-1"), delivery(ONE, "T-1")) == ["forged", "duplicate"]


def test_forgery_detected_late_does_not_block_a_genuine_event(
    pipeline: PipelineUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The transmission is not known when the group is checked, as if another process stored it just afterwards."""
    pipeline.store(delivery(ONE, "T-1"))
    monkeypatch.setattr(inbox, "_body_hash_by_transmission", lambda *_: {})
    forged, genuine = delivery(happened("WH-2", resource={"a": 1}), "T-1"), delivery(happened("WH-2"), "T-2")
    results = pipeline.store(forged, genuine)
    assert [(each.outcome, each.publish) for each in results] == [("forged", False), ("stored", True)]
    assert pipeline.event("WH-2").transmission_id == "T-2"


def test_two_processes_store_one_of_two_concurrent_bodies(pipeline: PipelineUnderTest) -> None:
    for turn in range(5):
        deliveries = [delivery(happened(f"WH-{turn}-{number}"), f"T-{turn}") for number in range(2)]
        databases = [Database(pipeline.url) for _ in deliveries]
        barrier = threading.Barrier(2, timeout=30)

        def store(
            number: int,
            deliveries: list[NewEvent] = deliveries,
            databases: list[Database] = databases,
            barrier: threading.Barrier = barrier,
        ) -> str:
            with databases[number].transaction() as session:
                barrier.wait()
                done = inbox.store(
                    session, Keyring(pipeline.master, session, pipeline.now), [deliveries[number]], pipeline.now
                )
            databases[number].close()
            return done[0].outcome

        with ThreadPoolExecutor(2) as pool:
            assert sorted(pool.map(store, range(2))) == ["forged", "stored"]


def test_two_processes_with_the_same_redeliveries_do_not_deadlock(pipeline: PipelineUnderTest) -> None:
    events = [happened(f"WH-{number}") for number in range(40)]
    pipeline.store(*(delivery(event, f"T-{number}") for number, event in enumerate(events)))
    again = [delivery(event, f"T-again-{number}") for number, event in enumerate(events)]
    conflicts = [delivery(happened(f"WH-{number}", resource={"a": 1}), f"T-c{number}") for number in range(40)]
    barrier = threading.Barrier(2, timeout=30)

    def store(deliveries: list[NewEvent]) -> set[str]:
        database = Database(pipeline.url)
        barrier.wait()
        with database.transaction() as session:
            done = inbox.store(session, Keyring(pipeline.master, session, pipeline.now), deliveries, pipeline.now)
        database.close()
        return {each.outcome for each in done}

    for deliveries, expected in ((again, {"duplicate"}), (conflicts, {"stored", "duplicate"})):
        with ThreadPoolExecutor(2) as pool:
            found = set().union(*pool.map(store, [deliveries, deliveries[::-1]]))
        assert found == expected


@pytest.mark.services
def test_event_that_is_not_stored_is_never_a_duplicate(
    postgresql_pipeline: PipelineUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process stores the transmission id between the check and the insert, so the event is not stored.

    The result must be `forged`, not `duplicate`: PayPal then sends the event again with another transmission id.
    """
    postgresql_pipeline.store(delivery(ONE, "T-1"))
    original, calls = inbox._body_hash_by_transmission, iter(range(9))

    def insert(*arguments: Any, **keywords: Any) -> list[str]:
        if arguments[1] is Event and next(calls) == 1:
            monkeypatch.setattr("pipeline.inbox.store.insert_new", insert_new)
            monkeypatch.setattr(inbox, "_body_hash_by_transmission", original)
            other = Database(postgresql_pipeline.url)
            with other.transaction() as session:
                attack = delivery(happened("WH-EVIL"), "T-2")
                inbox.store(
                    session,
                    Keyring(postgresql_pipeline.master, session, postgresql_pipeline.now),
                    [attack],
                    postgresql_pipeline.now,
                )
            other.close()
        return insert_new(*arguments, **keywords)

    monkeypatch.setattr(inbox, "_body_hash_by_transmission", lambda *_: {})
    monkeypatch.setattr(inbox, "insert_new", insert)
    forged, genuine = delivery(happened("WH-2", resource={"a": 1}), "T-1"), delivery(happened("WH-2"), "T-2")
    assert outcomes(postgresql_pipeline, forged, genuine) == ["forged", "forged"]
    assert outcomes(postgresql_pipeline, delivery(happened("WH-2"), "T-9")) == ["stored"]
