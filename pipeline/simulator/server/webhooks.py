"""Webhooks Management API: webhooks of the app, event types, test events, and the check of a signature.

Errors have the names of https://developer.paypal.com/api/webhooks/v1/errors/.
"""

import base64
import json
import zlib
from collections.abc import Iterable
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from pipeline.simulator import ids, shapes
from pipeline.simulator.server.answers import Answer, ApiError, Call, invalid, patches
from pipeline.simulator.server.event_types import ALL, EVENT_TYPES
from pipeline.simulator.server.feed import EventFeed
from pipeline.simulator.server.mock_events import mock_event
from pipeline.simulator.server.signing import Signer
from pipeline.simulator.timeline import Delivery, Json

MOST_WEBHOOKS = 10  # per app
MOCK_WEBHOOK_ID = "WEBHOOK_ID"  # PayPal signs test events with this text as webhook id
_LOOPBACK = ("127.0.0.1", "localhost")  # allowed with http, because the simulator delivers without TLS
_SIGNED = ("transmission_id", "transmission_time", "cert_url", "auth_algo", "transmission_sig", "webhook_id")


class Webhooks:
    """The webhooks of the vendor's app. `signer` is needed to check signatures."""

    def __init__(self, feed: EventFeed, signer: Signer | None = None) -> None:
        self.signer = signer
        self._feed = feed
        self._webhooks: dict[str, Json] = {}

    def register(self, id: str, url: str, types: Iterable[str]) -> None:
        """Add a webhook with this id, as if the vendor had created it before."""
        offered = [{"name": type} for type in sorted(types) if type in EVENT_TYPES]
        self._webhooks[id] = {"id": id, "url": url, "event_types": offered, "links": _links(id)}

    def registered(self) -> list[Json]:
        """Return all webhooks with id, url and event types."""
        return list(self._webhooks.values())

    def create(self, call: Call) -> Answer:
        """Add a webhook. Raises ApiError for the eleventh, a known URL, and an unknown event type."""
        url, types = _url(call.body.get("url")), _types(call.body.get("event_types"))
        if any(each["url"] == url for each in self._webhooks.values()):
            raise ApiError(400, "WEBHOOK_URL_ALREADY_EXISTS", "Webhook URL already exists.")
        if len(self._webhooks) >= MOST_WEBHOOKS:
            raise ApiError(400, "WEBHOOK_NUMBER_LIMIT_EXCEEDED", "Webhook number limit exceeded.")
        id = ids.payment(self._feed.rng)
        self._webhooks[id] = {"id": id, "url": url, "event_types": types, "links": _links(id)}
        return 201, self._webhooks[id]

    def list_page(self, call: Call) -> Answer:
        """List the webhooks of the app."""
        if call.query.get("anchor_type", "APPLICATION") not in ("APPLICATION", "ACCOUNT"):
            raise _validation("anchor_type", "Not a valid anchor type")
        return 200, {"webhooks": self.registered()}

    def show(self, call: Call) -> Answer:
        """Return one webhook."""
        return 200, self._find(call.id)

    def patch(self, call: Call) -> Answer:
        """Replace the URL or the event types."""
        webhook = dict(self._find(call.id))
        for operation, path, value in patches(call):
            if operation != "replace" or path not in ("/url", "/event_types"):
                raise _validation(path, "Only replace of /url and /event_types is supported")
            webhook[path[1:]] = _url(value) if path == "/url" else _types(value)
        self._webhooks[call.id] = webhook
        return 200, webhook

    def delete(self, call: Call) -> Answer:
        """Delete a webhook."""
        del self._webhooks[self._find(call.id)["id"]]
        return 204, None

    def event_types(self, _: Call) -> Answer:
        """List all event types."""
        return 200, {"event_types": list(EVENT_TYPES.values())}

    def event_types_of(self, call: Call) -> Answer:
        """List the event types of a webhook."""
        return 200, {"event_types": self._find(call.id)["event_types"]}

    def simulate(self, call: Call) -> Answer:
        """Send a test event. It is signed with the webhook id WEBHOOK_ID and never appears in the list of events."""
        kind = call.body.get("event_type")
        if kind not in EVENT_TYPES:
            raise _validation("event_type", "Not a valid event type")
        if "webhook_id" in call.body:
            self._find(str(call.body["webhook_id"]))
        else:
            _url(call.body.get("url"))
        event = mock_event(str(kind))
        self._feed.resend(Delivery(self._feed.clock.now(), event))
        return 202, event

    def verify(self, call: Call) -> Answer:
        """Check the signature of a webhook. The event must be the bytes that PayPal sent."""
        for name in _SIGNED:
            if not isinstance(call.body.get(name), str):
                raise _validation(name, "Required field is missing")
        if not isinstance(call.body.get("webhook_event"), dict):
            raise _validation("webhook_event", "Required field is missing")
        valid = self.signer is not None and _is_signed(self.signer, call)
        return 200, {"verification_status": "SUCCESS" if valid else "FAILURE"}

    def _find(self, id: str) -> Json:
        if id not in self._webhooks:
            raise unknown_id()
        return self._webhooks[id]


def unknown_id() -> ApiError:
    """Return the error for an unknown webhook or event."""
    return ApiError(404, "INVALID_RESOURCE_ID", "Resource id is invalid")


def subscribes(webhook: Json, kind: str) -> bool:
    """Return whether a webhook receives events of this type."""
    return any(each["name"] in (ALL, kind) for each in webhook["event_types"])


def _url(value: object) -> str:
    parts = urlsplit(value) if isinstance(value, str) and len(value) <= 2048 else None
    local = parts is not None and parts.scheme == "http" and parts.hostname in _LOOPBACK
    if parts is None or not parts.hostname or not (parts.scheme == "https" or local):
        raise _validation("url", "Not a valid webhook URL")
    return parts.geturl()


def _types(value: object) -> list[Json]:
    names = [each.get("name") for each in value if isinstance(each, dict)] if isinstance(value, list) else []
    if not names or any(name != ALL and name not in EVENT_TYPES for name in names):
        raise _validation("event_types", "Not a valid event type")
    return [EVENT_TYPES[str(name)] if name != ALL else {"name": ALL, "description": "ALL"} for name in names]


def _validation(field: str, issue: str) -> ApiError:
    detail = {"field": field, "location": "body", "issue": issue}
    return ApiError(400, "VALIDATION_ERROR", "Invalid data provided", [detail])


def _links(id: str) -> list[Json]:
    url = f"{shapes.API}/v1/notifications/webhooks/{id}"
    return [shapes.link(url, "self"), shapes.link(url, "update", "PATCH"), shapes.link(url, "delete", "DELETE")]


def _is_signed(signer: Signer, call: Call) -> bool:
    body, raw = call.body, _event_bytes(call.raw)
    key = x509.load_pem_x509_certificate(signer.leaf_pem).public_key()
    if body["cert_url"] != signer.cert_url or not isinstance(key, rsa.RSAPublicKey):
        return False
    parts = (body["transmission_id"], body["transmission_time"], body["webhook_id"], str(zlib.crc32(raw)))
    try:
        signature = base64.b64decode(body["transmission_sig"], validate=True)
        key.verify(signature, "|".join(parts).encode(), padding.PKCS1v15(), hashes.SHA256())
    except (ValueError, InvalidSignature):
        return False
    return True


def _event_bytes(raw: bytes) -> bytes:
    """Return the bytes of the member `webhook_event`, exactly as they stand in the request."""
    text = raw.decode("utf-8")
    start = text.find("{", text.find('"webhook_event"'))
    if start < 0:
        raise invalid("MISSING_REQUIRED_PARAMETER", "/webhook_event")
    _, end = json.JSONDecoder().raw_decode(text, start)
    return text[start:end].encode()
