"""Webhook endpoint for PayPal.

It uses ASGI directly: Starlette's layers would take as long as the verification of the signature.

https://asgi.readthedocs.io/en/latest/specs/www.html
"""

import asyncio

import orjson
import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from pipeline.db.engine import DatabaseUnavailableError
from pipeline.limited_log import LimitedLog
from pipeline.paypal.errors import MalformedDeliveryError, PaypalUnavailableError, SignatureError
from pipeline.web.forms import SLOWEST_SECONDS, read_body
from pipeline.web.metrics import Metrics
from pipeline.web.problem import on_internal_error, problem
from pipeline.webhooks.receiver import TransmissionReplayedError, WebhookReceiver

log = structlog.get_logger(__name__)

LARGEST_BODY = 256 * 1024  # bytes; PayPal's largest events have about 10 KiB
LONGEST_REASON = 200  # characters in the log; a header of a stranger may be part of it


class WebhookEndpoint:
    """ASGI application that answers PayPal's webhooks. It answers 200 only after the event is on disk."""

    def __init__(self, receiver: WebhookReceiver, metrics: Metrics) -> None:
        self._receiver, self._metrics = receiver, metrics
        self._warn = LimitedLog(log.warning)  # anyone can post here

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI interface) and count its status."""
        try:
            response = await self._respond(scope, receive)
        except Exception as error:
            self._metrics.count_webhook(503)
            await (await on_internal_error(Request(scope), error))(scope, receive, send)
            raise  # so that the server logs it
        self._metrics.count_webhook(response.status_code)
        await response(scope, receive, send)

    async def _respond(self, scope: Scope, receive: Receive) -> Response:
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        try:
            async with asyncio.timeout(SLOWEST_SECONDS):
                body = await read_body(receive, dict(headers).get("content-length", ""), LARGEST_BODY)
            if body is None:
                return self._unreadable(413, f"The body is larger than {LARGEST_BODY // 1024} KiB.")
            stored = await self._receiver.receive(headers, body)
        except MalformedDeliveryError as error:
            return self._unreadable(400, str(error))
        except (SignatureError, TransmissionReplayedError) as error:
            self._warn("webhook_refused", reason=str(error))
            return problem(403, str(error))
        except (TimeoutError, ClientDisconnect):
            return self._unreadable(408, f"The body did not arrive within {SLOWEST_SECONDS} seconds.")
        except (PaypalUnavailableError, DatabaseUnavailableError) as error:
            self._warn("webhook_deferred", reason=str(error))
            return problem(503, "The event could not be stored. Please send it again.", headers={"Retry-After": "30"})
        return Response(orjson.dumps({"id": stored.event_id, "outcome": stored.outcome}), media_type="application/json")

    def _unreadable(self, status: int, reason: str) -> Response:
        """Return the problem, and log it: if PayPal's own deliveries are unreadable, the operator must see it."""
        self._warn("webhook_unreadable", status=status, reason=reason[:LONGEST_REASON])
        return problem(status, reason)
