"""The simulated PayPal of a running demo: its state restored from the database, and the webhooks of its pages.

The demo that is shown again starts with an empty simulated PayPal. Without the restored state, PayPal would not know the
subscriptions of the demo, and no customer could cancel or be erased.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property

import orjson
from sqlalchemy import select

from pipeline.clock import Clock
from pipeline.db.models import Event, Subscription
from pipeline.demo.simulated_paypal import open_signer, trust_certificate
from pipeline.queries.listing import Decryptor, chunks
from pipeline.settings import Settings
from pipeline.simulator import shapes
from pipeline.simulator.server.delivery import WebhookSender
from pipeline.simulator.timeline import ApiObject, Delivery, Json, Kind
from pipeline.simulator.world import PaypalState

KINDS: tuple[tuple[str, Kind], ...] = (  # beginning of an event's type, and the kind of its resource
    ("PAYMENT.SALE.REFUNDED", "refund"),
    ("PAYMENT.SALE.REVERSED", "refund"),
    ("PAYMENT.SALE.", "sale"),
    ("BILLING.SUBSCRIPTION.", "subscription"),
    ("READ.SUBSCRIPTION", "subscription"),
    ("READ.SALE", "sale"),
    ("READ.REFUND", "refund"),
)
TRIES = 3  # attempts per webhook: the demo's receiver is in the same process


def restore_state(world: PaypalState, decryptor: Decryptor) -> None:
    """Store the newest known version of each object: from the stored events, then from the subscriptions' rows."""
    newest: dict[tuple[Kind, str], Json] = {}
    for kind, resource in _resources(decryptor):
        newest[kind, str(resource["id"])] = resource
    for row in decryptor.session.execute(select(Subscription)).scalars():
        if ("subscription", row.id) in newest:
            newest["subscription", row.id] = _current(newest["subscription", row.id], row)
    objects = tuple(ApiObject(kind, 1, resource) for (kind, _), resource in newest.items())
    world.apply(Delivery(decryptor.keyring.now, {}, objects))


def _resources(decryptor: Decryptor) -> Iterator[tuple[Kind, Json]]:
    """Yield kind and resource of each stored event, in the order of PayPal's times. Erased events have no body."""
    stored = select(Event.type, Event.key_id, Event.body).where(Event.body.is_not(None))
    for rows in chunks(decryptor.session, stored.order_by(Event.occurred_at, Event.received_at)):
        keys = decryptor.data_keys([row.key_id for row in rows])
        for row in rows:
            kind, data_key = _kind(row.type), keys.get(row.key_id)
            if kind and data_key:
                resource = orjson.loads(data_key.decrypt("event.body", row.body)).get("resource", {})
                yield from [(kind, resource)] if "id" in resource else []


def _kind(event_type: str) -> Kind | None:
    return next((kind for beginning, kind in KINDS if event_type.startswith(beginning)), None)


def _current(resource: Json, row: Subscription) -> Json:
    """Return the resource with the row's status and next billing time: PayPal sends no event for a renewal."""
    billing = dict(resource.get("billing_info", {}))
    if row.next_billing_at:
        billing["next_billing_time"] = shapes.seconds(row.next_billing_at)
    return {**resource, "status": row.status or resource["status"], "billing_info": billing}


class PageWebhooks:
    """Posts the events that people cause at the simulated PayPal's pages and API. Use `post` as its event callback."""

    def __init__(self, settings: Settings, clock: Clock, url: str, webhook_id: str) -> None:
        self._settings, self._clock, self._url, self._webhook_id = settings, clock, url, webhook_id

    def post(self, delivery: Delivery) -> int:
        """Post one event now. Return the response status."""
        return self._sender.send(replace(delivery, at=self._clock.now()))

    @cached_property
    def _sender(self) -> WebhookSender:
        """Created for the first event, when the keys in the data folder exist."""
        now = self._clock.now()
        signer = open_signer(self._settings, now, now)
        trust_certificate(self._settings, self._clock, signer)
        return WebhookSender(self._url, signer, self._webhook_id, tries=TRIES)

    def close(self) -> None:
        """Close the connections to the receiver."""
        if "_sender" in vars(self):
            self._sender.close()
