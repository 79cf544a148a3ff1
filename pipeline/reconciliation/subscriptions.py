"""Subscriptions whose status PayPal changed, and live ones whose next charge is overdue, are looked up."""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from pipeline.clock import parse_time
from pipeline.db.bulk import in_list
from pipeline.db.models import Subscription
from pipeline.inbox import lookups
from pipeline.inbox.lookups import LookupRequest
from pipeline.paypal import listings
from pipeline.paypal.api import PaypalApi
from pipeline.paypal.errors import PaypalNotFoundError, PaypalRejectedError

OVERDUE = timedelta(days=1)  # after the billing time, a charge or its failure has been reported
SLOW_CLOCK = timedelta(seconds=1)  # PayPal's list may round a time that its event names exactly


def changed(paypal: PaypalApi, since: datetime, until: datetime) -> list[dict[str, Any]] | None:
    """Return the subscriptions that PayPal changed in this period, None if the account does not offer the list."""
    try:
        return [
            each for each in listings.changed_subscriptions(paypal, since, until) if isinstance(each.get("id"), str)
        ]
    except (PaypalNotFoundError, PaypalRejectedError):
        return None


def request_drifted(session: Session, listed: list[dict[str, Any]], now: datetime) -> int:
    """Look up those that are unknown here, or have another status. Return how many."""
    ids = [each["id"] for each in listed]
    rows = {row.id: row for row in session.execute(select(Subscription).where(in_list(Subscription.id, ids))).scalars()}
    drifted = [each["id"] for each in listed if _differs(each, rows.get(each["id"]))]
    lookups.enqueue(session, [LookupRequest("subscription", id, now, now) for id in drifted])
    return len(drifted)


def request_overdue(session: Session, now: datetime) -> int:
    """Look up the live subscriptions whose next charge was due a day ago. Return how many."""
    due = Subscription.status == "ACTIVE", Subscription.next_billing_at <= now - OVERDUE
    ids = list(session.execute(select(Subscription.id).where(*due)).scalars())
    lookups.enqueue(session, [LookupRequest("subscription", id, now, now) for id in ids])
    return len(ids)


def _differs(listed: dict[str, Any], row: Subscription | None) -> bool:
    if row is None or row.status is None:
        return True
    changed_at = parse_time(listed.get("status_update_time"))
    is_newer = changed_at is None or row.status_at is None or changed_at > row.status_at + SLOW_CLOCK
    return is_newer and listed.get("status") != row.status
