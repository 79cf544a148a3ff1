"""PayPal's posts. Spoken to in ASGI itself: the usual layers on the way would cost a webhook as much as its signature.

https://asgi.readthedocs.io/en/latest/specs/www.html
"""

import asyncio

import orjson
import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from pipeline.db.engine import DatabaseUnavailableError
from pipeline.paypal.errors import MalformedDeliveryError, PaypalUnavailableError, SignatureError
from pipeline.web.forms import SLOWEST_SECONDS, read_body
from pipeline.web.metrics import Metrics
from pipeline.web.problem import on_internal_error, problem
from pipeline.webhooks.receiver import TransmissionReplayedError, WebhookReceiver

log = structlog.get_logger(__name__)

LARGEST_BODY = 256 * 1024  # bytes; PayPal's largest events are some 10 KiB


class WebhookEndpoint:
    """Answers PayPal's posts: 200 only after the event is durable."""

    def __init__(self, door: WebhookReceiver, metrics: Metrics) -> None:
        self._door, self._metrics = door, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, as ASGI calls it."""
        try:
            answer = await self._answer(scope, receive)
        except Exception as error:
            self._metrics.count_webhook(503)
            await (await on_internal_error(Request(scope), error))(scope, receive, send)
            raise  # so that it is logged
        self._metrics.count_webhook(answer.status_code)
        await answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive) -> Response:
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        try:
            async with asyncio.timeout(SLOWEST_SECONDS):
                body = await read_body(receive, dict(headers).get("content-length", ""), LARGEST_BODY)
            if body is None:
                return problem(413, f"The body is larger than {LARGEST_BODY // 1024} KiB.")
            stored = await self._door.receive(headers, body)
        except MalformedDeliveryError as error:
            return problem(400, str(error))
        except (SignatureError, TransmissionReplayedError) as error:
            log.warning("refused", reason=str(error))
            return problem(403, str(error))
        except (TimeoutError, ClientDisconnect):
            return problem(408, f"The body did not arrive within {SLOWEST_SECONDS} seconds.")
        except (PaypalUnavailableError, DatabaseUnavailableError) as error:
            log.warning("unavailable", reason=str(error))
            return problem(
                503, "The event could not be stored now; please send it again.", headers={"Retry-After": "30"}
            )
        return Response(orjson.dumps({"id": stored.event_id, "outcome": stored.outcome}), media_type="application/json")
