"""Webhook events that never arrived enter the inbox. PayPal lists those of the last 30 days."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import orjson
import structlog
from sqlalchemy import select

from pipeline.clock import Clock
from pipeline.crypto.keyring import Keyring
from pipeline.crypto.master_key import MasterKey
from pipeline.db.bulk import in_list
from pipeline.db.engine import Database
from pipeline.db.models import Event
from pipeline.inbox import store as inbox
from pipeline.inbox.parsing import UNREADABLE, parse_webhook
from pipeline.inbox.store import NewEvent
from pipeline.paypal import listings
from pipeline.paypal.api import PaypalApi

log = structlog.get_logger(__name__)

VERDICT = "from PayPal's list of webhook events"


def import_missing(
    database: Database, master_key: MasterKey, clock: Clock, paypal: PaypalApi, since: datetime, until: datetime
) -> tuple[int, int]:
    """Store the events of this period that are unknown here. Return how many PayPal listed, and how many were missing.

    A worker handles them like webhooks. An entry that is no event is stored as unreadable, and parked.
    """
    listed = missing = 0
    for page in _groups(listings.webhook_events(paypal, since, until)):
        listed += len(page)
        unknown = _unknown(database, page)
        with database.transaction() as session:
            now = clock.now()
            found = inbox.store(session, Keyring(master_key, session, now), unknown, now)
        missing += sum(each.outcome == "stored" for each in found)
    return listed, missing


def _unknown(database: Database, page: Sequence[dict[str, Any]]) -> list[NewEvent]:
    """Return the events that are not stored. A known one is not compared: PayPal updates the resource in its list."""
    bodies = [body for each in page if (body := _body(each))]
    events = [NewEvent(parse_webhook(body), "import", VERDICT) for body in bodies]
    with database.reading() as session:
        ids = [each.parsed.id for each in events]
        known = set(session.execute(select(Event.id).where(in_list(Event.id, ids))).scalars())
    return [each for each in events if each.parsed.id not in known and each.parsed.type != UNREADABLE]


def _body(event: dict[str, Any]) -> bytes | None:
    """Return the event as JSON, None if it is nested so deeply that nobody can write or read it."""
    try:
        return orjson.dumps(event)
    except TypeError as error:
        log.warning("listed_event_unreadable", reason=str(error))
        return None


def _groups(items: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    group: list[dict[str, Any]] = []
    for item in items:
        group.append(item)
        if len(group) == listings.EVENTS_PAGE:
            yield group
            group = []
    if group:
        yield group
