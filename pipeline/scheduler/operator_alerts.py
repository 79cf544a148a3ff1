"""Queue mails to the operator about parked events."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from pipeline.clock import Clock, format_time
from pipeline.crypto.keyring import Keyring
from pipeline.crypto.master_key import MasterKey
from pipeline.db.engine import Database
from pipeline.db.models import Event, Mail
from pipeline.outbox import store as outbox

OPERATOR_MAIL_INTERVAL = timedelta(hours=1)  # at least this long between two mails
LISTED = 20  # a mail lists at most this many events, the newest
OVERLAP = timedelta(minutes=10)  # each search reaches this far back again: a row may be committed after its `done_at`


def alert_parked_events(database: Database, master_key: MasterKey, clock: Clock) -> int:
    """Queue one mail about the events parked since the last mail, at most one an hour. Return how many events."""
    with database.transaction() as session:
        now = clock.now()
        keyring = Keyring(master_key, session, now)
        sent_at, listed = _last_alert(session, keyring)
        if sent_at and now - sent_at < OPERATOR_MAIL_INTERVAL:
            return 0
        count, newest = _parked(session, sent_at, listed)
        if count:
            outbox.enqueue(session, keyring, [_alert(count, newest)], now)
    return count


def _last_alert(session: Session, keyring: Keyring) -> tuple[datetime | None, list[str]]:
    """Return when the last alert was queued, and the ids of the events that it listed."""
    last = (
        select(Mail.created_at, Mail.facts)
        .where(Mail.key_id == outbox.OPERATOR, Mail.kind == "event_parked")
        .order_by(Mail.created_at.desc())
        .limit(1)
    )
    for created_at, encrypted in session.execute(last):
        facts = keyring.system_key(outbox.OPERATOR).decrypt_json("mail.facts", encrypted) or {}
        return created_at, [event["id"] for event in facts.get("events", [])]
    return None, []


def _parked(session: Session, since: datetime | None, listed: Sequence[str]) -> tuple[int, Sequence[Any]]:
    """Count the events parked since then, except those already listed.

    Return the count and the newest of them, as rows of id, type, reason, done_at.
    """
    conditions = [Event.state == "parked", Event.id.not_in(listed)]
    if since:
        conditions.append(Event.done_at > since - OVERLAP)
    count = session.execute(select(func.count()).where(*conditions)).scalar_one()
    newest = select(Event.id, Event.type, Event.reason, Event.done_at).where(*conditions).order_by(Event.done_at.desc())
    return count, session.execute(newest.limit(LISTED)).all()


def _alert(count: int, newest: Sequence[Any]) -> outbox.NewMail:
    events = [{"id": row.id, "type": row.type, "reason": row.reason} for row in newest]
    key = f"event_parked:{format_time(newest[0].done_at)}:{newest[0].id}"
    return outbox.NewMail("event_parked", key, None, {"count": count, "events": events})
