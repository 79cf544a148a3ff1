"""A thread that does what others leave to it, as much as waits at once, so that none of them is held up."""

import queue
import threading
from typing import Generic, Self, TypeVar

Item = TypeVar("Item")


class BatchThread(Generic[Item]):
    """Whoever inherits says in `_do` what is done with a batch, of `most` items at most; `_do` raises nothing.

    `room` is how many items may wait; None: as many as come. A context manager: the thread runs inside `with`.
    """

    def __init__(self, name: str, *, most: int, room: int | None = None) -> None:
        self._most, self._room = most, room
        self._waiting: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Do what waits, then end."""
        self._waiting.put(None)
        self._thread.join()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _submit(self, item: Item) -> bool:
        """Have it done; returns at once. False, and it is not done, if there is no room."""
        if self._room is not None and self._waiting.qsize() >= self._room:
            return False
        self._waiting.put(item)
        return True

    def _discard(self) -> int:
        """Throw away what waits; how many items."""
        forgotten = 0
        while not self._waiting.empty():
            if self._waiting.get() is None:
                self._waiting.put(None)  # told to end, as soon as nothing waits
                break
            forgotten += 1
        return forgotten

    def _run(self) -> None:
        ended = False
        while not ended:
            batch, ended = self._next()
            if batch:
                self._process(batch)

    def _next(self) -> tuple[list[Item], bool]:
        """All that waits, or as much of it as is taken at once; and whether nothing comes after it."""
        batch: list[Item] = []
        while len(batch) < self._most and (not batch or not self._waiting.empty()):
            item = self._waiting.get()
            if item is None:
                return batch, True
            batch.append(item)
        return batch, False

    def _process(self, batch: list[Item]) -> None:
        raise NotImplementedError
