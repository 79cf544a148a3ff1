"""Decide what happens to an event that its handler could not process: request a look-up, retry later, or park."""

from datetime import timedelta

import structlog
from sqlalchemy.orm import Session

from pipeline.clock import Clock
from pipeline.crypto.keyring import INDEX, Keyring
from pipeline.crypto.master_key import MasterKey, MasterKeyError
from pipeline.db.engine import Database
from pipeline.errors import place_of
from pipeline.inbox import lookups
from pipeline.inbox import store as inbox
from pipeline.inbox.event import NeedsLookup, ParkEvent, RetryLater

log = structlog.get_logger(__name__)

# Waits before an event is retried after an internal error of its handler. Then it is parked.
RETRY_DELAYS = (
    timedelta(seconds=10),
    timedelta(minutes=1),
    timedelta(minutes=10),
    timedelta(hours=1),
    timedelta(hours=6),
)
LOOKUP_WAIT = timedelta(minutes=1)  # an event that waits for a look-up is retried after this at the latest


class FailedEvents:
    """Decides about failed events, one per transaction. `may_read`: API credentials are set, so look-ups are possible."""

    def __init__(self, database: Database, master_key: MasterKey, clock: Clock, *, may_read: bool) -> None:
        self._database, self._master, self._clock, self._may_read = database, master_key, clock, may_read

    def set_aside(self, id: str, error: Exception) -> None:
        """Postpone or park the event, depending on the handler's error.

        An event that is no longer `received`, or that another worker has locked, is left unchanged. Raises
        MasterKeyError if the master key is wrong.
        """
        with self._database.transaction() as session:
            for row in inbox.lock_received(session, [id]):
                self._decide(session, row, error)

    def _decide(self, session: Session, row: inbox.ReceivedEvent, error: Exception) -> None:
        match error:
            case RetryLater():
                inbox.postpone(session, row.id, self._clock.now() + error.after, error.reason, failed=False)
            case NeedsLookup():
                self._request_lookup(session, row, error)
            case ParkEvent():
                self._park(session, row, error.reason)
            case _:
                if isinstance(error, MasterKeyError):
                    # Raises if the master key itself is wrong, and not only one data key.
                    Keyring(self._master, session, self._clock.now()).system_key(INDEX)
                self._fail(session, row, error)

    def _request_lookup(self, session: Session, row: inbox.ReceivedEvent, wanted: NeedsLookup) -> None:
        if not self._may_read:
            self._park(session, row, f"{wanted}, and no API credentials are set (SMT_PAYPAL_CLIENT_ID and …_SECRET)")
        elif lookups.is_given_up(session, wanted.kind, wanted.id):
            lookups.delete_lookup(session, wanted.kind, wanted.id)  # so that a manual retry requests it again
            self._park(session, row, f"{wanted}, which does not have it")
        elif _was_answered(session, row, wanted):
            # The answer is being handled now, or it lacks the fact too. Another look-up would return the same.
            self._retry_or_park(session, row, f"{wanted}, but the answer does not contain what is missing")
        else:
            now = self._clock.now()
            lookups.enqueue(session, [lookups.LookupRequest(wanted.kind, wanted.id, now)])
            inbox.postpone(
                session, row.id, now + LOOKUP_WAIT, lookups.waiting_reason(wanted.kind, wanted.id), failed=False
            )

    def _fail(self, session: Session, row: inbox.ReceivedEvent, error: Exception) -> None:
        # The error's message may quote personal data, so only its type and place are logged, and its place is stored.
        reason, attempts = f"internal error at {place_of(error)}", row.attempts + 1
        kind = type(error).__name__
        log.error("handler_failed", event_id=row.id, type=row.type, reason=reason, error=kind, attempts=attempts)
        self._retry_or_park(session, row, reason)

    def _retry_or_park(self, session: Session, row: inbox.ReceivedEvent, reason: str) -> None:
        if row.attempts >= len(RETRY_DELAYS):
            self._park(session, row, f"its handler failed {row.attempts + 1} times: {reason}")
        else:
            inbox.postpone(session, row.id, self._clock.now() + RETRY_DELAYS[row.attempts], reason, failed=True)

    def _park(self, session: Session, row: inbox.ReceivedEvent, reason: str) -> None:
        log.warning("event_parked", event_id=row.id, type=row.type, reason=reason)
        inbox.mark_events(session, [row.id], "parked", self._clock.now(), reason)


def _was_answered(session: Session, row: inbox.ReceivedEvent, wanted: NeedsLookup) -> bool:
    """Return whether the event waited for this look-up and PayPal has answered it."""
    waited = row.reason == lookups.waiting_reason(wanted.kind, wanted.id)
    return waited and not lookups.is_pending(session, wanted.kind, wanted.id)
