"""Events for the command line: the list, one event with all its data, and why an event cannot be retried."""

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


def events(session: Session, query: ListQuery) -> Iterator[Json]:
    """Yield `id, type, state, source, received_at, reason`."""
    for chunk in chunks(session, matching(select(*EVENT), Event, Event.received_at, query)):
        for row in chunk:
            yield {**row._asdict(), "received_at": format_time(row.received_at)}


def event(decryptor: Decryptor, id: str) -> Json | None:
    """Return one event: the list's fields, signature verdict, facts, status changes, and the decrypted person and body.

    Person and body are null if their key has been erased.
    """
    row = decryptor.session.get(Event, id)
    if row is None:
        return None
    data_key = decryptor.data_keys([row.key_id]).get(row.key_id)
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
        "erased": data_key is None,
        "person": data_key.decrypt_json("event.personal_data", row.personal_data) if data_key else None,
        "body": _body(data_key.decrypt("event.body", row.body)) if data_key and row.body else None,
        "changes": status_changes(decryptor.session, StatusHistoryEntry.event_id == id),
    }


def retry_refusal(session: Session, id: str) -> str:
    """Return the reason why this known event was not queued for a retry."""
    row = session.execute(select(Event.type, Event.state).where(Event.id == id)).one()
    if row.type == UNREADABLE:
        return "its body could not be parsed; import the event once PayPal's API returns a valid body"
    if is_conflict(id):
        return f"it is a second body for event {id.partition('~')[0]}; only the first body is used"
    if row.state == "handled":
        return "it was handled already; handling it again would change nothing"
    return f"it is {row.state} and will be handled without a retry"


def _body(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return body.decode("utf-8", "replace")
