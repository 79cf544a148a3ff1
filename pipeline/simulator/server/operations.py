"""All operations of the simulated API by method and path."""

from dataclasses import dataclass
from datetime import timedelta

from pipeline.simulator.server.answers import Answer, Call, Operation, not_found, v1_not_found
from pipeline.simulator.server.catalog import CatalogPlans, Products
from pipeline.simulator.server.faults import Faults
from pipeline.simulator.server.feed import EventFeed, Idempotency
from pipeline.simulator.server.listings import Listings
from pipeline.simulator.server.payments import Refunds
from pipeline.simulator.server.reporting import Reporting
from pipeline.simulator.server.signing import Signer
from pipeline.simulator.server.subscription_actions import SubscriptionActions
from pipeline.simulator.server.subscriptions import ApiSubscriptions
from pipeline.simulator.server.webhook_events import WebhookEvents
from pipeline.simulator.server.webhooks import Webhooks
from pipeline.simulator.timeline import Json, Kind

SUBSCRIPTIONS = "/v1/billing/subscriptions"
PLANS = "/v1/billing/plans"
PRODUCTS = "/v1/catalogs/products"
NOTIFICATIONS = "/v1/notifications"
DISPUTES = "/v1/customer/disputes"
READS: dict[Kind, str] = {
    "subscription": SUBSCRIPTIONS + "/{id}",
    "plan": PLANS + "/{id}",
    "product": PRODUCTS + "/{id}",
    "sale": "/v1/payments/sale/{id}",
    "refund": "/v1/payments/refund/{id}",
    "capture": "/v2/payments/captures/{id}",
    "capture_refund": "/v2/payments/refunds/{id}",
    "dispute": DISPUTES + "/{id}",
}


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of the API, which share one world and one feed of events."""

    feed: EventFeed
    faults: Faults
    actions: SubscriptionActions
    subscriptions: ApiSubscriptions
    listings: Listings
    refunds: Refunds
    reporting: Reporting
    webhooks: Webhooks
    products: Products
    plans: CatalogPlans

    @classmethod
    def over(cls, feed: EventFeed, faults: Faults, delay: timedelta, signer: Signer | None) -> "Services":
        """Create all parts. `delay` is the delay of the reports."""
        actions = SubscriptionActions(feed)
        return cls(
            feed,
            faults,
            actions,
            ApiSubscriptions(feed, actions),
            Listings(feed.world),
            Refunds(feed),
            Reporting(feed, delay),
            Webhooks(feed, signer),
            Products(feed),
            CatalogPlans(feed),
        )

    def reader(self, kind: Kind) -> Operation:
        """Return the operation that shows an object. New objects are unknown for the delay in `faults`."""

        def read(call: Call) -> Answer:
            found = self.feed.world.show(kind, call.id)
            if found is None or self._is_late(kind, call.id):
                raise v1_not_found() if READS[kind].startswith("/v1/payments/") else not_found()
            return 200, self._on_request(found, call) if kind == "subscription" else found

        return read

    def _is_late(self, kind: Kind, id: str) -> bool:
        delay, seen = self.faults.object_delay, self.feed.world.first_seen(kind, id)
        return bool(delay) and seen is not None and self.feed.clock.now() < seen + delay

    def _on_request(self, found: Json, call: Call) -> Json:
        """Add or omit the fields that PayPal returns only on request (query parameter `fields`)."""
        own, fields = found.pop("plan", None), call.choices("fields")
        if "last_failed_payment" not in fields:
            found.get("billing_info", {}).pop("last_failed_payment", None)
        if "plan" in fields:
            found["plan"] = own or self.feed.world.show("plan", found["plan_id"])
        return found


def operations(services: Services) -> list[tuple[str, str, Operation]]:
    """Return method, path and operation of each call."""
    reads = [("GET", path, services.reader(kind)) for kind, path in READS.items()]
    return [
        *_subscriptions(services),
        *_catalog(services),
        *_payments(services),
        *_notifications(services),
        ("GET", DISPUTES, services.listings.disputes),
        *reads,
    ]


def _subscriptions(services: Services) -> list[tuple[str, str, Operation]]:
    one, actions, once = SUBSCRIPTIONS + "/{id}", services.actions, Idempotency().once
    return [
        ("GET", SUBSCRIPTIONS, services.listings.subscriptions),
        ("POST", SUBSCRIPTIONS, services.subscriptions.create),
        ("PATCH", one, actions.patch),
        ("POST", one + "/cancel", actions.cancel),
        ("POST", one + "/suspend", actions.suspend),
        ("POST", one + "/activate", actions.activate),
        ("POST", one + "/capture", once(actions.capture)),
        ("POST", one + "/revise", services.subscriptions.revise),
        ("GET", one + "/transactions", services.listings.transactions),
    ]


def _catalog(services: Services) -> list[tuple[str, str, Operation]]:
    plans, products, once = services.plans, services.products, Idempotency().once
    return [
        ("GET", PLANS, plans.list_page),
        ("POST", PLANS, once(plans.create)),
        ("PATCH", PLANS + "/{id}", plans.patch),
        ("POST", PLANS + "/{id}/activate", plans.activate),
        ("POST", PLANS + "/{id}/deactivate", plans.deactivate),
        ("POST", PLANS + "/{id}/update-pricing-schemes", plans.change_prices),
        ("GET", PRODUCTS, products.list_page),
        ("POST", PRODUCTS, once(products.create)),
        ("PATCH", PRODUCTS + "/{id}", products.patch),
    ]


def _payments(services: Services) -> list[tuple[str, str, Operation]]:
    refunds, once = services.refunds, Idempotency().once
    return [
        ("POST", "/v1/payments/sale/{id}/refund", once(refunds.refund_sale)),
        ("POST", "/v2/payments/captures/{id}/refund", once(refunds.refund_capture)),
        ("GET", "/v1/reporting/transactions", services.reporting.transactions),
        ("GET", "/v1/reporting/balances", services.reporting.balances),
    ]


def _notifications(services: Services) -> list[tuple[str, str, Operation]]:
    webhooks, events = services.webhooks, WebhookEvents(services.feed, services.webhooks)
    return [
        ("GET", NOTIFICATIONS + "/webhooks", webhooks.list_page),
        ("POST", NOTIFICATIONS + "/webhooks", webhooks.create),
        ("GET", NOTIFICATIONS + "/webhooks/{id}", webhooks.show),
        ("PATCH", NOTIFICATIONS + "/webhooks/{id}", webhooks.patch),
        ("DELETE", NOTIFICATIONS + "/webhooks/{id}", webhooks.delete),
        ("GET", NOTIFICATIONS + "/webhooks/{id}/event-types", webhooks.event_types_of),
        ("GET", NOTIFICATIONS + "/webhooks-event-types", webhooks.event_types),
        ("POST", NOTIFICATIONS + "/simulate-event", webhooks.simulate),
        ("POST", NOTIFICATIONS + "/verify-webhook-signature", webhooks.verify),
        ("GET", NOTIFICATIONS + "/webhooks-events", events.list_page),
        ("GET", NOTIFICATIONS + "/webhooks-events/{id}", events.show),
        ("POST", NOTIFICATIONS + "/webhooks-events/{id}/resend", events.resend),
    ]
