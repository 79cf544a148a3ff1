"""Look-ups of events: the list, one event with everything about it, and why an event is not replayed."""

from collections.abc import Iterator
from typing import Any

import orjson
from sqlalchemy import select
from sqlalchemy.orm import Session

from pipeline.clock import format_time, write_optional
from pipeline.db.models import Event, StatusHistoryEntry
from pipeline.inbox.parsing import UNREADABLE
from pipeline.inbox.store import is_conflict
from pipeline.queries.listing import Decryptor, Json, ListQuery, chunks, matching, status_changes

EVENT = (Event.id, Event.type, Event.state, Event.source, Event.received_at, Event.reason)


def events(session: Session, asked: ListQuery) -> Iterator[Json]:
    """`id, type, state, source, received_at, reason`."""
    for chunk in chunks(session, matching(select(*EVENT), Event, Event.received_at, asked)):
        for row in chunk:
            yield {**row._asdict(), "received_at": format_time(row.received_at)}


def event(lens: Decryptor, id: str) -> Json | None:
    """All of one event: the list's fields, its verdict, facts, person and body as far as they open, and its changes."""
    row = lens.session.get(Event, id)
    if row is None:
        return None
    seal = lens.data_keys([row.key_id]).get(row.key_id)
    return {
        **{name.key: getattr(row, name.key) for name in EVENT},
        "received_at": format_time(row.received_at),
        "occurred_at": write_optional(row.occurred_at),
        "due_at": write_optional(row.due_at),
        "done_at": write_optional(row.done_at),
        "attempts": row.attempts,
        "verdict": row.signature_verdict,
        "transmission_id": row.transmission_id,
        "label": row.key_id,
        "body_sha256": row.body_sha256,
        "facts": row.facts,
        "erased": seal is None,
        "person": seal.decrypt_json("event.personal_data", row.personal_data) if seal else None,
        "body": _body(seal.decrypt("event.body", row.body)) if seal and row.body else None,
        "changes": status_changes(lens.session, StatusHistoryEntry.event_id == id),
    }


def retry_refusal(session: Session, id: str) -> str:
    """Why this event was not put back."""
    row = session.execute(select(Event.type, Event.state).where(Event.id == id)).one_or_none()
    if row is None:
        return "there is no such event"
    if row.type == UNREADABLE:
        return (
            "its body could not be read, so there is nothing to handle; import it when PayPal's API shows it readable"
        )
    if is_conflict(id):
        return f"it is a second body under the id {id.partition('~')[0]}; only the first counts"
    if row.state == "handled":
        return "it was handled, and its effects are in the books; handling it again would change nothing"
    return f"it is {row.state} and will be handled"


def _body(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return body.decode("utf-8", "replace")
