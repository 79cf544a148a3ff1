"""Ask PayPal for what the look-ups name, outside any transaction. Each answer enters the inbox as an event."""

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

LEASE = timedelta(minutes=2)  # longer than a call's time-outs: another worker may ask after that
AUTH_ERROR_STATUSES = (401, 403)  # refusals that say nothing of the object: the operator has to correct the credentials
# PayPal asks not to be polled; a look-up that fails is tried again after these, then daily.
DELAYS = (timedelta(minutes=1), timedelta(minutes=5), timedelta(minutes=30), timedelta(hours=3), timedelta(days=1))


class PaypalReader(Protocol):
    """PayPal's API, as far as look-ups need it."""

    def get(self, kind: LookupKind, id: str) -> dict[str, Any]: ...


def fetch_due(
    database: Database, master_key: MasterKey, clock: Clock, paypal: PaypalReader, limit: int = 20
) -> list[str]:
    """Ask PayPal for what is due. Return the ids of the events that the answers became."""
    with database.transaction() as session:
        rows = _take(session, clock.now(), limit)
    answered: list[str] = []
    for kind, id, attempts in rows:
        answer = _ask(database, clock, paypal, kind, id, attempts)
        if answer is not None:
            answered += _take_in(database, master_key, clock, kind, id, answer)
    return answered


def _take(session: Session, now: datetime, limit: int) -> list[tuple[LookupKind, str, int]]:
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


def _ask(
    database: Database, clock: Clock, paypal: PaypalReader, kind: LookupKind, id: str, attempts: int
) -> dict[str, Any] | None:
    """Return PayPal's answer. Without one, return None and note when to ask again, or that asking is no use."""
    try:
        return paypal.get(kind, id)
    except (PaypalNotFoundError, PaypalRejectedError) as error:
        if isinstance(error, PaypalRejectedError) and error.status in AUTH_ERROR_STATUSES:
            _ask_again(database, kind, id, attempts, clock.now(), str(error))
        else:
            _give_up(database, kind, id, str(error))
    except PaypalUnavailableError as error:
        _ask_again(database, kind, id, attempts, clock.now(), str(error))
    return None


def _take_in(
    database: Database, master_key: MasterKey, clock: Clock, kind: LookupKind, id: str, answer: dict[str, Any]
) -> list[str]:
    now = clock.now()
    delivery = inbox.NewEvent(parse_webhook(event_from_lookup(kind, answer, now)), "read", "read from PayPal's API")
    with database.transaction() as session:
        stored = inbox.store(session, Keyring(master_key, session, now), [delivery], now)
        lookups.delete_lookup(session, kind, id)
        woken = inbox.release_waiting(session, lookups.waiting_reason(kind, id), now + timedelta(seconds=1))
    log.info("read", kind=kind, id=id, outcome=stored[0].outcome, woken=woken)
    return [item.event_id for item in stored if item.publish]


def _give_up(database: Database, kind: str, id: str, reason: str) -> None:
    log.warning("read_refused", kind=kind, id=id, reason=reason)
    _set(database, kind, id, due_at=None, reason=reason)


def _ask_again(database: Database, kind: str, id: str, attempts: int, now: datetime, reason: str) -> None:
    log.warning("read_failed", kind=kind, id=id, reason=reason)
    due_at = now + DELAYS[min(attempts, len(DELAYS) - 1)]
    _set(database, kind, id, due_at=due_at, attempts=attempts + 1, reason=reason)


def _set(database: Database, kind: str, id: str, **values: Any) -> None:
    with database.transaction() as session:
        session.execute(update(PaypalLookup).where(PaypalLookup.kind == kind, PaypalLookup.id == id).values(**values))
