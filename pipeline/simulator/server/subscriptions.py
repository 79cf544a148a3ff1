"""Creation and revision of subscriptions, and the page on which the buyer approves them."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from pipeline.simulator import shapes
from pipeline.simulator.people import SimulatedCustomer
from pipeline.simulator.plans import Plan
from pipeline.simulator.server.answers import Answer, Call, invalid, not_found, refused
from pipeline.simulator.server.approval_page import approval_page
from pipeline.simulator.server.feed import EventFeed
from pipeline.simulator.server.plan_prices import plan_of
from pipeline.simulator.server.subscription_actions import SubscriptionActions, custom_id
from pipeline.simulator.subscription import SimulatedSubscription
from pipeline.simulator.timeline import ApiObject, Delivery, Json

APPROVE = "/webapps/billing/subscriptions"
QUANTITY = re.compile(r"[0-9]{1,32}", re.ASCII)
_CHOICES = {
    "user_action": ("CONTINUE", "SUBSCRIBE_NOW"),
    "shipping_preference": ("GET_FROM_FILE", "NO_SHIPPING", "SET_PROVIDED_ADDRESS"),
}


@dataclass(frozen=True, slots=True)
class Subscriber(SimulatedCustomer):
    """A customer of the sign-up page; `custom` is the `custom_id` that the vendor sent to PayPal."""

    custom: str = ""

    @property
    def custom_id(self) -> str:
        return self.custom


@dataclass(frozen=True, slots=True)
class _Pending:
    """Something that the buyer must approve. `approve` gets the address of the buyer's PayPal account."""

    plan: Plan
    buyer: str
    return_url: str
    cancel_url: str
    approve: Callable[[str], None]


class ApiSubscriptions:
    """The calls that need the buyer's approval, and the approval."""

    def __init__(self, feed: EventFeed, actions: SubscriptionActions) -> None:
        self._feed, self._world, self._actions = feed, feed.world, actions
        self._ids_by_request: dict[str, str] = {}  # request id -> subscription
        self._pending: dict[str, _Pending] = {}  # subscription -> what waits for the approval

    def create(self, call: Call) -> Answer:
        """Create a subscription. 201, or 200 for a repeated request id with the current state. Raises ApiError."""
        existing_id = self._ids_by_request.get(call.request_id)
        if existing_id:
            return 200, self._shown(existing_id, call)
        plan = self._plan(call.body)
        subscription = SimulatedSubscription(_subscriber(call.body), plan, self._feed.now, self._feed.rng)
        subscription.quantity = int(_quantity(call.body, str(plan.quantity)))
        return_url, cancel_url = _context(call.body, required=True)

        def approve(email: str) -> None:
            if email:
                subscription.person = replace(subscription.person, email=email)
            subscription.start(at=self._feed.now)
            self._feed.publish(subscription.deliveries)

        buyer = subscription.person.email
        self._pending[subscription.id] = _Pending(plan, buyer, return_url, cancel_url, approve)
        self._ids_by_request[call.request_id or subscription.id] = subscription.id
        state = ApiObject("subscription", 0, subscription.snapshot())
        self._world.apply(Delivery(self._feed.now, {}, (state,)))
        return 201, self._shown(subscription.id, call)

    def revise(self, call: Call) -> Answer:
        """Change plan or quantity. It takes effect when the buyer approves it on the page of the link `approve`."""
        found = self._world.show("subscription", call.id)
        if found is None:
            raise not_found("Requested resource ID was not found.")
        if found["status"] not in ("ACTIVE", "SUSPENDED"):
            raise refused(
                "SUBSCRIPTION_STATUS_INVALID",
                "Invalid subscription status for revise action; subscription status should be active or suspended.",
            )
        plan = self._revised_plan(found, call.body)
        quantity = _quantity(call.body, str(found.get("quantity", "1")))
        return_url, cancel_url = _context(call.body, required=False)

        def approve(_: str) -> None:
            current = self._world.show("subscription", call.id) or found
            if current["status"] not in ("ACTIVE", "SUSPENDED"):
                return  # it ended while the buyer was on the page
            if current["plan_id"] != plan.id:
                current |= {"plan_id": plan.id, "plan_overridden": False}
                current.pop("plan", None)
            current["quantity"] = quantity
            self._actions.update(current)

        email = str(found.get("subscriber", {}).get("email_address", ""))
        self._pending[call.id] = _Pending(plan, email, return_url, cancel_url, approve)
        asked: Json = {key: call.body[key] for key in ("shipping_amount", "shipping_address") if key in call.body}
        links = [self._approval_link(call), *shapes.subscription_links(call.id, found["status"])]
        overridden = bool(found.get("plan_overridden"))
        return 200, {"plan_id": plan.id, "quantity": quantity, **asked, "plan_overridden": overridden, "links": links}

    def page(self, id: str) -> str | None:
        """Return the page on which the buyer approves; None if nothing is pending for the id."""
        pending = self._pending.get(id)
        return approval_page(pending.plan, pending.buyer, pending.cancel_url) if pending else None

    def approve(self, id: str, email: str = "") -> str | None:
        """Approve what is pending. Return the URL to redirect to; None if nothing is pending.

        A new subscription sends CREATED, ACTIVATED and the first sale, a revised one UPDATED. `email` is the address of
        the buyer's PayPal account; "": the one from the request.
        """
        pending = self._pending.pop(id, None)
        if pending is None:
            return None
        pending.approve(email)
        separator = "&" if "?" in pending.return_url else "?"
        return f"{pending.return_url}{separator}subscription_id={id}&ba_token={id}"

    # Internal --------------------------------------------------------------------------------------------------------

    def _plan(self, body: Json) -> Plan:
        found = self._world.show("plan", str(body.get("plan_id")))
        if found is None:
            raise not_found()
        if found["status"] != "ACTIVE":
            description = "Invalid plan status for subscription creation; plan status should be active."
            raise refused("PLAN_STATUS_INVALID", description)
        if "quantity" in body and _quantity(body, "1") != "1" and not found.get("quantity_supported"):
            description = "Subscription can't have quantity as the plan does not support quantity."
            raise refused("SUBSCRIPTION_CANNOT_HAVE_QUANTITY", description)
        return plan_of(found)

    def _revised_plan(self, subscription: Json, body: Json) -> Plan:
        old = self._world.show("plan", subscription["plan_id"]) or {}
        if body.get("plan_id", subscription["plan_id"]) == subscription["plan_id"]:
            return plan_of(old)
        new = self._world.show("plan", str(body["plan_id"]))
        if new is None:
            raise not_found("Requested resource ID was not found.")
        if new["product_id"] != old.get("product_id"):
            raise refused("PLAN_PRODUCT_NOT_COMPATIBLE", "The old and the new plans should be for the same product.")
        plan = plan_of(new)
        if plan.price.currency != plan_of(old).price.currency:
            raise refused("CURRENCY_MISMATCH", "The currency code is different from the plan's currency code.")
        return plan

    def _shown(self, id: str, call: Call) -> Json:
        """Return a new subscription: id, status and links, or all of it if the request prefers that."""
        found = self._world.show("subscription", id) or {}
        own = [link for link in found["links"] if link["rel"] != "approve"]
        links = [self._approval_link(call, id), *own] if id in self._pending else own
        shown = found if call.wants_representation else {"id": id, "status": found["status"]}
        return {**shown, "links": links}

    def _approval_link(self, call: Call, id: str = "") -> Json:
        return shapes.link(f"{call.base}{APPROVE}?ba_token={id or call.id}", "approve")


def _subscriber(body: Json) -> Subscriber:
    sent = _object(body, "subscriber")
    name, email = _object(sent, "name"), str(sent.get("email_address", ""))
    custom = custom_id(body["custom_id"]) if "custom_id" in body else ""
    given, surname = str(name.get("given_name", "Sandbox")), str(name.get("surname", "Buyer"))
    return Subscriber(given, surname, email or "sandbox.buyer@example.com", "US", custom=custom)


def _quantity(body: Json, default: str) -> str:
    found = body.get("quantity", default)
    if not isinstance(found, str) or not QUANTITY.fullmatch(found) or int(found) < 1:
        raise invalid("INVALID_PARAMETER_SYNTAX", "/quantity")
    return found


def _context(body: Json, *, required: bool) -> tuple[str, str]:
    """Return the return and cancel URLs of `application_context`. Raises ApiError for invalid values."""
    context = _object(body, "application_context")
    if not context and not required:
        return "https://www.sandbox.paypal.com/myaccount/autopay", "https://www.sandbox.paypal.com/myaccount/autopay"
    for field, allowed in _CHOICES.items():
        if context.get(field, allowed[0]) not in allowed:
            raise invalid("INVALID_PARAMETER_VALUE", f"/application_context/{field}")
    return _url(context, "return_url"), _url(context, "cancel_url")


def _url(context: Json, field: str) -> str:
    """Return an absolute http(s) URL of 10 to 4,000 characters. Raises ApiError."""
    pointer, found = f"/application_context/{field}", context.get(field)
    if not isinstance(found, str):
        raise invalid("MISSING_REQUIRED_PARAMETER", pointer)
    parts = urlsplit(found)
    if not 10 <= len(found) <= 4000 or parts.scheme not in ("http", "https") or not parts.hostname:
        raise invalid("INVALID_PARAMETER_SYNTAX", pointer)
    return found


def _object(body: Json, name: str) -> Json:
    found = body.get(name)
    return found if isinstance(found, dict) else {}
