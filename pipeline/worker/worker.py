"""Run the handlers of a batch of events, in one transaction with their effects.

If events fail, the batch is rolled back and handled again: each of those alone, the others together. So a failing event
does not affect the others. The broker messages are acknowledged after the commit.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from pipeline.billing.reminders import ReminderPolicy
from pipeline.billing.unit_of_work import Handler, UnitOfWork
from pipeline.broker import Batch, BrokerUnavailableError, Consumer
from pipeline.clock import Clock
from pipeline.crypto.keyring import INDEX, TOKENS, Keyring
from pipeline.crypto.master_key import MasterKey
from pipeline.db.engine import Database, DatabaseUnavailableError
from pipeline.inbox import store as inbox
from pipeline.inbox.event import Event
from pipeline.inbox.kept_types import ignored_reason
from pipeline.worker.failed_events import FailedEvents

log = structlog.get_logger(__name__)

BATCH = 200  # events in one transaction; larger batches are hardly faster
PAUSE_SECONDS = 1.0  # wait before the next attempt while the database or the broker is down


class _EventsFailedError(Exception):
    """Handlers of a batch raised: the error of each failed event by its id."""

    def __init__(self, causes: Mapping[str, Exception]) -> None:
        super().__init__(*causes)
        self.causes = causes


class Worker:
    """Runs `handlers` (event type -> function) for events.

    `may_read`: API credentials are set, so look-ups are possible. Events that report something further ahead of their
    reception than `max_ahead` are parked. `on_mail` receives the ids of mails that became due.
    """

    def __init__(
        self,
        database: Database,
        master_key: MasterKey,
        clock: Clock,
        handlers: Mapping[str, Handler],
        *,
        reminders: ReminderPolicy,
        may_read: bool,
        max_ahead: timedelta = timedelta(days=1),
        on_mail: Callable[[list[str]], None] = lambda ids: None,
    ) -> None:
        self._database, self._master, self._clock = database, master_key, clock
        self._handlers, self._reminders, self._on_mail = handlers, reminders, on_mail
        self._may_read, self._max_ahead = may_read, max_ahead
        self._failed_events = FailedEvents(database, master_key, clock, may_read=may_read)

    def handle(self, ids: Sequence[str]) -> None:
        """Handle these events, except those that are no longer `received` or that another worker has locked.

        Raises DatabaseUnavailableError; an unfinished batch is rolled back.
        """
        for start in range(0, len(ids), BATCH):
            self._handle_batch(list(dict.fromkeys(ids[start : start + BATCH])))

    def _handle_batch(self, ids: Sequence[str]) -> None:
        try:
            with self._database.transaction() as session:
                mails = self._handle_batch_once(session, ids)
        except DatabaseUnavailableError:
            raise
        except Exception as error:  # noqa: BLE001 - a handler may fail in any way, and must not stop the others
            self._isolate_failure(ids, error)
            return
        if mails:
            self._on_mail(mails)

    def _isolate_failure(self, ids: Sequence[str], error: Exception) -> None:
        """Handle each failed event alone and the others together; each alone if the failed events are unknown."""
        causes = error.causes if isinstance(error, _EventsFailedError) else {}
        if len(ids) == 1:
            self._failed_events.set_aside(ids[0], causes.get(ids[0], error))
            return
        for id in causes or ids:
            self._handle_batch([id])
        if causes and (others := [id for id in ids if id not in causes]):
            self._handle_batch(others)

    def _handle_batch_once(self, session: Session, ids: Sequence[str]) -> list[str]:
        """Handle the events in one transaction. Return the ids of the mails that became due."""
        now = self._clock.now()
        keyring = Keyring(self._master, session, now)
        rows = inbox.lock_received(session, ids)
        keyring.load({INDEX, TOKENS, *(row.key_id for row in rows)})
        known = [row for row in rows if row.type in self._handlers]
        mails = self._apply(session, keyring, known)
        inbox.mark_events(session, [row.id for row in known], "handled", now)
        for reason, ignored in _by_reason([row for row in rows if row.type not in self._handlers]).items():
            inbox.mark_events(session, ignored, "ignored", now, reason)
        return mails

    def _apply(self, session: Session, keyring: Keyring, rows: Sequence[inbox.ReceivedEvent]) -> list[str]:
        if not rows:
            return []
        events = [inbox.open_event(row, keyring) for row in rows]
        uow = UnitOfWork(session, keyring, self._clock.now(), self._reminders, events, may_read=self._may_read)
        # After a failure the batch is rolled back. The other handlers still run, so that one pass finds all failures.
        ordered = sorted(events, key=_by_time)
        causes = {event.id: error for event in ordered if (error := self._error_of(event, uow)) is not None}
        if causes:
            raise _EventsFailedError(causes)
        return uow.flush()

    def _error_of(self, event: Event, uow: UnitOfWork) -> Exception | None:
        """Run the event's handler. Return the error that it raised, if any."""
        uow.is_history = event.source == inbox.HISTORY
        try:
            event.require_past(self._max_ahead)
            self._handlers[event.type](event, uow)
        except (DatabaseUnavailableError, SQLAlchemyError):  # `Database.transaction` handles these
            raise
        except Exception as error:  # noqa: BLE001 - a handler may raise anything
            return error
        return None


def consume_once(worker: Worker, consumer: Consumer, seconds: float) -> int:
    """Handle one batch of events, waiting up to `seconds` for it. Return how many events.

    Raises DatabaseUnavailableError and BrokerUnavailableError.
    """
    batch = consumer.receive(BATCH, seconds)
    if batch is None:
        return 0
    worker.handle(batch.ids)
    batch.ack()
    return len(batch.ids)


def consume_until_stopped(worker: Worker, consumer: Consumer, stop: Callable[[float], bool]) -> None:
    """Handle the events that the broker delivers, until `stop` returns True. `stop(seconds)` waits up to that long."""
    while not stop(0):
        try:
            batch = consumer.receive(BATCH, 1.0)
            if batch is not None:
                _handle_or_requeue(worker, batch, stop)
        except BrokerUnavailableError as error:
            log.warning("broker_down", reason=str(error))
            stop(PAUSE_SECONDS)


def _handle_or_requeue(worker: Worker, batch: Batch, stop: Callable[[float], bool]) -> None:
    """Handle and acknowledge a batch. While the database is down, wait and requeue it.

    Raises BrokerUnavailableError.
    """
    try:
        worker.handle(batch.ids)
    except DatabaseUnavailableError as error:
        log.warning("store_down", reason=str(error))
        stop(PAUSE_SECONDS)
        batch.requeue()
    else:
        batch.ack()


def _by_reason(rows: Sequence[inbox.ReceivedEvent]) -> dict[str, list[str]]:
    """Return the ids of events without a handler, by the reason why they change nothing."""
    found: dict[str, list[str]] = {}
    for row in rows:
        found.setdefault(ignored_reason(row.type), []).append(row.id)
    return found


def _by_time(event: Event) -> tuple[bool, object, str]:
    """Return a sort key by PayPal's time. The result does not depend on the order, but the status history does."""
    return event.occurred_at is None, event.occurred_at or event.received_at, event.id
