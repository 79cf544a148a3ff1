"""Background thread that processes queued items in batches, so callers never block."""

import queue
import threading
from typing import Generic, Self, TypeVar

Item = TypeVar("Item")


class BatchThread(Generic[Item]):
    """Base class: a subclass implements `_process`, which gets at most `most` items at a time and must not raise.

    `room` is the largest number of queued items; None means no limit. As a context manager, the thread runs inside `with`.
    """

    def __init__(self, name: str, *, most: int, room: int | None = None) -> None:
        self._most, self._room = most, room
        self._waiting: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Process all queued items, then end the thread."""
        self._waiting.put(None)
        self._thread.join()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _submit(self, item: Item) -> bool:
        """Queue an item and return at once. Return False, without queueing it, if there is no room."""
        if self._room is not None and self._waiting.qsize() >= self._room:
            return False
        self._waiting.put(item)
        return True

    def _discard(self) -> int:
        """Discard all queued items. Return how many."""
        discarded = 0
        while not self._waiting.empty():
            if self._waiting.get() is None:
                self._waiting.put(None)  # the request to end stays in the queue
                break
            discarded += 1
        return discarded

    def _run(self) -> None:
        ended = False
        while not ended:
            batch, ended = self._next()
            if batch:
                self._process(batch)

    def _next(self) -> tuple[list[Item], bool]:
        """Wait for items. Return the next batch, and whether it is the last one."""
        batch: list[Item] = []
        while len(batch) < self._most and (not batch or not self._waiting.empty()):
            item = self._waiting.get()
            if item is None:
                return batch, True
            batch.append(item)
        return batch, False

    def _process(self, batch: list[Item]) -> None:
        raise NotImplementedError
