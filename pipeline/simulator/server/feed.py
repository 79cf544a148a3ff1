"""Changes that API calls and pages cause: applied to the world at once, sent as webhooks after the answer."""

from collections import deque
from collections.abc import Callable
from datetime import datetime
from random import Random

from pipeline.clock import Clock
from pipeline.money import Money
from pipeline.simulator import ids, shapes
from pipeline.simulator.server.answers import Answer, ApiError, Call, Operation
from pipeline.simulator.timeline import ApiObject, Delivery, Json, Kind
from pipeline.simulator.world import PaypalState

EventCallback = Callable[[Delivery], object]
NO_MONEY = Money(0, "USD")


class EventFeed:
    """`events` are all events that calls caused. `on_event` gets each of them after the answer.

    `statuses` holds the HTTP status that `on_event` returned for an event id, if it returns one.
    """

    def __init__(self, world: PaypalState, clock: Clock, rng: Random, on_event: EventCallback | None = None) -> None:
        self.world, self.clock, self.rng, self.on_event = world, clock, rng, on_event
        self.events: list[Delivery] = []
        self.statuses: dict[str, int] = {}
        self._waiting: deque[Delivery] = deque()

    @property
    def now(self) -> datetime:
        """The current time without fractions of a second, as in PayPal's objects."""
        return self.clock.now().replace(microsecond=0)

    def publish(self, deliveries: list[Delivery]) -> None:
        """Apply deliveries to the world; their webhooks wait for `send`."""
        for delivery in deliveries:
            self.world.apply(delivery)
            self.events.append(delivery)
            self._waiting.append(delivery)

    def change(
        self,
        kind: str,
        of: shapes.ResourceType,
        resource: Json,
        kept: dict[Kind, Json],
        amount: Money = NO_MONEY,
        version: int = 0,
    ) -> None:
        """Add an event with `resource`, and store the objects in `kept`, with `version` or the next one."""
        objects = tuple(ApiObject(each, version or self._next(each, shown), shown) for each, shown in kept.items())
        event = shapes.envelope(ids.event(self.rng), kind, self.clock.now(), of, resource, amount)
        self.publish([Delivery(self.clock.now(), event, objects)])

    def resend(self, delivery: Delivery) -> None:
        """Send an event again, or one that belongs to no object, after the answer."""
        self._waiting.append(delivery)

    def send(self) -> None:
        """Pass the waiting events to the callback. Called after the answer is sent, as PayPal does."""
        while True:
            try:
                delivery = self._waiting.popleft()
            except IndexError:  # empty, perhaps because the answer of another request sends the rest
                return
            status = self.on_event(delivery) if self.on_event else None
            if isinstance(status, int):
                self.statuses[delivery.id] = status

    def _next(self, kind: Kind, resource: Json) -> int:
        return self.world.version(kind, str(resource["id"])) + 1


class Idempotency:
    """Answers of requests with a `PayPal-Request-Id`. A repeated request gets the first answer with status 200."""

    def __init__(self) -> None:
        self._answers: dict[tuple[str, str], tuple[object, Answer]] = {}

    def once(self, operation: Operation) -> Operation:
        """Return the operation that runs once for each path and request id. Another body raises ApiError 409."""

        def answer(call: Call) -> Answer:
            key = call.path, call.request_id
            if call.request_id and key in self._answers:
                sent, (status, body) = self._answers[key]
                if sent != call.sent:
                    message = "The value of PayPal-Request-Id header has already been used."
                    raise ApiError(409, "DUPLICATE_REQUEST_ID", message)
                return 200 if status == 201 else status, body
            found = operation(call)
            if call.request_id:
                self._answers[key] = call.sent, found
            return found

        return answer
