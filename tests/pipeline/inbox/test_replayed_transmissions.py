"""The signature covers a CRC-32 of the body only, so who knows one may write another body to it: none of them gets in."""

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
from tests.support.pipeline_under_test import River, delivery, happened, outcomes

ONE = happened("WH-1")
OTHER = happened("WH-1", resource={"id": "another"})
FIRST, AGAIN, CONFLICT = delivery(ONE, "T-1"), delivery(ONE, "T-2"), delivery(OTHER, "T-3")


@pytest.mark.parametrize("split_up", [True, False], ids=["one after the other", "in one group"])
@pytest.mark.parametrize("body", [OTHER, happened("WH-2"), b"no JSON"], ids=["same id", "another id", "unreadable"])
@pytest.mark.parametrize(
    "stolen", ["T-1", "T-2", "T-3", "T-4"], ids=["first", "redelivery", "conflict", "conflict again"]
)
def test_a_transmission_that_signed_another_body_is_refused(
    river: River, stolen: str, body: bytes | dict[str, object], split_up: bool
) -> None:
    before = [FIRST, AGAIN, CONFLICT, delivery(OTHER, "T-4")]
    if stolen == "T-3" and body is OTHER:
        body = ONE
    if stolen == "T-4" and body is OTHER:
        body = happened("WH-1", resource={"id": "yet another"})
    forged = delivery(body, stolen)
    if split_up:
        for each in before:
            river.store(each)
        kept = river.states()
        assert outcomes(river, forged) == ["forged"]
        assert river.states() == kept
    else:
        assert outcomes(river, *before, forged) == ["stored", "duplicate", "stored", "duplicate", "forged"]
        assert len(river.states()) == 2


def test_of_two_new_bodies_under_one_transmission_one_is_refused(river: River) -> None:
    assert outcomes(river, delivery(ONE, "T-1"), delivery(happened("WH-2"), "T-1")) == ["stored", "forged"]
    assert river.count(Event) == 1


def test_a_forgery_beside_the_redelivery_it_was_made_of_is_refused(river: River) -> None:
    river.store(FIRST)
    assert outcomes(river, AGAIN, delivery(OTHER, "T-2"), delivery(happened("WH-2"), "T-2")) == [
        "duplicate", "forged", "forged",
    ]  # fmt: skip
    assert river.count(Event) == 1


def test_a_forgery_takes_no_genuine_event_with_it(river: River) -> None:
    """Signed for one event, it bears the id of another that comes right behind it."""
    river.store(delivery(ONE, "T-1"))
    forged, genuine = delivery(happened("WH-2", resource={"a": 1}), "T-1"), delivery(happened("WH-2"), "T-2")
    assert outcomes(river, forged, genuine) == ["forged", "stored"]
    assert river.states() == {"WH-1": "received", "WH-2": "received"}
    assert river.event("WH-2").transmission_id == "T-2"


def test_a_forgery_takes_the_place_of_no_redelivery(river: River) -> None:
    river.store(delivery(ONE, "T-1"))
    assert outcomes(river, delivery(happened("WH-2"), "T-1"), delivery(ONE, "T-1")) == ["forged", "duplicate"]


def test_a_forgery_that_is_found_out_late_takes_no_genuine_event_with_it(
    river: River, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when another process has stored what was signed just after we had looked."""
    river.store(delivery(ONE, "T-1"))
    monkeypatch.setattr(inbox, "_body_hash_by_transmission", lambda *_: {})
    forged, genuine = delivery(happened("WH-2", resource={"a": 1}), "T-1"), delivery(happened("WH-2"), "T-2")
    told = river.store(forged, genuine)
    assert [(each.outcome, each.publish) for each in told] == [("forged", False), ("stored", True)]
    assert river.event("WH-2").transmission_id == "T-2"


def test_two_processes_that_get_a_body_and_its_forgery_at_once_believe_one(river: River) -> None:
    for turn in range(5):
        told = [delivery(happened(f"WH-{turn}-{number}"), f"T-{turn}") for number in range(2)]
        databases = [Database(river.url) for _ in told]
        met = threading.Barrier(2, timeout=30)

        def store(
            number: int,
            told: list[NewEvent] = told,
            databases: list[Database] = databases,
            met: threading.Barrier = met,
        ) -> str:
            with databases[number].transaction() as session:
                met.wait()
                done = inbox.store(session, Keyring(river.master, session, river.now), [told[number]], river.now)
            databases[number].close()
            return done[0].outcome

        with ThreadPoolExecutor(2) as pool:
            assert sorted(pool.map(store, range(2))) == ["forged", "stored"]


def test_two_processes_with_the_same_redeliveries_do_not_wait_for_each_other(river: River) -> None:
    events = [happened(f"WH-{number}") for number in range(40)]
    river.store(*(delivery(event, f"T-{number}") for number, event in enumerate(events)))
    again = [delivery(event, f"T-again-{number}") for number, event in enumerate(events)]
    conflicts = [delivery(happened(f"WH-{number}", resource={"a": 1}), f"T-c{number}") for number in range(40)]
    met = threading.Barrier(2, timeout=30)

    def store(told: list[NewEvent]) -> set[str]:
        database = Database(river.url)
        met.wait()
        with database.transaction() as session:
            done = inbox.store(session, Keyring(river.master, session, river.now), told, river.now)
        database.close()
        return {each.outcome for each in done}

    for told, wanted in ((again, {"duplicate"}), (conflicts, {"stored", "duplicate"})):
        with ThreadPoolExecutor(2) as pool:
            found = set().union(*pool.map(store, [told, told[::-1]]))
        assert found == wanted


@pytest.mark.services
def test_a_transmission_that_another_process_takes_meanwhile_makes_no_duplicate_of_what_is_nowhere(
    stream: River, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice forged: its group's look was too early, and its own transmission is gone when it is put in by itself."""
    stream.store(delivery(ONE, "T-1"))
    signed, puts = inbox._body_hash_by_transmission, iter(range(9))

    def put(*given: Any, **named: Any) -> list[str]:
        if given[1] is Event and next(puts) == 1:
            monkeypatch.setattr("pipeline.inbox.store.insert_new", insert_new)
            monkeypatch.setattr(inbox, "_body_hash_by_transmission", signed)
            other = Database(stream.url)
            with other.transaction() as session:
                evil = delivery(happened("WH-EVIL"), "T-2")
                inbox.store(session, Keyring(stream.master, session, stream.now), [evil], stream.now)
            other.close()
        return insert_new(*given, **named)

    monkeypatch.setattr(inbox, "_body_hash_by_transmission", lambda *_: {})
    monkeypatch.setattr(inbox, "insert_new", put)
    forged, genuine = delivery(happened("WH-2", resource={"a": 1}), "T-1"), delivery(happened("WH-2"), "T-2")
    assert outcomes(stream, forged, genuine) == ["forged", "forged"]
    assert outcomes(stream, delivery(happened("WH-2"), "T-9")) == ["stored"]
