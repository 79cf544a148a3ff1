"""What adds events: a seeded generator, the deliveries so far, and the time of the last change."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from random import Random

from pipeline.money import Money
from pipeline.simulator import ids, shapes
from pipeline.simulator.timeline import ApiObject, Delivery, Json, Kind


class EventSource:
    """Base of everything at PayPal that sends events. `now` is the arrival of the last event."""

    def __init__(self, rng: Random, start: datetime) -> None:
        self.rng = rng
        self.now = start.replace(microsecond=0)
        self.deliveries: list[Delivery] = []
        self._version = 0

    def emit(
        self,
        kind: str,
        at: datetime,
        of: shapes.ResourceType,
        resource: Json,
        amount: Money,
        kept: Iterable[tuple[Kind, Json]],
    ) -> None:
        """Add an event some seconds after the change at `at`, with the API objects `kept` that result from it."""
        self._version += 1
        created = at + timedelta(milliseconds=self.rng.randint(3_000, 40_000))
        event = shapes.envelope(ids.event(self.rng), kind, created, of, resource, amount)
        arrives = created + timedelta(milliseconds=self.rng.randint(300, 4_000))
        objects = tuple(ApiObject(each, self._version_of(each, shown), shown) for each, shown in kept)
        self.deliveries.append(Delivery(arrives, event, objects))
        self.now = max(self.now, arrives)

    def _version_of(self, kind: Kind, shown: Json) -> int:
        """Return the version of an object. Several sources show a plan or product, so its version is its last change."""
        if kind not in ("plan", "product"):
            return self._version
        if shown["update_time"] == shown["create_time"]:
            return 0
        return int(datetime.fromisoformat(shown["update_time"]).timestamp())
