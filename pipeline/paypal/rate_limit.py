"""Limit the rate of calls to PayPal's API by a token bucket.

PayPal publishes no figures; it asks clients to avoid bursts and not to poll, and answers 429 to those that do
(https://developer.paypal.com/reference/guidelines/rate-limiting/). Five calls a second read 5,000 subscriptions in 17 minutes.
"""

import threading
from datetime import datetime, timedelta

from pipeline.clock import Clock

PER_SECOND = 5.0
BURST = 20  # calls that may be made at once after a quiet time


class TokenBucket:
    """Allows PER_SECOND calls on average. All threads share one instance."""

    def __init__(self, clock: Clock, per_second: float = PER_SECOND, burst: int = BURST) -> None:
        self._clock, self._per_second, self._burst = clock, per_second, burst
        self._lock = threading.Lock()
        self._tokens, self._filled_at = float(burst), clock.now()
        self._paused_until: datetime | None = None

    def take(self, most: int) -> int:
        """Take up to `most` tokens. Return how many calls may be made now; 0 during a pause."""
        with self._lock:
            now = self._clock.now()
            elapsed = max((now - self._filled_at).total_seconds(), 0.0)
            self._tokens, self._filled_at = min(self._tokens + elapsed * self._per_second, float(self._burst)), now
            if self._paused_until and now < self._paused_until:
                return 0
            taken = min(int(self._tokens), most)
            self._tokens -= taken
            return taken

    def give_back(self, unused: int) -> None:
        """Return tokens that were taken for calls that were not made."""
        with self._lock:
            self._tokens = min(self._tokens + unused, float(self._burst))

    def seconds_until_next(self) -> float:
        """Return how long to wait until `take` returns at least 1."""
        with self._lock:
            pause = (self._paused_until - self._clock.now()).total_seconds() if self._paused_until else 0.0
            return max(pause, (1 - self._tokens) / self._per_second, 0.0)

    def pause(self, duration: timedelta) -> None:
        """Allow no call for this time: PayPal asked for it (Retry-After)."""
        with self._lock:
            until = self._clock.now() + duration
            self._paused_until = max(until, self._paused_until or until)
