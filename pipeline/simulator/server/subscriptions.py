"""Write operations of the simulated API: create a subscription, approve it on a page, cancel it.

Each operation adds its events to `events`; `send_events` passes them to a callback after the answer, as PayPal does.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from random import Random

from pipeline.clock import Clock
from pipeline.money import Money
from pipeline.simulator import ids, shapes
from pipeline.simulator.people import SimulatedCustomer
from pipeline.simulator.plans import PLANS
from pipeline.simulator.server.approval_page import approval_page
from pipeline.simulator.subscription import SimulatedSubscription
from pipeline.simulator.timeline import ApiObject, Delivery, Json
from pipeline.simulator.world import PaypalState

APPROVE = "/webapps/billing/subscriptions"
FINAL_VERSION = 10**9  # higher than every version of a scenario, because a cancellation is final
EventCallback = Callable[[Delivery], object]


class ApiError(Exception):
    """An error answer of PayPal: HTTP status, error name, issue and description."""

    def __init__(self, status: int, name: str, issue: str, description: str) -> None:
        super().__init__(description)
        self.status, self.name, self.issue, self.description = status, name, issue, description


@dataclass(frozen=True, slots=True)
class Subscriber(SimulatedCustomer):
    """A customer of the sign-up page; `custom` is the `custom_id` that the vendor sent to PayPal."""

    custom: str = ""

    @property
    def custom_id(self) -> str:
        return self.custom


@dataclass(slots=True)
class _Pending:
    subscription: SimulatedSubscription
    return_url: str
    cancel_url: str


class ApiSubscriptions:
    """The subscriptions that were created through the API."""

    def __init__(self, world: PaypalState, clock: Clock, on_event: EventCallback | None = None, seed: int = 7) -> None:
        self.events: list[Delivery] = []
        self._world, self._clock, self.on_event = world, clock, on_event
        self._rng = Random(seed)  # noqa: S311 - ids, not secrets
        self._ids_by_request: dict[str, str] = {}  # request id -> subscription
        self._pending: dict[str, _Pending] = {}
        self._sent = 0

    def create(self, body: Json, request_id: str, base: str) -> tuple[int, Json]:
        """Create a subscription. Return status and answer: 201, or 200 for a repeated request id. Raises ApiError."""
        existing_id = self._ids_by_request.get(request_id)
        if existing_id:
            return 200, self._shown(existing_id, base)
        plan, context = PLANS.get(str(body.get("plan_id"))), _object(body, "application_context")
        if plan is None:
            raise ApiError(404, "RESOURCE_NOT_FOUND", "INVALID_RESOURCE_ID", "Requested resource ID was not found.")
        custom = body.get("custom_id", "")
        if not isinstance(custom, str) or len(custom) > 127 or not {"return_url", "cancel_url"} <= context.keys():
            raise ApiError(400, "INVALID_REQUEST", "INVALID_PARAMETER_SYNTAX", "The value of a field is invalid.")
        email = str(_object(body, "subscriber").get("email_address", ""))
        subscriber = Subscriber("Sandbox", "Buyer", email or "sandbox.buyer@example.com", "US", custom=custom)
        subscription = SimulatedSubscription(subscriber, plan, self._clock.now(), self._rng)
        self._pending[subscription.id] = _Pending(subscription, context["return_url"], context["cancel_url"])
        self._ids_by_request[request_id or subscription.id] = subscription.id
        self._world.apply(Delivery(self._clock.now(), {}, (ApiObject("subscription", 0, subscription.snapshot()),)))
        return 201, self._shown(subscription.id, base)

    def page(self, id: str) -> str | None:
        """Return the page on which the buyer approves; None if the id is not pending."""
        pending = self._pending.get(id)
        if pending is None:
            return None
        subscription = pending.subscription
        return approval_page(subscription.plan, subscription.person.email, pending.cancel_url)

    def approve(self, id: str, email: str = "") -> str | None:
        """Approve the subscription: add CREATED, ACTIVATED and the first sale. Return the URL to redirect to.

        `email` is the address of the buyer's PayPal account; "": the one from the request that created it.
        """
        pending = self._pending.pop(id, None)
        if pending is None:
            return None
        if email:
            pending.subscription.person = replace(pending.subscription.person, email=email)
        pending.subscription.start(at=self._clock.now())
        self._apply(pending.subscription.deliveries)
        separator = "&" if "?" in pending.return_url else "?"
        return f"{pending.return_url}{separator}subscription_id={id}&ba_token={id}"

    def cancel(self, id: str, body: Json) -> None:
        """Cancel the subscription and add CANCELLED. Raises ApiError."""
        found, now = self._world.show("subscription", id), self._clock.now()
        if found is None:
            raise ApiError(404, "RESOURCE_NOT_FOUND", "INVALID_RESOURCE_ID", "Requested resource ID was not found.")
        reason = body.get("reason")
        if not isinstance(reason, str) or not 1 <= len(reason) <= 128:
            raise ApiError(400, "INVALID_REQUEST", "INVALID_STRING_MAX_LENGTH", "The value of a field is too long.")
        if found["status"] not in ("ACTIVE", "SUSPENDED"):
            description = (
                "Invalid subscription status for cancel action; subscription status should be active or suspended."
            )
            raise ApiError(422, "UNPROCESSABLE_ENTITY", "SUBSCRIPTION_STATUS_INVALID", description)
        self._apply([_cancelled(found, reason, now, self._rng)])

    def _apply(self, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            self._world.apply(delivery)
            self.events.append(delivery)

    def send_events(self) -> None:
        """Pass the new events to the callback. Called after the answer is sent, as PayPal does."""
        while self.on_event and self._sent < len(self.events):
            self._sent += 1
            self.on_event(self.events[self._sent - 1])

    def _shown(self, id: str, base: str) -> Json:
        found = self._world.show("subscription", id) or {}
        own = [link for link in found["links"] if link["rel"] != "approve"]
        page = {"href": f"{base}{APPROVE}?ba_token={id}", "rel": "approve", "method": "GET"}
        return {"id": id, "status": found["status"], "links": [page, *own] if id in self._pending else own}


def _object(body: Json, name: str) -> Json:
    found = body.get(name)
    return found if isinstance(found, dict) else {}


def _cancelled(found: Json, reason: str, now: datetime, rng: Random) -> Delivery:
    """Return the delivery of a cancellation: without a next billing time, and with only the link to itself."""
    at, billing = shapes.seconds(now), dict(found.get("billing_info", {}))
    billing.pop("next_billing_time", None)
    resource = {
        **found,
        "status": "CANCELLED",
        "status_change_note": reason,
        "status_update_time": at,
        "update_time": at,
        "billing_info": billing,
        "links": shapes.subscription_links(found["id"], "CANCELLED"),
    }
    event = shapes.envelope(
        ids.event(rng), "BILLING.SUBSCRIPTION.CANCELLED", now, "subscription", resource, Money(0, "USD")
    )
    return Delivery(now, event, (ApiObject("subscription", FINAL_VERSION, resource),))
