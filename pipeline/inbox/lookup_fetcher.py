"""Make pending look-ups in PayPal's API, outside any transaction. Each answer enters the inbox as an event."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol, cast

import structlog
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from pipeline.clock import Clock
from pipeline.crypto.keyring import Keyring
from pipeline.crypto.master_key import MasterKey
from pipeline.db.engine import Database, DatabaseUnavailableError
from pipeline.db.models import Payment, PaypalLookup
from pipeline.error_texts import describe
from pipeline.inbox import lookups
from pipeline.inbox import store as inbox
from pipeline.inbox.parsing import NOT_FOUND, event_from_lookup, parse_webhook
from pipeline.paypal.errors import PaypalNotFoundError, PaypalRejectedError, PaypalUnavailableError
from pipeline.paypal.rate_limit import TokenBucket
from pipeline.paypal.requests import SECOND, LookupKind

log = structlog.get_logger(__name__)

LEASE = timedelta(minutes=2)  # longer than two exchanges with PayPal; then another worker may take the look-up
# A webhook can arrive before PayPal's API knows its object (PayPal-node-SDK issue 147), so 404 is no answer for a day.
MISSING_AFTER = timedelta(days=1)
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


@dataclass(frozen=True, slots=True)
class _Due:
    """A look-up that this process makes now."""

    kind: LookupKind
    id: str
    attempts: int
    first_due_at: datetime
    asked_at: datetime


def fetch_due(
    database: Database,
    master_key: MasterKey,
    clock: Clock,
    paypal: PaypalReader,
    limit: int = 20,
    bucket: TokenBucket | None = None,
) -> list[str]:
    """Make the due look-ups. Return the ids of the stored answers, which are to be published.

    At most `limit`, and as many as `bucket` allows, if there is one. Whatever one look-up raises, the others are made.
    Raises DatabaseUnavailableError.
    """
    allowed = bucket.take(limit) if bucket else limit
    with database.transaction() as session:
        rows = _lease_due(session, clock.now(), allowed)
    if bucket:
        bucket.give_back(allowed - len(rows))
    answered: list[str] = []
    for due in rows:
        try:
            answer = _fetch(database, clock, paypal, due, bucket)
            if answer is not None:
                answered += _store_answer(database, master_key, clock, due, *answer)
        except DatabaseUnavailableError:
            raise
        except Exception as error:  # noqa: BLE001 - any error concerns this look-up only
            # The error's message may quote the answer, which contains personal data.
            _postpone(database, due, clock.now(), f"the answer cannot be stored: {describe(error)}")
    return answered


def _lease_due(session: Session, now: datetime, limit: int) -> list[_Due]:
    if limit == 0:
        return []
    due = (
        select(PaypalLookup)
        .where(PaypalLookup.due_at <= now)
        .order_by(PaypalLookup.due_at, PaypalLookup.kind, PaypalLookup.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    rows = list(session.execute(due).scalars())
    for row in rows:
        row.due_at = now + LEASE
    return [_Due(cast("LookupKind", row.kind), row.id, row.attempts, row.first_due_at, now) for row in rows]


def _fetch(
    database: Database, clock: Clock, paypal: PaypalReader, due: _Due, bucket: TokenBucket | None
) -> tuple[LookupKind, dict[str, Any]] | None:
    """Return PayPal's answer and the kind of its object.

    After an error return None, and store when to try again, or that the look-up is given up.
    """
    now = clock.now()
    try:
        return _ask(paypal, due.kind, due.id)
    except PaypalNotFoundError as error:
        if now - due.first_due_at < MISSING_AFTER:
            _postpone(database, due, now, str(error), at_most=due.first_due_at + MISSING_AFTER)
        else:
            _give_up(database, due, now, str(error))
            return _missing_sale(database, due, now)
    except PaypalRejectedError as error:
        if error.concerns_credentials:
            _postpone(database, due, now, str(error))
        else:
            _give_up(database, due, now, str(error))
    except PaypalUnavailableError as error:
        if bucket and error.retry_after:
            bucket.pause(error.retry_after)
        _postpone(database, due, now, str(error))
    return None


def _ask(paypal: PaypalReader, kind: LookupKind, id: str) -> tuple[LookupKind, dict[str, Any]]:
    """Return the object from the first of PayPal's APIs that has it. Raises PaypalNotFoundError if none has."""
    try:
        return kind, paypal.get(kind, id)
    except PaypalNotFoundError:
        if kind not in SECOND:
            raise
        return SECOND[kind], paypal.get(SECOND[kind], id)


def _missing_sale(database: Database, due: _Due, now: datetime) -> tuple[LookupKind, dict[str, Any]] | None:
    """Return the answer that PayPal does not know a stored sale, None for other objects.

    If PayPal does not know a subscription, request look-ups of its sales: whoever forged one may have forged the others.
    """
    with database.transaction() as session:
        if due.kind == "subscription":
            sales = session.execute(select(Payment.id).where(Payment.subscription_id == due.id)).scalars()
            lookups.enqueue(session, [lookups.LookupRequest("sale", id, now) for id in sales])
        if due.kind != "sale" or session.get(Payment, due.id) is None:
            return None
    return "sale", {"id": due.id, "state": NOT_FOUND}


def _store_answer(
    database: Database, master_key: MasterKey, clock: Clock, due: _Due, found: LookupKind, answer: dict[str, Any]
) -> list[str]:
    now, kind, id = clock.now(), due.kind, due.id
    delivery = inbox.NewEvent(parse_webhook(event_from_lookup(found, answer, now)), "read", "read from PayPal's API")
    with database.transaction() as session:
        stored = inbox.store(session, Keyring(master_key, session, now), [delivery], now)
        lookups.complete(session, kind, id, due.asked_at, now)
        released = inbox.release_waiting(session, lookups.waiting_reason(kind, id), now + timedelta(seconds=1))
    log.info("lookup_answered", kind=kind, id=id, outcome=stored[0].outcome, events_released=released)
    return [item.event_id for item in stored if item.publish]


def _give_up(database: Database, due: _Due, now: datetime, reason: str) -> None:
    """End the look-up until it is requested again. The events that wait for it are parked when they are handled next."""
    log.warning("lookup_given_up", kind=due.kind, id=due.id, reason=reason)
    with database.transaction() as session:
        _update_lookup(session, due, due_at=None, reason=reason)
        inbox.release_waiting(session, lookups.waiting_reason(due.kind, due.id), now)


def _postpone(database: Database, due: _Due, now: datetime, reason: str, at_most: datetime | None = None) -> None:
    log.warning("lookup_failed", kind=due.kind, id=due.id, reason=reason)
    due_at = now + RETRY_DELAYS[min(due.attempts, len(RETRY_DELAYS) - 1)]
    with database.transaction() as session:
        _update_lookup(session, due, due_at=min(due_at, at_most or due_at), attempts=due.attempts + 1, reason=reason)


def _update_lookup(session: Session, due: _Due, **values: Any) -> None:
    is_row = (PaypalLookup.kind == due.kind, PaypalLookup.id == due.id)
    session.execute(update(PaypalLookup).where(*is_row).values(**values))
