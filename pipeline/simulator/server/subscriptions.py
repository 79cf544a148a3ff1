"""What can be done over the pretend API: a subscription begun, approved on a page, and cancelled.

Each tells its events afterwards, as PayPal does: to whoever asked to be told, and in `events`.
"""

import html
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from random import Random

from pipeline.clock import Clock
from pipeline.money import Money
from pipeline.simulator import ids, shapes
from pipeline.simulator.people import SimulatedCustomer
from pipeline.simulator.plans import PLANS
from pipeline.simulator.subscription import SimulatedSubscription
from pipeline.simulator.timeline import ApiObject, Delivery, Json
from pipeline.simulator.world import PaypalState

APPROVE = "/webapps/billing/subscriptions"
LATEST = 10**9  # a version after all that a story still has to tell: an end is final
Tell = Callable[[Delivery], object]


class ApiError(Exception):  # noqa: N818 - PayPal's answer, not a fault
    """PayPal says no: HTTP's status, its word for the error, and the issue."""

    def __init__(self, status: int, name: str, issue: str, description: str) -> None:
        super().__init__(description)
        self.status, self.name, self.issue, self.description = status, name, issue, description


@dataclass(frozen=True, slots=True)
class Subscriber(SimulatedCustomer):
    """Somebody who came by our own sign-up: `custom` is what we call them."""

    custom: str = ""

    @property
    def custom_id(self) -> str:
        return self.custom


@dataclass(slots=True)
class _Pending:
    life: SimulatedSubscription
    return_url: str
    cancel_url: str


class ApiSubscriptions:
    """The subscriptions of one world that were made over the API."""

    def __init__(self, world: PaypalState, clock: Clock, tell: Tell | None = None, seed: int = 7) -> None:
        self.events: list[Delivery] = []
        self._world, self._clock, self._tell = world, clock, tell
        self._rng = Random(seed)  # noqa: S311 - ids, no secrets
        self._asked: dict[str, str] = {}  # request id -> subscription
        self._pending: dict[str, _Pending] = {}
        self._told = 0

    def create(self, body: Json, request_id: str, base: str) -> tuple[int, Json]:
        """Status and answer; 200 instead of 201 for a request id that was used before. Raises Refusal."""
        known = self._asked.get(request_id)
        if known:
            return 200, self._shown(known, base)
        plan, context = PLANS.get(str(body.get("plan_id"))), _object(body, "application_context")
        if plan is None:
            raise ApiError(404, "RESOURCE_NOT_FOUND", "INVALID_RESOURCE_ID", "Requested resource ID was not found.")
        custom = body.get("custom_id", "")
        if not isinstance(custom, str) or len(custom) > 127 or not {"return_url", "cancel_url"} <= context.keys():
            raise ApiError(400, "INVALID_REQUEST", "INVALID_PARAMETER_SYNTAX", "The value of a field is invalid.")
        email = str(_object(body, "subscriber").get("email_address", ""))
        who = Subscriber("Sandbox", "Buyer", email or "sandbox.buyer@example.com", "US", custom=custom)
        life = SimulatedSubscription(who, plan, self._clock.now(), self._rng)
        self._pending[life.id] = _Pending(life, context["return_url"], context["cancel_url"])
        self._asked[request_id or life.id] = life.id
        self._world.apply(Delivery(self._clock.now(), {}, (ApiObject("subscription", 0, life.snapshot()),)))
        return 201, self._shown(life.id, base)

    def page(self, id: str) -> str | None:
        """The page on which the buyer approves; None if nothing waits for it."""
        waiting = self._pending.get(id)
        if waiting is None:
            return None
        return (
            f"<!doctype html><html lang='en'><title>Pretend PayPal</title><h1>{html.escape(waiting.life.plan.name)}</h1>"
            f"<form method='post'><button>Agree and Subscribe</button></form>"
            f"<p><a href='{html.escape(waiting.cancel_url, quote=True)}'>Cancel and return</a></p>"
        )

    def approve(self, id: str) -> str | None:
        """The buyer agrees: CREATED, ACTIVATED and the first sale are told. Where the browser is sent on to."""
        waiting = self._pending.pop(id, None)
        if waiting is None:
            return None
        waiting.life.start()
        self._happen(waiting.life.deliveries)
        mark = "&" if "?" in waiting.return_url else "?"
        return f"{waiting.return_url}{mark}subscription_id={id}&ba_token={id}"

    def cancel(self, id: str, body: Json) -> None:
        """Final at once; CANCELLED is told. Raises Refusal."""
        found, now = self._world.show("subscription", id), self._clock.now()
        if found is None:
            raise ApiError(404, "RESOURCE_NOT_FOUND", "INVALID_RESOURCE_ID", "Requested resource ID was not found.")
        reason = body.get("reason")
        if not isinstance(reason, str) or not 1 <= len(reason) <= 128:
            raise ApiError(400, "INVALID_REQUEST", "INVALID_STRING_MAX_LENGTH", "The value of a field is too long.")
        if found["status"] not in ("ACTIVE", "SUSPENDED"):
            wrong = "Invalid subscription status for cancel action; subscription status should be active or suspended."
            raise ApiError(422, "UNPROCESSABLE_ENTITY", "SUBSCRIPTION_STATUS_INVALID", wrong)
        self._happen([_cancelled(found, reason, now, self._rng)])

    def _happen(self, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            self._world.apply(delivery)
            self.events.append(delivery)

    def tell(self) -> None:
        """Deliver what has not been delivered yet; for after the answer, as PayPal does."""
        while self._tell and self._told < len(self.events):
            self._told += 1
            self._tell(self.events[self._told - 1])

    def _shown(self, id: str, base: str) -> Json:
        found = self._world.show("subscription", id) or {}
        own = [link for link in found["links"] if link["rel"] != "approve"]
        page = {"href": f"{base}{APPROVE}?ba_token={id}", "rel": "approve", "method": "GET"}
        return {"id": id, "status": found["status"], "links": [page, *own] if id in self._pending else own}


def _object(body: Json, name: str) -> Json:
    found = body.get(name)
    return found if isinstance(found, dict) else {}


def _cancelled(found: Json, reason: str, now: datetime, rng: Random) -> Delivery:
    """The end as it is told: without a next billing time, and with the one link that is left."""
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
    return Delivery(now, event, (ApiObject("subscription", LATEST, resource),))
