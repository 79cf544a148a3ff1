"""Background thread that publishes ids in batches, so that a slow broker delays no caller."""

import structlog

from pipeline.batch_thread import BatchThread
from pipeline.broker import Broker, BrokerUnavailableError, Queue

log = structlog.get_logger(__name__)

MAX_BATCH = 256  # calls of `publish_later` whose ids are published together


class BackgroundPublisher(BatchThread[list[str]]):
    """Background thread that publishes ids. Recovery finds the rows whose ids it could not publish."""

    def __init__(self, broker: Broker, queue_name: Queue) -> None:
        super().__init__(f"publisher of {queue_name}", most=MAX_BATCH)
        self._broker, self._queue = broker, queue_name

    def publish_later(self, ids: list[str]) -> None:
        """Publish these ids in the background, and return at once."""
        if ids:
            self._submit(ids)

    def _run(self) -> None:
        with self._broker.publisher() as self._publisher:
            super()._run()

    def _process(self, batch: list[list[str]]) -> None:
        ids = [id for group in batch for id in group]
        try:
            self._publisher.publish(self._queue, ids)
        except BrokerUnavailableError as error:
            # Discard the waiting calls too: each further batch would wait for another timeout, also at shutdown.
            log.warning("broker_down", reason=str(error), unpublished_ids=len(ids), discarded_calls=self._discard())
        except Exception as error:  # noqa: BLE001 - the thread must survive, or no later event would be published
            log.error("publish_failed", reason=f"internal error: {type(error).__name__}", unpublished_ids=len(ids))
