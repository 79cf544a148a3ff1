"""Log lines that strangers can cause: at most one in a period, with the number of lines that were left out before it."""

import time
from collections.abc import Callable
from typing import Any


class LimitedLog:
    """Passes on the first line of each event name in a period and counts the others."""

    def __init__(
        self, write: Callable[..., Any], period: float = 1.0, *, elapsed: Callable[[], float] = time.monotonic
    ) -> None:
        """`write`: for example `log.warning`. `period`: seconds."""
        self._write, self._period, self._elapsed = write, period, elapsed
        self._next: dict[str, float] = {}  # event name -> when its next line may be written
        self._left_out: dict[str, int] = {}

    def __call__(self, event: str, **fields: object) -> None:
        """Write the line, or count it."""
        now = self._elapsed()
        if now < self._next.get(event, now):
            self._left_out[event] = self._left_out.get(event, 0) + 1
            return
        self._next[event] = now + self._period
        left_out = self._left_out.pop(event, 0)
        self._write(event, **fields, **({"lines_left_out": left_out} if left_out else {}))
