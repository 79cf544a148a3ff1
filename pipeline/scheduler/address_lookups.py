"""Ask PayPal once about subscribers whose mail waits for an address for an hour.

As a rule the event with the address was lost. If PayPal's answer has no address either, the mail stays visible: `doctor`,
the metrics and the operator's mail count it.
"""

from datetime import timedelta

from sqlalchemy import select

from pipeline.clock import Clock
from pipeline.db.engine import Database
from pipeline.db.models import Mail
from pipeline.inbox import lookups

WAIT = timedelta(hours=1)
LIMIT = 500  # mails per run; the next run takes the rest
ASKED = "no address is known; PayPal was asked"  # reason of the mail, so that PayPal is asked once


def request_addresses(database: Database, clock: Clock) -> int:
    """Request the look-ups. Return the number of mails that wait for them."""
    with database.transaction() as session:
        now = clock.now()
        waiting = (
            select(Mail)
            .where(Mail.state == "queued", Mail.due_at.is_(None), Mail.reason.is_(None), Mail.created_at <= now - WAIT)
            .where(Mail.subscription_id.is_not(None))
            .order_by(Mail.created_at)
            .limit(LIMIT)
            .with_for_update(skip_locked=True)
        )
        mails = list(session.execute(waiting).scalars())
        ids = sorted({mail.subscription_id for mail in mails if mail.subscription_id})
        lookups.enqueue(session, [lookups.LookupRequest("subscription", id, now) for id in ids])
        for mail in mails:
            mail.reason = ASKED
    return len(mails)
