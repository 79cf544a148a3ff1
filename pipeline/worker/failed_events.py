"""What becomes of an event that its handler did not handle: ask PayPal, try again later, or park."""

from datetime import timedelta

import structlog
from sqlalchemy.orm import Session

from pipeline.clock import Clock
from pipeline.crypto.keyring import INDEX, Keyring
from pipeline.crypto.master_key import MasterKey, MasterKeyError
from pipeline.db.engine import Database
from pipeline.inbox import lookups
from pipeline.inbox import store as inbox
from pipeline.inbox.event import NeedsLookup, ParkEvent, RetryLater

log = structlog.get_logger(__name__)

# An event whose handler fails (an internal error) is tried again after these, then parked.
RETRY_DELAYS = (
    timedelta(seconds=10),
    timedelta(minutes=1),
    timedelta(minutes=10),
    timedelta(hours=1),
    timedelta(hours=6),
)
LOOKUP_WAIT = timedelta(minutes=1)  # how long an event waits for PayPal's answer before it is tried again


class FailedEvents:
    """Decides about one event at a time, in a transaction of its own. `may_read`: PayPal may be asked."""

    def __init__(self, database: Database, master_key: MasterKey, clock: Clock, *, may_read: bool) -> None:
        self._database, self._master, self._clock, self._may_read = database, master_key, clock, may_read

    def set_aside(self, id: str, error: Exception) -> None:
        """Do what the handler's error asks for. An event that is no longer received, or that another worker holds, is
        left as it is. Raises KeyProblem if the master key is wrong."""
        with self._database.transaction() as session:
            for row in inbox.lock_received(session, [id]):
                self._dispose(session, row, error)

    def _dispose(self, session: Session, row: inbox.ReceivedEvent, error: Exception) -> None:
        match error:
            case RetryLater():
                inbox.postpone(session, row.id, self._clock.now() + error.after, error.reason, failed=False)
            case NeedsLookup():
                self._ask(session, row, error)
            case ParkEvent():
                self._park(session, row, error.reason)
            case _:
                if isinstance(error, MasterKeyError):
                    Keyring(self._master, session, self._clock.now()).system_key(
                        INDEX
                    )  # raises if it is the master key
                self._fail(session, row, error)

    def _ask(self, session: Session, row: inbox.ReceivedEvent, wanted: NeedsLookup) -> None:
        if not self._may_read:
            self._park(session, row, f"{wanted}, and no API credentials are set (SMT_PAYPAL_CLIENT_ID and …_SECRET)")
        elif lookups.is_known_missing(session, wanted.kind, wanted.id):
            lookups.delete_lookup(session, wanted.kind, wanted.id)  # when the event is retried, PayPal is asked again
            self._park(session, row, f"{wanted}, which does not know it")
        elif _was_answered(session, row, wanted):
            # The answer is being handled now, or it did not help: to ask again and again would be no better.
            self._try_again(session, row, f"{wanted}, whose answer does not tell what is missing")
        else:
            now = self._clock.now()
            lookups.enqueue(session, [lookups.LookupRequest(wanted.kind, wanted.id, now)])
            inbox.postpone(
                session, row.id, now + LOOKUP_WAIT, lookups.waiting_reason(wanted.kind, wanted.id), failed=False
            )

    def _fail(self, session: Session, row: inbox.ReceivedEvent, error: Exception) -> None:
        # The error's own words may quote personal data: its kind and place are enough to find it.
        reason = f"{type(error).__name__} at {_place(error)}"
        log.error("handler_failed", event_id=row.id, type=row.type, reason=reason, attempts=row.attempts + 1)
        self._try_again(session, row, reason)

    def _try_again(self, session: Session, row: inbox.ReceivedEvent, reason: str) -> None:
        if row.attempts >= len(RETRY_DELAYS):
            self._park(session, row, f"its handler failed {row.attempts + 1} times: {reason}")
        else:
            inbox.postpone(session, row.id, self._clock.now() + RETRY_DELAYS[row.attempts], reason, failed=True)

    def _park(self, session: Session, row: inbox.ReceivedEvent, reason: str) -> None:
        log.warning("parked", event_id=row.id, type=row.type, reason=reason)
        inbox.mark_events(session, [row.id], "parked", self._clock.now(), reason)


def _was_answered(session: Session, row: inbox.ReceivedEvent, wanted: NeedsLookup) -> bool:
    """Return whether the event waited for this look-up, and PayPal has answered it."""
    waited = row.reason == lookups.waiting_reason(wanted.kind, wanted.id)
    return waited and not lookups.is_pending(session, wanted.kind, wanted.id)


def _place(error: BaseException) -> str:
    """Return the module and line that raised the error."""
    traceback = error.__traceback__
    while traceback and traceback.tb_next:
        traceback = traceback.tb_next
    return f"{traceback.tb_frame.f_globals.get('__name__')}:{traceback.tb_lineno}" if traceback else "an unknown place"
