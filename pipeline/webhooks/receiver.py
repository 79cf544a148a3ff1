"""1. POST from PayPal: verify, store, publish the id, answer.

Concurrent requests share one transaction (group commit): a committer thread takes all deliveries that wait, stores them
together, and only when that is durable are they answered 200. Then their ids are published, in groups, by a thread
of its own, so that a slow broker delays nobody; if that fails, a sweep finds them.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import structlog

from pipeline.batch_thread import Batcher
from pipeline.broker import Broker, BrokerDown, Queue
from pipeline.clock import Clock
from pipeline.crypto.keyring import Keyring
from pipeline.crypto.master_key import MasterKey
from pipeline.db.engine import Database, StoreDown
from pipeline.inbox import store as inbox
from pipeline.inbox.parsing import split
from pipeline.inbox.store import Delivery, Stored
from pipeline.paypal.certificates import Certificates
from pipeline.paypal.signature import Transmission, judge_algorithm, verify
from pipeline.settings import SIMULATOR

log = structlog.get_logger(__name__)

GROUP = 256  # deliveries in one transaction, or announcements at once, at most


class Forged(Exception):
    """A transmission id that signed another body before: somebody reuses a signature."""


class Door:
    """Judges deliveries and has them stored."""

    def __init__(
        self, certificates: Certificates, committer: "Committer", webhook_ids: Sequence[str], *, accept_simulator: bool
    ) -> None:
        self._certificates, self._committer = certificates, committer
        self._webhook_ids = (*webhook_ids, SIMULATOR) if accept_simulator else tuple(webhook_ids)

    async def receive(self, headers: Iterable[tuple[str, str]], body: bytes) -> Stored:
        """Verify and store one delivery; returns once it is durable.

        Raises Malformed, Refused and Unavailable of `paypal.errors`, Forged, and StoreDown.
        """
        transmission = Transmission.read(headers)
        judge_algorithm(transmission)  # before anything is fetched for it
        url = transmission.cert_url
        key = self._certificates.known(url) or await self._certificates.get(url)
        webhook_id = verify(transmission, body, self._webhook_ids, key)
        verdict = "signed by PayPal's simulator" if webhook_id == SIMULATOR else f"signed for webhook {webhook_id}"
        stored = await self._committer.store(Delivery(split(body), "webhook", verdict, transmission.id))
        if stored.outcome == "forged":
            log.error("forged", transmission_id=transmission.id, event_id=stored.event_id)
            raise Forged(f"transmission {transmission.id} signed another body before")
        return stored


@dataclass(slots=True)
class _Waiting:
    delivery: Delivery
    loop: asyncio.AbstractEventLoop
    answer: "asyncio.Future[Stored]"


class Committer(Batcher[_Waiting]):
    """The thread that stores deliveries, many in one transaction."""

    def __init__(
        self, database: Database, master: MasterKey, clock: Clock, on_stored: Callable[[list[str]], None]
    ) -> None:
        super().__init__("committer", most=GROUP)
        self._database, self._master, self._clock, self._on_stored = database, master, clock, on_stored

    async def store(self, delivery: Delivery) -> Stored:
        """Store one delivery, together with those that come at the same time. Raises StoreDown."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Stored] = loop.create_future()
        self._leave(_Waiting(delivery, loop, answer))
        return await answer

    def _do(self, batch: list[_Waiting]) -> None:
        try:
            stored = self._store([waiting.delivery for waiting in batch])
        except StoreDown as error:
            _fail(batch, error)
        except Exception as error:  # noqa: BLE001 - whatever it is, each request of the batch must be answered
            if len(batch) > 1:  # one that cannot be stored does not take its neighbours with it
                for waiting in batch:
                    self._do([waiting])
            else:
                _fail(batch, StoreDown(f"storing failed: {type(error).__name__}"))
        else:
            _answer(batch, stored)
            self._on_stored([item.event_id for item in stored if item.publish])

    def _store(self, deliveries: list[Delivery]) -> list[Stored]:
        now = self._clock.now()
        with self._database.transaction() as session:
            return inbox.store(session, Keyring(self._master, session, now), deliveries, now)


def _fail(group: list[_Waiting], error: StoreDown) -> None:
    log.error("store_failed", events=len(group), reason=str(error))
    _answer(group, [error] * len(group))


def _answer(group: list[_Waiting], results: Sequence[Stored | Exception]) -> None:
    """Hand the results over to the event loop, in one call for the whole group."""
    pairs = [(waiting.answer, result) for waiting, result in zip(group, results, strict=True)]
    with contextlib.suppress(RuntimeError):  # the loop is closed: at the end, nobody waits for an answer any more
        group[0].loop.call_soon_threadsafe(_resolve, pairs)


def _resolve(pairs: "list[tuple[asyncio.Future[Stored], Stored | Exception]]") -> None:
    for answer, result in pairs:
        if answer.done():  # the client hung up; what is stored stays stored
            continue
        if isinstance(result, Exception):
            answer.set_exception(result)
        else:
            answer.set_result(result)


class Announcer(Batcher[list[str]]):
    """The thread that publishes ids in groups. What it cannot publish, a sweep finds."""

    def __init__(self, broker: Broker, queue_name: Queue) -> None:
        super().__init__(f"announcer of {queue_name}", most=GROUP)
        self._broker, self._queue = broker, queue_name

    def announce(self, ids: list[str]) -> None:
        """Have these ids published; returns at once."""
        if ids:
            self._leave(ids)

    def _run(self) -> None:
        with self._broker.publisher() as self._publisher:
            super()._run()

    def _do(self, batch: list[list[str]]) -> None:
        ids = [id for some in batch for id in some]
        try:
            self._publisher.publish(self._queue, ids)
        except BrokerDown as error:  # whose time-out each further batch would wait for, also when it is time to end
            log.warning("broker_down", reason=str(error), left_to_sweep=len(ids), announcements_too=self._forget())
        except Exception as error:  # noqa: BLE001 - a thread that died would leave every later event to the sweep
            log.error("not_announced", reason=f"a fault of ours: {type(error).__name__}", left_to_sweep=len(ids))
