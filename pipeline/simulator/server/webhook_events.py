"""The list of events that PayPal sent or tried to send: 30 days back, newest first, and resending.

Events whose webhook was lost are in it, so a vendor can fetch what it missed.
"""

import uuid
from datetime import datetime, timedelta

from pipeline.clock import parse_time
from pipeline.simulator import shapes
from pipeline.simulator.server.answers import Answer, ApiError, Call, link_to
from pipeline.simulator.server.feed import EventFeed
from pipeline.simulator.server.webhooks import Webhooks, subscribes, unknown_id
from pipeline.simulator.timeline import Delivery, Json

KEPT = timedelta(days=30)
MOST = 300  # events a page
DEFAULT_URL = "https://billing.example.com/webhooks/paypal"  # shown if no webhook is registered


class WebhookEvents:
    """The calls under `/v1/notifications/webhooks-events`."""

    def __init__(self, feed: EventFeed, webhooks: Webhooks) -> None:
        self._feed, self._webhooks = feed, webhooks

    def list_page(self, call: Call) -> Answer:
        """List events by time, type and object. The links `next` and `previous` continue at an opaque position."""
        size, start = _integer(call, "page_size", 10, MOST), _integer(call, "index_id", 0, 10**6)
        start_time, end_time = _time(call, "start_time"), _time(call, "end_time")
        now = self._feed.clock.now()
        since, until = max(start_time or now - KEPT, now - KEPT), min(end_time or now, now)
        found = [each for each in self._listed(since, until) if _asked(call, each)]
        shown = found[start : start + size]
        links = [link_to(call, call.query, "self")]
        if start + size < len(found):
            links.append(self._turn(call, "next", size, start + size, found))
        if start:
            links.append(self._turn(call, "previous", size, max(start - size, 0), found))
        return 200, {"events": [self._shown(each) for each in shown], "count": len(shown), "links": links}

    def show(self, call: Call) -> Answer:
        """Return one event."""
        return 200, self._shown(self._find(call.id))

    def resend(self, call: Call) -> Answer:
        """Send an event again, with the same event id in a new transmission."""
        delivery = self._find(call.id)
        for id in call.body.get("webhook_ids", []):
            if id not in {webhook["id"] for webhook in self._webhooks.registered()}:
                raise unknown_id()
        self._feed.resend(delivery)
        return 202, delivery.event

    def _kept(self) -> list[Delivery]:
        """Return the events of the last 30 days to which a webhook subscribes, newest first."""
        return self._listed(self._feed.clock.now() - KEPT, self._feed.clock.now())

    def _listed(self, since: datetime, until: datetime) -> list[Delivery]:
        registered = self._webhooks.registered()
        return [
            each
            for each in self._feed.world.events_between(since, until)
            if not registered or any(subscribes(webhook, each.type) for webhook in registered)
        ]

    def _find(self, id: str) -> Delivery:
        found = next((each for each in self._kept() if each.id == id), None)
        if found is None:
            raise unknown_id()
        return found

    def _shown(self, delivery: Delivery) -> Json:
        """Return the event with the fields that PayPal adds when an event is read: its status and transmissions."""
        registered = self._webhooks.registered()
        urls = [webhook["url"] for webhook in registered if subscribes(webhook, delivery.type)] or [DEFAULT_URL]
        http_status = self._feed.statuses.get(delivery.id, 200)
        status = "SUCCESS" if 200 <= http_status < 300 else "PENDING"
        transmissions = [_transmission(delivery, url, http_status, status) for url in urls]
        return {**delivery.event, "status": status, "transmissions": transmissions}

    def _turn(self, call: Call, rel: str, size: int, index: int, found: list[Delivery]) -> Json:
        kept = {key: value for key, value in call.query.items() if key not in ("move_to", "index_time", "index_id")}
        at = found[index].event["create_time"]
        return link_to(call, {**kept, "page_size": size, "move_to": rel, "index_time": at, "index_id": index}, rel)


def _integer(call: Call, name: str, default: int, largest: int) -> int:
    text = call.query.get(name, str(default))
    if not text.isascii() or not text.isdigit() or not min(default, 1) <= int(text) <= largest:
        detail = {"field": name, "location": "query", "issue": f"Not a valid value of {name}"}
        raise ApiError(400, "VALIDATION_ERROR", "Invalid data provided", [detail])
    return int(text)


def _asked(call: Call, delivery: Delivery) -> bool:
    query, resource = call.query, delivery.event["resource"]
    transaction = query.get("transaction_id", "")
    return query.get("event_type", delivery.type) == delivery.type and (
        not transaction or transaction in (resource.get("id"), resource.get("sale_id"))
    )


def _time(call: Call, name: str) -> datetime | None:
    if name in call.query and parse_time(call.query[name]) is None:
        detail = {"field": name, "location": "query", "issue": "Not a valid date and time"}
        raise ApiError(400, "VALIDATION_ERROR", "Invalid data provided", [detail])
    return parse_time(call.query.get(name))


def _transmission(delivery: Delivery, url: str, http_status: int, status: str) -> Json:
    return {
        "webhook_url": url,
        "http_status": http_status,
        "response_headers": {},
        "transmission_id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{url}#{delivery.id}")),
        "status": status,
        "timestamp": shapes.seconds(delivery.at),
    }
