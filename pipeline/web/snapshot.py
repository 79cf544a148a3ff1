"""An answer that many requests share for a few seconds, because it costs many queries."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

SHARED_SECONDS = 3.0  # far less than any limit of monitoring

Found = TypeVar("Found")


class Snapshot(Generic[Found]):
    """The last result of `take`, at most SHARED_SECONDS old. Requests that arrive together wait for one call."""

    def __init__(self, take: Callable[[], Awaitable[Found]], *, elapsed: Callable[[], float] = time.monotonic) -> None:
        self._take, self._elapsed = take, elapsed
        self._task: asyncio.Task[Found] | None = None
        self._fresh_until = 0.0

    async def get(self) -> Found:
        """Return the shared result, or take a new one. Raises what `take` raises; the next request tries again."""
        task = self._task
        if task is None or (task.done() and (task.exception() or self._elapsed() >= self._fresh_until)):
            task = self._task = asyncio.ensure_future(self._renew())
        return await asyncio.shield(task)  # a client that disconnects must not cancel it for the others

    async def _renew(self) -> Found:
        found = await self._take()
        self._fresh_until = self._elapsed() + SHARED_SECONDS
        return found
