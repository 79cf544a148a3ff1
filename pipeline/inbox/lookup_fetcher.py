"""Make pending look-ups in PayPal's API, outside any transaction. Each answer enters the inbox as an event."""

from datetime import datetime, timedelta
from typing import Any, Protocol

import structlog
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from pipeline.clock import Clock
from pipeline.crypto.keyring import Keyring
from pipeline.crypto.master_key import MasterKey
from pipeline.db.engine import Database
from pipeline.db.models import PaypalLookup
from pipeline.inbox import lookups
from pipeline.inbox import store as inbox
from pipeline.inbox.parsing import event_from_lookup, parse_webhook
from pipeline.paypal.errors import PaypalNotFoundError, PaypalRejectedError, PaypalUnavailableError
from pipeline.paypal.requests import LookupKind

log = structlog.get_logger(__name__)

LEASE = timedelta(minutes=2)  # longer than the timeouts of a call; then another worker may take the look-up
AUTH_ERROR_STATUSES = (401, 403)  # these concern the credentials and not the object, so the look-up is retried
# Waits after failed attempts; the last one repeats. They are long because PayPal asks clients not to poll.
RETRY_DELAYS = (
    timedelta(minutes=1),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=3),
    timedelta(days=1),
)


class PaypalReader(Protocol):
    """The part of PayPal's API client that look-ups need."""

    def get(self, kind: LookupKind, id: str) -> dict[str, Any]: ...


def fetch_due(
    database: Database, master_key: MasterKey, clock: Clock, paypal: PaypalReader, limit: int = 20
) -> list[str]:
    """Make the due look-ups. Return the ids of the stored answers, which are to be published."""
    with database.transaction() as session:
        rows = _lease_due(session, clock.now(), limit)
    answered: list[str] = []
    for kind, id, attempts in rows:
        answer = _fetch(database, clock, paypal, kind, id, attempts)
        if answer is not None:
            answered += _store_answer(database, master_key, clock, kind, id, answer)
    return answered


def _lease_due(session: Session, now: datetime, limit: int) -> list[tuple[LookupKind, str, int]]:
    due = (
        select(PaypalLookup)
        .where(PaypalLookup.due_at <= now)
        .order_by(PaypalLookup.due_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    rows = list(session.execute(due).scalars())
    for row in rows:
        row.due_at = now + LEASE
    return [(row.kind, row.id, row.attempts) for row in rows]  # type: ignore[misc]


def _fetch(
    database: Database, clock: Clock, paypal: PaypalReader, kind: LookupKind, id: str, attempts: int
) -> dict[str, Any] | None:
    """Return PayPal's answer. After an error return None, and store when to try again, or that the look-up is refused."""
    try:
        return paypal.get(kind, id)
    except (PaypalNotFoundError, PaypalRejectedError) as error:
        if isinstance(error, PaypalRejectedError) and error.status in AUTH_ERROR_STATUSES:
            _postpone(database, kind, id, attempts, clock.now(), str(error))
        else:
            _mark_refused(database, kind, id, str(error))
    except PaypalUnavailableError as error:
        _postpone(database, kind, id, attempts, clock.now(), str(error))
    return None


def _store_answer(
    database: Database, master_key: MasterKey, clock: Clock, kind: LookupKind, id: str, answer: dict[str, Any]
) -> list[str]:
    now = clock.now()
    delivery = inbox.NewEvent(parse_webhook(event_from_lookup(kind, answer, now)), "read", "read from PayPal's API")
    with database.transaction() as session:
        stored = inbox.store(session, Keyring(master_key, session, now), [delivery], now)
        lookups.delete_lookup(session, kind, id)
        released = inbox.release_waiting(session, lookups.waiting_reason(kind, id), now + timedelta(seconds=1))
    log.info("lookup_answered", kind=kind, id=id, outcome=stored[0].outcome, events_released=released)
    return [item.event_id for item in stored if item.publish]


def _mark_refused(database: Database, kind: str, id: str, reason: str) -> None:
    log.warning("lookup_refused", kind=kind, id=id, reason=reason)
    _update_lookup(database, kind, id, due_at=None, reason=reason)


def _postpone(database: Database, kind: str, id: str, attempts: int, now: datetime, reason: str) -> None:
    log.warning("lookup_failed", kind=kind, id=id, reason=reason)
    due_at = now + RETRY_DELAYS[min(attempts, len(RETRY_DELAYS) - 1)]
    _update_lookup(database, kind, id, due_at=due_at, attempts=attempts + 1, reason=reason)


def _update_lookup(database: Database, kind: str, id: str, **values: Any) -> None:
    with database.transaction() as session:
        session.execute(update(PaypalLookup).where(PaypalLookup.kind == kind, PaypalLookup.id == id).values(**values))
