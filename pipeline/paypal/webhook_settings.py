"""Read and change the webhooks of the REST app at PayPal.

Webhooks Management v1: https://developer.paypal.com/docs/api/webhooks/v1/
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from pipeline.paypal.api import PaypalApi
from pipeline.paypal.errors import PaypalUnavailableError

# An app has at most ten: https://developer.paypal.com/api/webhooks/v1/errors/webhook_number_limit_exceeded
MOST_WEBHOOKS = 10
ALL_TYPES = "*"  # PayPal's wildcard: all types, also those that it adds later
_PATH = "/v1/notifications/webhooks"
_JSON = {"Accept": "application/json", "Content-Type": "application/json"}


@dataclass(frozen=True, slots=True)
class Webhook:
    """A webhook of the app. `types` are the event types that PayPal sends to `url`."""

    id: str
    url: str
    types: frozenset[str]


class SettingsRequest:
    """A request that the SDK's client executes."""

    def __init__(self, verb: str, path: str, body: Any = None) -> None:
        self.verb, self.path, self.body = verb, path, body
        self.headers: dict[str, str] = dict(_JSON)


def list_webhooks(paypal: PaypalApi) -> list[Webhook]:
    """Return the app's webhooks. Raises PaypalRejectedError or PaypalUnavailableError, like all functions here."""
    return [_read(each) for each in _items(paypal.execute(SettingsRequest("GET", _PATH)), "webhooks")]


def offered_types(paypal: PaypalApi) -> frozenset[str]:
    """Return the event types that PayPal offers to this app."""
    offered = paypal.execute(SettingsRequest("GET", "/v1/notifications/webhooks-event-types"))
    return _names(_items(offered, "event_types"))


def create_webhook(paypal: PaypalApi, url: str, types: Iterable[str]) -> Webhook:
    """Create a webhook and return it. PayPal refuses a URL that another webhook of the app has."""
    body = {"url": url, "event_types": _named(types)}
    return _read(paypal.execute(SettingsRequest("POST", _PATH, body)))


def replace_types(paypal: PaypalApi, id: str, types: Iterable[str]) -> None:
    """Replace the event types of a webhook."""
    change = [{"op": "replace", "path": "/event_types", "value": _named(types)}]
    paypal.execute(SettingsRequest("PATCH", f"{_PATH}/{quote(id, safe='')}", change))


def request_test_event(paypal: PaypalApi, webhook_id: str, type: str) -> None:
    """Let PayPal send a mock event to the webhook. PayPal signs it for its simulator, not for the webhook."""
    body = {"webhook_id": webhook_id, "event_type": type}
    paypal.execute(SettingsRequest("POST", "/v1/notifications/simulate-event", body))


def _read(document: Any) -> Webhook:
    id, url = (document.get(key) if isinstance(document, dict) else None for key in ("id", "url"))
    if not isinstance(id, str) or not isinstance(url, str):
        raise PaypalUnavailableError("PayPal's list of webhooks has an entry without id or url; try again")
    return Webhook(id, url, _names(_items(document, "event_types")))


def _items(document: dict[str, Any], key: str) -> list[Any]:
    items = document.get(key)
    return items if isinstance(items, list) else []


def _names(items: list[Any]) -> frozenset[str]:
    return frozenset(each["name"] for each in items if isinstance(each, dict) and isinstance(each.get("name"), str))


def _named(types: Iterable[str]) -> list[dict[str, str]]:
    return [{"name": each} for each in sorted(types)]
