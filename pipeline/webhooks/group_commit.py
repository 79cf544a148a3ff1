"""Group commit: store concurrent webhooks in one transaction, and answer each only after the commit.

A commit costs one disk sync, whether it stores one event or hundreds. So one thread stores all waiting deliveries at once.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from pipeline.batch_thread import BatchThread
from pipeline.clock import Clock
from pipeline.crypto.keyring import Keyring
from pipeline.crypto.master_key import MasterKey
from pipeline.db.engine import Database, DatabaseUnavailableError
from pipeline.error_texts import describe
from pipeline.inbox import store as inbox
from pipeline.inbox.store import NewEvent, StoreResult

log = structlog.get_logger(__name__)

GROUP = 256  # maximum number of deliveries in one transaction


@dataclass(slots=True)
class _Waiting:
    delivery: NewEvent
    loop: asyncio.AbstractEventLoop
    answer: "asyncio.Future[StoreResult]"


class GroupCommitter(BatchThread[_Waiting]):
    """Background thread that stores waiting deliveries in one transaction. `on_stored` receives the ids to publish."""

    def __init__(
        self, database: Database, master_key: MasterKey, clock: Clock, on_stored: Callable[[list[str]], None]
    ) -> None:
        super().__init__("committer", most=GROUP)
        self._database, self._master, self._clock, self._on_stored = database, master_key, clock, on_stored

    async def store(self, delivery: NewEvent) -> StoreResult:
        """Store one delivery, together with concurrent ones. Raises DatabaseUnavailableError."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[StoreResult] = loop.create_future()
        self._submit(_Waiting(delivery, loop, answer))
        return await answer

    def _process(self, batch: list[_Waiting]) -> None:
        try:
            stored = self._store([waiting.delivery for waiting in batch])
        except DatabaseUnavailableError as error:
            _fail(batch, error)
        except Exception as error:  # noqa: BLE001 - each request of the batch must be answered after any error
            if len(batch) > 1:  # store each alone, so that one bad delivery does not affect the others
                for waiting in batch:
                    self._process([waiting])
            else:
                _fail(batch, DatabaseUnavailableError(f"storing failed: {describe(error)}"))
        else:
            _answer(batch, stored)
            self._on_stored([item.event_id for item in stored if item.publish])

    def _store(self, deliveries: list[NewEvent]) -> list[StoreResult]:
        now = self._clock.now()
        with self._database.transaction() as session:
            return inbox.store(session, Keyring(self._master, session, now), deliveries, now)


def _fail(group: list[_Waiting], error: DatabaseUnavailableError) -> None:
    log.error("store_failed", events=len(group), reason=str(error))
    _answer(group, [error] * len(group))


def _answer(group: list[_Waiting], results: Sequence[StoreResult | Exception]) -> None:
    """Pass the results to the event loop, in one call for the whole group."""
    pairs = [(waiting.answer, result) for waiting, result in zip(group, results, strict=True)]
    with contextlib.suppress(RuntimeError):  # the loop is closed at shutdown; no request waits for an answer then
        group[0].loop.call_soon_threadsafe(_resolve, pairs)


def _resolve(pairs: "list[tuple[asyncio.Future[StoreResult], StoreResult | Exception]]") -> None:
    for answer, result in pairs:
        if answer.done():  # the client closed the connection; the event stays stored
            continue
        if isinstance(result, Exception):
            answer.set_exception(result)
        else:
            answer.set_result(result)
