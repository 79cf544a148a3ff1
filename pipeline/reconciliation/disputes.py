"""Disputes whose next event may be lost are looked up, and the money of won disputes until PayPal has returned it.

https://developer.paypal.com/docs/disputes/
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from pipeline.billing.unit_of_work import INEFFECTIVE_REFUND_STATES
from pipeline.db import lww_map
from pipeline.db.models import Dispute, Refund
from pipeline.inbox import lookups
from pipeline.inbox.lookups import LookupRequest
from pipeline.money import Money, format_money
from pipeline.reconciliation.exceptions import Difference

# PayPal's outcome codes that leave the money with the seller.
WON = ("RESOLVED_SELLER_FAVOUR", "RESOLVED_WITH_PAYOUT")
RETURNED_AFTER = timedelta(days=7)  # a reversal that still stands then needs PayPal's support
WATCHED_FOR = timedelta(days=90)


def request_open(session: Session, now: datetime) -> int:
    """Look up the disputes that have not ended: the event of a new deadline or of the outcome may be lost. Return how many."""
    ids = list(session.execute(select(Dispute.id).where(Dispute.resolved_at.is_(None))).scalars())
    lookups.enqueue(session, [LookupRequest("dispute", id, now, now) for id in ids])
    return len(ids)


def request_unreturned(session: Session, now: datetime) -> list[Difference]:
    """Look up the reversals of won disputes that still stand. PayPal sends no event when it returns the money.

    Return those that have stood for RETURNED_AFTER.
    """
    late = []
    for dispute, reversal in _unreturned(session, now):
        lookups.enqueue(session, [LookupRequest("refund", reversal.id, now, now)])
        if now - dispute.resolved_at >= RETURNED_AFTER:
            money = format_money(Money(reversal.amount, reversal.currency))
            reason = f"won on {dispute.resolved_at:%Y-%m-%d}, but PayPal has not returned {money} ({reversal.id})"
            late.append(Difference("dispute", dispute.id, reason))
    return late


def _unreturned(session: Session, now: datetime) -> Iterator[tuple[Any, Any]]:
    won = (
        select(Dispute, Refund)
        .join(Refund, Refund.payment_id == Dispute.payment_id)
        .where(Dispute.outcome.in_(WON), Dispute.resolved_at > now - WATCHED_FOR, Refund.kind == "reversal")
        # Another reversal of the same payment belongs to another dispute.
        .where(Refund.occurred_at <= Dispute.resolved_at, Refund.amount == Dispute.amount)
        .where(Refund.occurred_at >= Dispute.opened_at)
    )
    for dispute, refund in session.execute(won):
        if lww_map.value(refund.known, "state") not in INEFFECTIVE_REFUND_STATES:
            yield dispute, refund
