"""Inbox recovery: processes due events that no broker message delivered, by polling the table.

These are retries, imported events, answers to look-ups and, while the broker delivers nothing, new webhooks too. Events
are not claimed: a worker locks an event's row while it handles it. So no event is handled twice at the same time, and a
recovery that dies blocks nothing.
"""

from collections.abc import Callable

import structlog

from pipeline.clock import Clock
from pipeline.db.engine import Database, DatabaseUnavailableError
from pipeline.inbox import store as inbox
from pipeline.worker.worker import BATCH, Worker

log = structlog.get_logger(__name__)

POLL_SECONDS = 1.0
QUIET_SECONDS = 3.0  # a broker that has delivered nothing for this long may be down, or may have lost its messages


class InboxRecovery:
    """Polls the inbox. `quiet_seconds` returns how long the broker has delivered no message."""

    def __init__(self, worker: Worker, database: Database, clock: Clock, quiet_seconds: Callable[[], float]) -> None:
        self._worker, self._database, self._clock = worker, database, clock
        self._quiet_seconds = quiet_seconds

    def run(self, stop: Callable[[float], bool]) -> None:
        """Poll every second, and again at once after a full batch, until `stop` returns True.

        `stop(seconds)` waits up to that long.
        """
        done = 0
        while not stop(0 if done == BATCH else POLL_SECONDS):
            try:
                done = self.once()
            except DatabaseUnavailableError as error:
                done = 0
                log.warning("store_down", reason=str(error))

    def once(self) -> int:
        """Handle one batch of due events. Return how many. Raises DatabaseUnavailableError."""
        quiet = self._quiet_seconds() >= QUIET_SECONDS
        with self._database.reading() as session:
            ids = inbox.due_event_ids(session, self._clock.now(), BATCH, untried=quiet)
        self._worker.handle(ids)
        return len(ids)
