"""Faults that a simulated PayPal can be set to: failing requests, objects that appear late, lost and late webhooks."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import Literal

from pipeline.simulator.timeline import Delivery

Misbehaviour = Literal["stall", "500", "429", "garbage", "expire_token"]


@dataclass(slots=True)
class PendingFailure:
    """A failure for the next `times` requests whose path begins with `path`. `retry_after` is in seconds."""

    how: Misbehaviour
    times: int
    path: str
    retry_after: int | None = None


@dataclass(slots=True)
class Faults:
    """Delays of the API: a new object is answered 404 for `object_delay` after its webhook.

    PayPal's API reads from copies that can be some seconds behind its webhooks.
    """

    object_delay: timedelta = timedelta(0)
    failures: list[PendingFailure] = field(default_factory=list)

    def next_failure(self, path: str, excepted: str) -> PendingFailure | None:
        """Take the failure for a request. Requests of the path `excepted` fail only if their path was named."""
        for failure in self.failures:
            if failure.times > 0 and path.startswith(failure.path) and (failure.path or path != excepted):
                failure.times -= 1
                return failure
        return None


class UnreliableWebhooks:
    """Passes deliveries to `send`, but loses the share `lost` and keeps the share `late` until `release`.

    Use it as `on_event` of the API, or in place of a sender's `send`. The events stay in PayPal's list of events.
    """

    def __init__(
        self, send: Callable[[Delivery], object], rng: Random, *, lost: float = 0.08, late: float = 0.0
    ) -> None:
        self._send, self._rng, self._shares = send, rng, (lost, late)
        self.lost: list[Delivery] = []
        self.late: list[Delivery] = []

    def __call__(self, delivery: Delivery) -> object:
        """Send, lose or keep one delivery."""
        chance, (lost, late) = self._rng.random(), self._shares
        if chance < lost:
            self.lost.append(delivery)
        elif chance < lost + late:
            self.late.append(delivery)
        else:
            return self._send(delivery)
        return None

    def release(self) -> None:
        """Send all deliveries that were kept."""
        while self.late:
            self._send(self.late.pop(0))
