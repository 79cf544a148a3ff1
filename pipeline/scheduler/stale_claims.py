"""Release mails that were claimed by a mailer that died."""

from pipeline.clock import Clock
from pipeline.db import presence
from pipeline.db.engine import Database
from pipeline.outbox import store as outbox


def release_stale_claims(database: Database, clock: Clock) -> int:
    """Mark mails claimed by dead mailers as in doubt: each may have been sent or not. Return how many."""
    with database.reading() as session:
        holders = outbox.claim_holders(session)
    marked = 0
    for holder in (holder for holder in holders if not presence.is_held(database, holder)):
        resolve_at = clock.now() + outbox.DOUBT_GRACE
        with database.transaction() as session:
            marked += outbox.mark_in_doubt(session, holder, "its mailer died while sending it", resolve_at)
    return marked
