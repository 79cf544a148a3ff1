"""Small thread pools for calls that wait for another program, so that they cannot occupy the threads of the pages.

A call that finds no free thread is refused at once: a queue would only make every client wait until its time is over.
"""

import asyncio
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from pipeline.web.forms import RequestRejectedError

Result = TypeVar("Result")

BUSY = ("Please try again in a minute", "We are busy with other requests right now. Nothing was changed.")
RETRY_SECONDS = 60


class BoundedPool:
    """Runs at most `threads` calls at once, and at most one for each key."""

    def __init__(self, name: str, threads: int) -> None:
        self._threads, self._pool = threads, ThreadPoolExecutor(threads, name)
        self._running: set[Hashable] = set()

    async def run(self, key: Hashable, call: Callable[[], Result]) -> Result:
        """Run `call` in a thread and return its result. `key` names what may run only once, for example a customer.

        Raises RequestRejectedError with status 503 if all threads are busy, or a call with this key is running.
        """
        if key in self._running or len(self._running) >= self._threads:
            raise RequestRejectedError(503, *BUSY, retry_after=RETRY_SECONDS)
        self._running.add(key)
        future = asyncio.get_running_loop().run_in_executor(self._pool, call)
        # When the call ends, not when the request does: a client that disconnects does not free the thread.
        future.add_done_callback(lambda _: self._running.discard(key))
        return await asyncio.shield(future)
