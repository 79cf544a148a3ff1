"""The table of received events: store each event once, lock, mark, postpone, and list due events.

`store` stores a group of deliveries in the caller's transaction and returns a result for each. A webhook is answered
200 only after that transaction is committed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple, cast

from sqlalchemy import CompoundSelect, Table, or_, select, union_all, update
from sqlalchemy.orm import Session

from pipeline.crypto.keyring import INDEX, Keyring
from pipeline.db.bulk import in_list, insert_new, texts
from pipeline.db.models import Event, Redelivery
from pipeline.inbox import event
from pipeline.inbox.parsing import UNREADABLE, ParsedEvent

# stored: a new event, or a conflict stored in addition to the first. duplicate: already stored, nothing changed.
# forged: the transmission id came earlier with a different body. The signature covers only a CRC-32, which can be forged.
Outcome = Literal["stored", "duplicate", "forged"]
State = Literal["received", "handled", "ignored", "parked"]

PUBLISH_GRACE = timedelta(seconds=30)  # recovery takes a webhook that was published but not handled after this
QUIET_BROKER_GRACE = timedelta(seconds=3)  # ... or after this, while the broker delivers nothing
LEASE_LIMIT = 500  # events per call of `lease_due`

EVENT = cast(Table, Event.__table__)
RETRIABLE = (EVENT.c.type != UNREADABLE, EVENT.c.id.not_like("%~%"))  # readable, and not a conflict
REDELIVERY = cast(Table, Redelivery.__table__).c
BODY_HASHES: CompoundSelect[Any] = union_all(
    select(EVENT.c.transmission_id, EVENT.c.body_sha256).where(in_list(EVENT.c.transmission_id, texts("names"))),
    select(REDELIVERY.transmission_id, REDELIVERY.body_sha256).where(
        in_list(REDELIVERY.transmission_id, texts("names"))
    ),
)


# Source of events from before this program took over. They change the state, but no one is mailed about them.
HISTORY: Literal["history"] = "history"


@dataclass(frozen=True, slots=True)
class NewEvent:
    """One event to store. `verdict` is the result of the signature check."""

    parsed: ParsedEvent
    source: Literal["webhook", "import", "read", "history", "action"]
    verdict: str
    transmission_id: str | None = None


@dataclass(frozen=True, slots=True)
class StoreResult:
    """The result for one delivery. `publish`: `event_id` is to be published, as the event is stored and not parked."""

    outcome: Outcome
    event_id: str
    publish: bool = False


class ReceivedEvent(NamedTuple):
    """A received event as the worker loads it. The body is left out, because handlers do not use it."""

    id: str
    type: str
    source: str
    reason: str | None
    key_id: str
    facts: dict[str, Any]
    personal_data: bytes | None
    occurred_at: datetime | None
    received_at: datetime
    attempts: int


RECEIVED = [EVENT.c[name] for name in ReceivedEvent._fields]


def is_conflict(event_id: str) -> bool:
    """Return whether the event is a different body under a known id, see `_store_conflict`."""
    return "~" in event_id


def store(session: Session, keyring: Keyring, deliveries: Sequence[NewEvent], now: datetime) -> list[StoreResult]:
    """Store each delivery once, in the caller's transaction. Return a result for each, in their order."""
    keyring.load([INDEX, *(delivery.parsed.key_id for delivery in deliveries)])
    body_hashes = _body_hash_by_transmission(session, deliveries)
    results: list[StoreResult | None] = [None] * len(deliveries)
    first_places: dict[str, int] = {}
    for place, delivery in enumerate(deliveries):
        name, body = delivery.transmission_id, delivery.parsed.body_sha256
        if name and body_hashes.setdefault(name, body) != body:
            results[place] = StoreResult("forged", delivery.parsed.id)
        elif delivery.parsed.id not in first_places:
            first_places[delivery.parsed.id] = place
    # Sorted by id, so that two processes that store the same events cannot deadlock.
    rows = [_row(deliveries[place], keyring, now) for _, place in sorted(first_places.items())]
    inserted = set(insert_new(session, Event, rows, returning=Event.id))
    for place, delivery in enumerate(deliveries):
        if first_places.get(delivery.parsed.id) == place and delivery.parsed.id in inserted:
            results[place] = StoreResult("stored", delivery.parsed.id, publish=delivery.parsed.problem is None)
    rest = [place for place, result in enumerate(results) if result is None]
    for place in sorted(rest, key=lambda place: _sort_key(deliveries[place])):
        results[place] = _store_known(session, keyring, deliveries[place], now)
    return [result for result in results if result is not None]


def lock_received(session: Session, ids: Iterable[str]) -> list[ReceivedEvent]:
    """Lock the received events among these ids, in key order, except those that another worker has locked.

    The rows are read-only: use `mark_events` and `postpone` to change them.
    """
    statement = (
        select(*RECEIVED)
        .where(in_list(EVENT.c.id, ids), EVENT.c.state == "received")
        .order_by(EVENT.c.id)
        .with_for_update(skip_locked=True)
    )
    return [ReceivedEvent(*row) for row in session.connection().execute(statement).all()]


def open_event(row: ReceivedEvent, keyring: Keyring) -> event.Event:
    """Return the event as a handler receives it, with its personal data decrypted."""
    key = keyring.get(row.key_id)
    person = key.decrypt_json("event.personal_data", row.personal_data) if key and row.personal_data else {}
    return event.Event(row.id, row.type, row.source, row.occurred_at, row.received_at, row.facts, person)


def mark_events(session: Session, ids: Sequence[str], state: State, now: datetime, reason: str | None = None) -> None:
    """Set the final state of these events, in the transaction of their effects."""
    if ids:
        done = update(EVENT).where(in_list(EVENT.c.id, ids))
        session.connection().execute(done.values(state=state, done_at=now, due_at=None, reason=reason))


def postpone(session: Session, event_id: str, due_at: datetime, reason: str, *, failed: bool) -> None:
    """Retry this event at `due_at`. `failed`: count this as a failed attempt."""
    session.execute(
        update(Event)
        .where(Event.id == event_id, Event.state == "received")
        .values(due_at=due_at, reason=reason, attempts=Event.attempts + int(failed))
        .execution_options(synchronize_session=False)
    )


def release_waiting(session: Session, reason: str, due_at: datetime) -> int:
    """Make the events that wait for this reason due at `due_at`. Return how many."""
    waiting = update(Event).where(Event.state == "received", Event.reason == reason).values(due_at=due_at)
    result = session.execute(waiting.returning(Event.id).execution_options(synchronize_session=False))
    return len(result.all())


def due_event_ids(session: Session, now: datetime, limit: int, *, untried: bool = False) -> list[str]:
    """Return the ids of received events that are due and not locked by a worker, the longest due first.

    `untried`: include new webhooks QUIET_BROKER_GRACE after they were received.
    """
    waits = Event.due_at <= now
    if untried:
        waits = or_(waits, Event.reason.is_(None) & (Event.due_at <= now + PUBLISH_GRACE - QUIET_BROKER_GRACE))
    statement = (
        select(Event.id)
        .where(Event.state == "received", Event.due_at <= now + PUBLISH_GRACE, waits)  # the first bound is the index's
        .order_by(Event.due_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return list(session.execute(statement).scalars())


def lease_due(session: Session, now: datetime, limit: int = LEASE_LIMIT) -> list[str]:
    """Return the ids of due events, and postpone each by PUBLISH_GRACE, so that the next call does not return it again."""
    ids = due_event_ids(session, now, limit)
    if ids:
        session.execute(
            update(Event)
            .where(in_list(Event.id, ids), Event.state == "received")
            .values(due_at=now + PUBLISH_GRACE)
            .execution_options(synchronize_session=False)
        )
    return ids


def retry(session: Session, ids: Sequence[str], now: datetime) -> list[str]:
    """Set parked or ignored events back to `received`, as the operator requests. Return the ids of those changed.

    Conflicts and unreadable bodies are not changed.
    """
    statement = (
        update(Event)
        .where(Event.id.in_(ids), Event.state.in_(("parked", "ignored")), *RETRIABLE)
        .values(state="received", reason=None, attempts=0, due_at=now, done_at=None)
        .returning(Event.id)
        .execution_options(synchronize_session=False)
    )
    return list(session.execute(statement).scalars())


def parked_for_retry(session: Session) -> list[str]:
    """Return the ids of the parked events that `retry` accepts, oldest first."""
    parked = select(Event.id).where(Event.state == "parked", *RETRIABLE)
    return list(session.execute(parked.order_by(Event.received_at)).scalars())


def dismiss(session: Session, ids: Sequence[str], now: datetime) -> list[str]:
    """Set parked events that the operator has reviewed to `ignored`. Return the ids of those changed.

    Each event keeps its reason.
    """
    statement = (
        update(Event)
        .where(Event.id.in_(ids), Event.state == "parked")
        .values(state="ignored", done_at=now)
        .returning(Event.id)
        .execution_options(synchronize_session=False)
    )
    return list(session.execute(statement).scalars())


def _sort_key(delivery: NewEvent) -> tuple[str, str]:
    """Return the sort key of a delivery. Processes that store the same deliveries in this order cannot deadlock."""
    return delivery.parsed.id, delivery.transmission_id or ""


def _body_hash_by_transmission(session: Session, deliveries: Sequence[NewEvent]) -> dict[str, str]:
    """Return for each known transmission id the hash of the body that came with it."""
    ids = [delivery.transmission_id for delivery in deliveries if delivery.transmission_id]
    if not ids:
        return {}
    found = session.connection().execute(BODY_HASHES, {"names": ids}).all()
    return dict(cast(list[tuple[str, str]], found))


def _row(delivery: NewEvent, keyring: Keyring, now: datetime) -> dict[str, Any]:
    parsed = delivery.parsed
    key = keyring.get(parsed.key_id)
    references = _references(parsed, keyring)
    owner = _owner(parsed, references)
    if owner and any(keyring.is_erased(name) for name in references.values()):
        key = None  # the customer was erased: the event updates the billing state, but no personal data is stored again
    return {
        "id": parsed.id,
        "type": parsed.type,
        "source": delivery.source,
        "state": "received" if parsed.problem is None else "parked",
        "reason": parsed.problem,
        "key_id": parsed.key_id,
        "customer_id": owner,
        "facts": {**parsed.facts, **references},
        "personal_data": key.encrypt_json("event.personal_data", parsed.person) if key and parsed.person else None,
        "body": key.encrypt("event.body", parsed.redacted_body) if key else None,
        "body_sha256": parsed.body_sha256,
        "content_sha256": parsed.content_sha256,
        "signature_verdict": delivery.verdict,
        "transmission_id": delivery.transmission_id,
        "occurred_at": parsed.occurred_at,
        "received_at": now,
        "due_at": _due_at(delivery, now),
        "attempts": 0,
        "done_at": None if parsed.problem is None else now,
    }


def _due_at(delivery: NewEvent, now: datetime) -> datetime | None:
    """Return when recovery takes the event: a webhook later, because its id is published; others at once."""
    if delivery.parsed.problem is not None:
        return None
    return now + PUBLISH_GRACE if delivery.source == "webhook" else now


def _references(parsed: ParsedEvent, keyring: Keyring) -> dict[str, str]:
    """Return the customer's `custom_id` and payer id as keyed hashes. `custom_id` may contain an e-mail address."""
    named = {"custom_ref": parsed.person.get("custom"), "payer_ref": parsed.person.get("payer")}
    return {
        fact: f"{fact[0]}{keyring.digest(INDEX, f'{fact}:{value}').hex()[:30]}"
        for fact, value in named.items()
        if value
    }


def _owner(parsed: ParsedEvent, references: dict[str, str]) -> str | None:
    """Return the customer id of an event without a subscription. Otherwise None: the subscription names the customer."""
    return None if "subscription" in parsed.facts else references.get("custom_ref") or references.get("payer_ref")


def _store_known(session: Session, keyring: Keyring, delivery: NewEvent, now: datetime) -> StoreResult:
    """Store a delivery whose event id or transmission id is known: a duplicate, a conflict or a forgery."""
    parsed, transmission = delivery.parsed, delivery.transmission_id
    named = [Event.id == parsed.id, *([Event.transmission_id == transmission] if transmission else [])]
    columns = (Event.id, Event.body_sha256, Event.content_sha256, Event.transmission_id)
    known = session.execute(select(*columns).where(or_(*named))).all()
    same_transmission = [row for row in known if transmission and row.transmission_id == transmission]
    if any(row.body_sha256 != parsed.body_sha256 for row in same_transmission):
        return StoreResult("forged", parsed.id)
    first = next((row for row in known if row.id == parsed.id), None)
    event_id = parsed.id
    if not known:  # the first delivery with this id was a forgery and is not stored
        if insert_new(session, Event, [_row(delivery, keyring, now)], returning=Event.id):
            return StoreResult("stored", event_id, publish=parsed.problem is None)
        return _store_known(session, keyring, delivery, now)  # another process has just stored it
    if first and parsed.body_sha256 != first.body_sha256 and parsed.content_sha256 != first.content_sha256:
        event_id = f"{parsed.id}~{parsed.content_sha256[:12]}"
        if _store_conflict(session, keyring, delivery, event_id, now):
            return StoreResult("stored", event_id)
        if session.execute(select(Event.id).where(Event.id == event_id)).one_or_none() is None:
            # Another process has stored this transmission id, so look at the rows again.
            return _store_known(session, keyring, delivery, now)
    if transmission and not same_transmission:
        _record_redelivery(session, delivery, now)
    return StoreResult("duplicate", event_id)


def _store_conflict(session: Session, keyring: Keyring, delivery: NewEvent, event_id: str, now: datetime) -> bool:
    """Store a different body under a known id as a separate, parked event. Return False if it is already stored."""
    reason = f"conflict: a different body under the known id {delivery.parsed.id}"
    row = _row(delivery, keyring, now) | {"id": event_id, "state": "parked", "reason": reason, "due_at": None}
    return bool(insert_new(session, Event, [row | {"done_at": now}], returning=Event.id))


def _record_redelivery(session: Session, delivery: NewEvent, now: datetime) -> None:
    row = {
        "transmission_id": delivery.transmission_id,
        "event_id": delivery.parsed.id,
        "body_sha256": delivery.parsed.body_sha256,
        "received_at": now,
    }
    insert_new(session, Redelivery, [row], returning=Redelivery.transmission_id)
