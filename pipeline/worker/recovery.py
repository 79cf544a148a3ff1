"""What waits in the inbox and no message brings: handled straight from the table.

That are events to be tried again, events taken in by other ways than a webhook, and, while the broker brings nothing,
all those that nobody has tried. Nothing is claimed: whoever handles an event locks its row meanwhile. So two sweeps, or
a sweep and a message, handle nothing twice, and a sweep that dies holds nothing up.
"""

from collections.abc import Callable

import structlog

from pipeline.clock import Clock
from pipeline.db.engine import Database, DatabaseUnavailableError
from pipeline.inbox import store as inbox
from pipeline.worker.worker import BATCH, Worker

log = structlog.get_logger(__name__)

LOOK_SECONDS = 1.0
QUIET_SECONDS = 3.0  # a broker that has brought nothing for so long may be away, or have lost what it held


class InboxRecovery:
    """Looks after the events that no message brings. `quiet_seconds` tells how long the broker has brought none."""

    def __init__(self, worker: Worker, database: Database, clock: Clock, quiet_seconds: Callable[[], float]) -> None:
        self._worker, self._database, self._clock = worker, database, clock
        self._quiet_seconds = quiet_seconds

    def run(self, stop: Callable[[float], bool]) -> None:
        """Look every second, and go on at once where there is more, until `stop(seconds)`, which waits, says so."""
        done = 0
        while not stop(0 if done == BATCH else LOOK_SECONDS):
            try:
                done = self.once()
            except DatabaseUnavailableError as error:
                done = 0
                log.warning("store_down", reason=str(error))

    def once(self) -> int:
        """Handle one batch of what is due now; how many. Raises StoreDown."""
        quiet = self._quiet_seconds() >= QUIET_SECONDS
        with self._database.reading() as session:
            ids = inbox.due_event_ids(session, self._clock.now(), BATCH, untried=quiet)
        self._worker.handle(ids)
        return len(ids)
