"""Received events: store once, load, mark, list what is overdue.

`store` is called for a whole group of deliveries inside one transaction. It tells for each what became of it; nothing
is answered 200 before that transaction is committed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple, cast

from sqlalchemy import CompoundSelect, Table, func, or_, select, union_all, update
from sqlalchemy.orm import Session

from pipeline.crypto.keyring import INDEX, Keyring
from pipeline.db.bulk import in_list, insert_new, texts
from pipeline.db.models import Event, Redelivery
from pipeline.inbox import event
from pipeline.inbox.parsing import UNREADABLE, ParsedEvent

# stored: new, or a conflict, kept beside what was there. duplicate: known, nothing changed.
# forged: a transmission id we have seen signed another body (its checksum is only a CRC-32, which can be forged).
Outcome = Literal["stored", "duplicate", "forged"]
State = Literal["received", "handled", "ignored", "parked"]

PUBLISH_GRACE = timedelta(seconds=30)  # the id is published at once; a sweep takes over when that came to nothing
QUIET_BROKER_GRACE = timedelta(seconds=3)  # ... or after this, while the broker brings nothing at all
DUE_AT_ONCE = 500  # events that one look takes; more are taken by the next

EVENT = cast(Table, Event.__table__)
RETRIABLE = (EVENT.c.type != UNREADABLE, EVENT.c.id.not_like("%~%"))  # no conflict, and something a handler can read
AGAIN = cast(Table, Redelivery.__table__).c
SIGNED: CompoundSelect[Any] = union_all(
    select(EVENT.c.transmission_id, EVENT.c.body_sha256).where(in_list(EVENT.c.transmission_id, texts("names"))),
    select(AGAIN.transmission_id, AGAIN.body_sha256).where(in_list(AGAIN.transmission_id, texts("names"))),
)


@dataclass(frozen=True, slots=True)
class NewEvent:
    """One body that passed the door. `verdict` says what was found about its signature."""

    parsed: ParsedEvent
    source: Literal["webhook", "import", "read"]
    verdict: str
    transmission_id: str | None = None


@dataclass(frozen=True, slots=True)
class StoreResult:
    """What became of a delivery. `event_id` is to be published if it was stored and is not parked."""

    outcome: Outcome
    event_id: str
    publish: bool = False


class ReceivedEvent(NamedTuple):
    """A received event as the worker reads it: without the body, which only people need."""

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
    """Whether it is a second body under a known id, see `_store_conflict`."""
    return "~" in event_id


def store(session: Session, keyring: Keyring, deliveries: Sequence[NewEvent], now: datetime) -> list[StoreResult]:
    """Store each delivery once, in the caller's transaction."""
    keyring.load([INDEX, *(delivery.parsed.label for delivery in deliveries)])
    signed = _body_hash_by_transmission(session, deliveries)
    results: list[StoreResult | None] = [None] * len(deliveries)
    fresh: dict[str, int] = {}
    for place, delivery in enumerate(deliveries):
        name, body = delivery.transmission_id, delivery.parsed.body_sha256
        if name and signed.setdefault(name, body) != body:
            results[place] = StoreResult("forged", delivery.parsed.id)
        elif delivery.parsed.id not in fresh:
            fresh[delivery.parsed.id] = place
    # In the order of their ids, so that two processes with the same events cannot wait for each other.
    rows = [_row(deliveries[place], keyring, now) for _, place in sorted(fresh.items())]
    inserted = set(insert_new(session, Event, rows, returning=Event.id))
    for place, delivery in enumerate(deliveries):
        if fresh.get(delivery.parsed.id) == place and delivery.parsed.id in inserted:
            results[place] = StoreResult("stored", delivery.parsed.id, publish=delivery.parsed.problem is None)
    rest = [place for place, result in enumerate(results) if result is None]
    for place in sorted(rest, key=lambda place: _key(deliveries[place])):
        results[place] = _store_known(session, keyring, deliveries[place], now)
    return [result for result in results if result is not None]


def lock_received(session: Session, ids: Iterable[str]) -> list[ReceivedEvent]:
    """Lock the received events among these ids, in key order; those another worker holds are left to it.

    To be looked at only: what becomes of them is told by `mark` and `postpone`.
    """
    statement = (
        select(*RECEIVED)
        .where(in_list(EVENT.c.id, ids), EVENT.c.state == "received")
        .order_by(EVENT.c.id)
        .with_for_update(skip_locked=True)
    )
    return [ReceivedEvent(*row) for row in session.connection().execute(statement).all()]


def open_event(row: ReceivedEvent, keyring: Keyring) -> event.Event:
    """The event as a handler receives it."""
    seal = keyring.get(row.key_id)
    person = seal.decrypt_json("event.personal_data", row.personal_data) if seal and row.personal_data else {}
    return event.Event(row.id, row.type, row.source, row.occurred_at, row.received_at, row.facts, person)


def mark_events(session: Session, ids: Sequence[str], state: State, now: datetime, reason: str | None = None) -> None:
    """Mark these events done, in the transaction of their effects."""
    if ids:
        done = update(EVENT).where(in_list(EVENT.c.id, ids))
        session.connection().execute(done.values(state=state, done_at=now, due_at=None, reason=reason))


def postpone(session: Session, event_id: str, due_at: datetime, reason: str, *, failed: bool) -> None:
    """Try this event again at that time; `failed` counts as one of its attempts."""
    session.execute(
        update(Event)
        .where(Event.id == event_id, Event.state == "received")
        .values(due_at=due_at, reason=reason, attempts=Event.attempts + int(failed))
        .execution_options(synchronize_session=False)
    )


def release_waiting(session: Session, reason: str, due_at: datetime) -> int:
    """Events that wait for this reason are due at that time. Returns how many."""
    waiting = update(Event).where(Event.state == "received", Event.reason == reason).values(due_at=due_at)
    result = session.execute(waiting.returning(Event.id).execution_options(synchronize_session=False))
    return len(result.all())


def due_event_ids(session: Session, now: datetime, limit: int, *, untried: bool = False) -> list[str]:
    """The ids of received events that are due and that nobody is handling, those that wait longest first.

    `untried`: and those that are LATE and wait for nothing but their message.
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


def lease_due(session: Session, now: datetime, limit: int = DUE_AT_ONCE) -> list[str]:
    """The ids of received events that are due, each put off so that the next look leaves them a while."""
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
    """Put parked or ignored events back to be handled, as a person asked. Conflicts and unreadable bodies stay."""
    statement = (
        update(Event)
        .where(Event.id.in_(ids), Event.state.in_(("parked", "ignored")), *RETRIABLE)
        .values(state="received", reason=None, attempts=0, due_at=now, done_at=None)
        .returning(Event.id)
        .execution_options(synchronize_session=False)
    )
    return list(session.execute(statement).scalars())


def parked_for_retry(session: Session) -> list[str]:
    """The parked events that `retry` puts back, oldest first."""
    parked = select(Event.id).where(Event.state == "parked", *RETRIABLE)
    return list(session.execute(parked.order_by(Event.received_at)).scalars())


def dismiss(session: Session, ids: Sequence[str], now: datetime) -> list[str]:
    """Parked events that a person has looked at wait for nobody any more. Those that were parked; each keeps its reason."""
    statement = (
        update(Event)
        .where(Event.id.in_(ids), Event.state == "parked")
        .values(state="ignored", done_at=now)
        .returning(Event.id)
        .execution_options(synchronize_session=False)
    )
    return list(session.execute(statement).scalars())


def oldest_unhandled(session: Session) -> datetime | None:
    """When the oldest event that still waits was received, also one that is put off for a reason."""
    return session.execute(
        select(func.min(Event.received_at)).where(Event.state == "received", Event.due_at.is_not(None))
    ).scalar_one()


def _key(delivery: NewEvent) -> tuple[str, str]:
    """What two processes with the same deliveries sort them by, so that they do not wait for each other in a circle."""
    return delivery.parsed.id, delivery.transmission_id or ""


def _body_hash_by_transmission(session: Session, deliveries: Sequence[NewEvent]) -> dict[str, str]:
    """Which body each transmission signed that we have seen before, as a hash."""
    ids = [delivery.transmission_id for delivery in deliveries if delivery.transmission_id]
    if not ids:
        return {}
    found = session.connection().execute(SIGNED, {"names": ids}).all()
    return dict(cast(list[tuple[str, str]], found))


def _row(delivery: NewEvent, keyring: Keyring, now: datetime) -> dict[str, Any]:
    split = delivery.parsed
    seal = keyring.get(split.label)
    references = _references(split, keyring)
    owner = _owner(split, references)
    if owner and any(keyring.is_erased(name) for name in references.values()):
        seal = None  # of somebody who was erased: it moves the books and brings nobody back
    return {
        "id": split.id,
        "type": split.type,
        "source": delivery.source,
        "state": "received" if split.problem is None else "parked",
        "reason": split.problem,
        "key_id": split.label,
        "customer_id": owner,
        "facts": {**split.facts, **references},
        "personal_data": seal.encrypt_json("event.personal_data", split.person) if seal and split.person else None,
        "body": seal.encrypt("event.body", split.redacted_body) if seal else None,
        "body_sha256": split.body_sha256,
        "content_sha256": split.content_sha256,
        "signature_verdict": delivery.verdict,
        "transmission_id": delivery.transmission_id,
        "occurred_at": split.occurred_at,
        "received_at": now,
        "due_at": _due_at(delivery, now),
        "attempts": 0,
        "done_at": None if split.problem is None else now,
    }


def _due_at(delivery: NewEvent, now: datetime) -> datetime | None:
    """A webhook's id is published right away; the others are picked up by the next sweep."""
    if delivery.parsed.problem is not None:
        return None
    return now + PUBLISH_GRACE if delivery.source == "webhook" else now


def _references(split: ParsedEvent, keyring: Keyring) -> dict[str, str]:
    """Who it is about, as keyed hashes: `custom_id` may be anything the vendor put there, an e-mail address too."""
    named = {"custom_ref": split.person.get("custom"), "payer_ref": split.person.get("payer")}
    return {
        fact: f"{fact[0]}{keyring.digest(INDEX, f'{fact}:{value}').hex()[:30]}"
        for fact, value in named.items()
        if value
    }


def _owner(split: ParsedEvent, references: dict[str, str]) -> str | None:
    """Whose event it is, where its subscription does not say so."""
    return None if "subscription" in split.facts else references.get("custom_ref") or references.get("payer_ref")


def _store_known(session: Session, keyring: Keyring, delivery: NewEvent, now: datetime) -> StoreResult:
    """A delivery whose event or transmission is known: a duplicate, a conflict, or a forgery."""
    split, transmission = delivery.parsed, delivery.transmission_id
    named = [Event.id == split.id, *([Event.transmission_id == transmission] if transmission else [])]
    columns = (Event.id, Event.body_sha256, Event.content_sha256, Event.transmission_id)
    known = session.execute(select(*columns).where(or_(*named))).all()
    sent = [row for row in known if transmission and row.transmission_id == transmission]
    if any(row.body_sha256 != split.body_sha256 for row in sent):
        return StoreResult("forged", split.id)
    first = next((row for row in known if row.id == split.id), None)
    event_id = split.id
    if not known:  # a forgery had come before it
        if insert_new(session, Event, [_row(delivery, keyring, now)], returning=Event.id):
            return StoreResult("stored", event_id, publish=split.problem is None)
        return _store_known(session, keyring, delivery, now)  # another process was quicker, and is known now
    if first and split.body_sha256 != first.body_sha256 and split.content_sha256 != first.content_sha256:
        event_id = f"{split.id}~{split.content_sha256[:12]}"
        if _store_conflict(session, keyring, delivery, event_id, now):
            return StoreResult("stored", event_id)
        if session.execute(select(Event.id).where(Event.id == event_id)).one_or_none() is None:
            return _store_known(session, keyring, delivery, now)  # another process has its transmission, for what?
    if transmission and not sent:
        _record_redelivery(session, delivery, now)
    return StoreResult("duplicate", event_id)


def _store_conflict(session: Session, keyring: Keyring, delivery: NewEvent, event_id: str, now: datetime) -> bool:
    """Keep the second body under a known id, parked, beside the first. False if it was already."""
    reason = f"conflict: another body under the known id {delivery.parsed.id}"
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
