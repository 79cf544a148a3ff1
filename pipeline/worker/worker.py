"""Ids of events in; for each its handler, in one transaction with its effects; done, later or parked.

A batch shares one transaction. If one event of it fails, the batch is rolled back and redone, that event alone and its
neighbours together, so a bad event never takes its neighbours with it. The queue is acknowledged only after all of that
is committed.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from pipeline.billing.reminders import Reminders
from pipeline.billing.unit_of_work import Books, Handler
from pipeline.broker import BrokerDown, Inlet
from pipeline.clock import Clock
from pipeline.crypto.keyring import INDEX, TOKENS, Keyring
from pipeline.crypto.master_key import KeyProblem, MasterKey
from pipeline.db.engine import Database, StoreDown
from pipeline.inbox import event as words
from pipeline.inbox import lookups as reads
from pipeline.inbox import store as inbox
from pipeline.inbox.event import Park, Read, TryLater

log = structlog.get_logger(__name__)

BATCH = 200  # events in one transaction; more is hardly faster
PAUSE_SECONDS = 1.0  # before trying again when database or broker is away

# An event whose handler fails (a fault of ours) is tried again after these, then parked.
DELAYS = (
    timedelta(seconds=10),
    timedelta(minutes=1),
    timedelta(minutes=10),
    timedelta(hours=1),
    timedelta(hours=6),
)
ASKED = timedelta(minutes=1)  # how long an event waits for PayPal's answer before it looks again


class _Stumble(Exception):
    """One event of a batch did not get through: which, and what its handler raised."""

    def __init__(self, event_id: str, cause: Exception) -> None:
        super().__init__(event_id)
        self.event_id, self.cause = event_id, cause


class Worker:
    """Handles events. It is given the handlers, and knows none of them."""

    def __init__(
        self,
        database: Database,
        master: MasterKey,
        clock: Clock,
        handlers: Mapping[str, Handler],
        *,
        reminders: Reminders,
        may_read: bool,
        on_mail: Callable[[list[str]], None] = lambda ids: None,
    ) -> None:
        self._database, self._master, self._clock = database, master, clock
        self._handlers, self._reminders = handlers, reminders
        self._may_read, self._on_mail = may_read, on_mail

    def handle(self, ids: Sequence[str]) -> None:
        """Handle these events, those that are still to be handled. Raises StoreDown with nothing half done."""
        for start in range(0, len(ids), BATCH):
            self._handle_batch(list(dict.fromkeys(ids[start : start + BATCH])))

    def _handle_batch(self, ids: Sequence[str]) -> None:
        try:
            with self._database.transaction() as session:
                mails = self._together(session, ids)
        except StoreDown:
            raise
        except Exception as error:  # noqa: BLE001 - a handler may fail in any way, and must not stop the others
            self._redo(ids, error)
            return
        if mails:
            self._on_mail(mails)

    def _redo(self, ids: Sequence[str], error: Exception) -> None:
        """The event that failed alone and its neighbours together; each alone where nobody can tell which it was."""
        event_id, cause = (error.event_id, error.cause) if isinstance(error, _Stumble) else (None, error)
        if len(ids) == 1:
            self._set_aside(ids[0], cause)
        elif event_id is not None:
            self._handle_batch([event_id])
            self._handle_batch([id for id in ids if id != event_id])
        else:
            for id in ids:
                self._handle_batch([id])

    def _together(self, session: Session, ids: Sequence[str]) -> list[str]:
        """Handle them all; the ids of the mails that became due."""
        now = self._clock.now()
        keyring = Keyring(self._master, session, now)
        rows = inbox.load(session, ids)
        keyring.fetch({INDEX, TOKENS, *(row.key_id for row in rows)})
        known = [row for row in rows if row.type in self._handlers]
        unknown = [row.id for row in rows if row.type not in self._handlers]
        mails = self._apply(session, keyring, known)
        inbox.mark(session, [row.id for row in known], "handled", now)
        inbox.mark(session, unknown, "ignored", now, "no handler for this type of event")
        return mails

    def _apply(self, session: Session, keyring: Keyring, rows: Sequence[inbox.ReceivedEvent]) -> list[str]:
        if not rows:
            return []
        events = [inbox.open_event(row, keyring) for row in rows]
        books = Books(session, keyring, self._clock.now(), self._reminders, events)
        for event in sorted(events, key=_by_time):
            try:
                self._handlers[event.type](event, books)
            except (StoreDown, SQLAlchemyError):  # the database's word: `transaction` knows what it means
                raise
            except Exception as error:
                raise _Stumble(event.id, error) from error
        return books.close()

    def _set_aside(self, id: str, error: Exception) -> None:
        """One event alone did not get through: ask, put off or park, as its handler said."""
        with self._database.transaction() as session:
            rows = inbox.load(session, [id])
            if not rows:
                return
            match error:
                case TryLater():
                    inbox.postpone(session, id, self._clock.now() + error.after, error.reason, failed=False)
                case Read():
                    self._ask(session, rows[0], error)
                case Park():
                    self._park(session, rows[0], error.reason)
                case KeyProblem():
                    Keyring(self._master, session, self._clock.now()).own(INDEX)  # raises if it is the master key
                    self._failed(session, rows[0], error)
                case _:
                    self._failed(session, rows[0], error)

    def _ask(self, session: Session, row: inbox.ReceivedEvent, wanted: Read) -> None:
        waiting = reads.waiting_for(wanted.kind, wanted.id)
        if not self._may_read:
            self._park(session, row, f"{wanted}, and no API credentials are set (SMT_PAYPAL_CLIENT_ID and …_SECRET)")
        elif reads.unknown_to_paypal(session, wanted.kind, wanted.id):
            reads.forget(session, wanted.kind, wanted.id)  # who has the event tried again wants it asked again
            self._park(session, row, f"{wanted}, which does not know it")
        elif row.reason == waiting and not reads.is_owed(session, wanted.kind, wanted.id):
            # The answer came and is being handled, or it did not help: ever asking again would be no better.
            self._try_again(session, row, f"{wanted}, whose answer does not tell what is missing")
        else:
            now = self._clock.now()
            reads.owe(session, [reads.Wanted(wanted.kind, wanted.id, now)])
            inbox.postpone(session, row.id, now + ASKED, waiting, failed=False)

    def _park(self, session: Session, row: inbox.ReceivedEvent, reason: str) -> None:
        log.warning("parked", event_id=row.id, type=row.type, reason=reason)
        inbox.mark(session, [row.id], "parked", self._clock.now(), reason)

    def _failed(self, session: Session, row: inbox.ReceivedEvent, error: Exception) -> None:
        # The error's own words may quote personal data: its kind and place are enough to find it.
        reason = f"{type(error).__name__} at {_place(error)}"
        log.error("handler_failed", event_id=row.id, type=row.type, reason=reason, attempts=row.attempts + 1)
        self._try_again(session, row, reason)

    def _try_again(self, session: Session, row: inbox.ReceivedEvent, reason: str) -> None:
        if row.attempts >= len(DELAYS):
            self._park(session, row, f"its handler failed {row.attempts + 1} times: {reason}")
        else:
            inbox.postpone(session, row.id, self._clock.now() + DELAYS[row.attempts], reason, failed=True)


def take(worker: Worker, inlet: Inlet, seconds: float) -> int:
    """Handle what the broker brings within so many seconds; how many events. Raises StoreDown and BrokerDown."""
    batch = inlet.take(BATCH, seconds)
    if batch is None:
        return 0
    worker.handle(batch.ids)
    batch.ack()
    return len(batch.ids)


def serve(worker: Worker, inlet: Inlet, stop: Callable[[float], bool]) -> None:
    """Handle what the broker brings until `stop(seconds)`, which waits, tells to end."""
    while not stop(0):
        try:
            batch = inlet.take(BATCH, 1.0)
            if batch is None:
                continue
            try:
                worker.handle(batch.ids)
            except StoreDown as error:
                log.warning("store_down", reason=str(error))
                stop(PAUSE_SECONDS)
                batch.requeue()
            else:
                batch.ack()
        except BrokerDown as error:
            log.warning("broker_down", reason=str(error))
            stop(PAUSE_SECONDS)


def _by_time(event: words.Event) -> tuple[bool, object, str]:
    """In PayPal's order as far as it is known: not needed for the result, but it makes the history read well."""
    return event.occurred_at is None, event.occurred_at or event.received_at, event.id


def _place(error: BaseException) -> str:
    traceback = error.__traceback__
    while traceback and traceback.tb_next:
        traceback = traceback.tb_next
    return f"{traceback.tb_frame.f_globals.get('__name__')}:{traceback.tb_lineno}" if traceback else "an unknown place"
