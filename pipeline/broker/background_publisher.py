"""Background thread that publishes ids in batches, so that a slow broker delays no caller."""

import structlog

from pipeline.batch_thread import BatchThread
from pipeline.broker import Broker, BrokerUnavailableError, Queue

log = structlog.get_logger(__name__)

MAX_BATCH = 256  # calls of `announce` whose ids are published together


class BackgroundPublisher(BatchThread[list[str]]):
    """The thread that publishes ids in groups. What it cannot publish, a sweep finds."""

    def __init__(self, broker: Broker, queue_name: Queue) -> None:
        super().__init__(f"announcer of {queue_name}", most=MAX_BATCH)
        self._broker, self._queue = broker, queue_name

    def publish_later(self, ids: list[str]) -> None:
        """Have these ids published; returns at once."""
        if ids:
            self._submit(ids)

    def _run(self) -> None:
        with self._broker.publisher() as self._publisher:
            super()._run()

    def _do(self, batch: list[list[str]]) -> None:
        ids = [id for some in batch for id in some]
        try:
            self._publisher.publish(self._queue, ids)
        except (
            BrokerUnavailableError
        ) as error:  # whose time-out each further batch would wait for, also when it is time to end
            log.warning("broker_down", reason=str(error), left_to_sweep=len(ids), announcements_too=self._discard())
        except Exception as error:  # noqa: BLE001 - a thread that died would leave every later event to the sweep
            log.error("not_announced", reason=f"a fault of ours: {type(error).__name__}", left_to_sweep=len(ids))
