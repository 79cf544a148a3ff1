"""Mails claimed by a mailer that died."""

from pipeline.clock import Clock
from pipeline.db import presence
from pipeline.db.engine import Database
from pipeline.outbox import store as outbox


def release_stale_claims(database: Database, clock: Clock) -> int:
    """Put the mails that a dead mailer was sending in doubt: each may have gone out or not. Return how many."""
    with database.reading() as session:
        holders = outbox.claim_holders(session)
    freed = 0
    for holder in (holder for holder in holders if not presence.is_held(database, holder)):
        settle_at = clock.now() + outbox.DOUBT_GRACE
        with database.transaction() as session:
            freed += outbox.mark_in_doubt(session, holder, "its mailer died while sending it", settle_at)
    return freed
