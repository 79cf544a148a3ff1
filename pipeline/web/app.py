"""The web application: PayPal's door, health, metrics; and whatever pages it is given."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import orjson
import structlog
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from pipeline import health
from pipeline.clock import Clock
from pipeline.database import Database, StoreDown
from pipeline.ingress import Door, Forged
from pipeline.paypal.errors import Malformed, Refused, Unavailable
from pipeline.web.body import SLOWEST_SECONDS, read
from pipeline.web.problem import Lost, on_fault, on_http_error, problem

log = structlog.get_logger(__name__)

WEBHOOKS = "/webhooks/paypal"
LARGEST_BODY = 256 * 1024  # bytes; PayPal's largest events are some 10 KiB


class Web:
    """What the routes need."""

    def __init__(self, door: Door, database: Database, clock: Clock, health_limit_seconds: int) -> None:
        self._door, self._database, self._clock, self._limit = door, database, clock, health_limit_seconds
        self._registry = CollectorRegistry()
        self._webhooks = Counter("smt_webhooks", "Webhooks by answer", ["status"], registry=self._registry)
        self._oldest_event = Gauge(
            "smt_oldest_event_seconds", "Age of the oldest unhandled event", registry=self._registry
        )
        self._oldest_mail = Gauge("smt_oldest_mail_seconds", "Age of the oldest unsent mail", registry=self._registry)

    def app(self, pages: Sequence[BaseRoute] = (), lost: Lost = on_http_error) -> Starlette:
        """`lost` answers what the router refuses itself."""
        routes = [
            Route(WEBHOOKS, self.webhook, methods=["POST"]),
            Route("/healthz", self.healthz),
            Route("/metrics", self.metrics),
            *pages,
        ]
        return _Site(self.webhook, routes=routes, exception_handlers={HTTPException: lost, Exception: on_fault})

    async def webhook(self, request: Request) -> Response:
        """PayPal's door: 200 only after the event is durable."""
        answer = await self._answer(request)
        self._webhooks.labels(answer.status_code).inc()
        return answer

    async def _answer(self, request: Request) -> Response:
        try:
            async with asyncio.timeout(SLOWEST_SECONDS):
                body = await read(request, LARGEST_BODY)
            if body is None:
                return problem(413, f"The body is larger than {LARGEST_BODY // 1024} KiB.")
            stored = await self._door.receive(request.headers, body)
        except Malformed as error:
            return problem(400, str(error))
        except (Refused, Forged) as error:
            log.warning("refused", reason=str(error))
            return problem(403, str(error))
        except (TimeoutError, ClientDisconnect):
            return problem(408, f"The body did not arrive within {SLOWEST_SECONDS} seconds.")
        except (Unavailable, StoreDown) as error:
            log.warning("unavailable", reason=str(error))
            return problem(
                503, "The event could not be stored now; please send it again.", headers={"Retry-After": "30"}
            )
        return Response(orjson.dumps({"id": stored.event_id, "outcome": stored.outcome}), media_type="application/json")

    async def healthz(self, request: Request) -> Response:
        """Whether work is being done: 503 past the limit, and when the database is away."""
        try:
            found = await asyncio.to_thread(health.look, self._database, self._clock.now(), self._limit)
        except StoreDown as error:
            return problem(503, str(error))
        body = {
            "status": "well" if found.is_well else "behind",
            "oldest_unhandled_event_seconds": round(found.oldest_event_seconds, 1),
            "oldest_unsent_mail_seconds": round(found.oldest_mail_seconds, 1),
            "limit_seconds": found.limit_seconds,
        }
        return JSONResponse(body, 200 if found.is_well else 503)

    async def metrics(self, request: Request) -> Response:
        """For Prometheus."""
        try:
            found = await asyncio.to_thread(health.look, self._database, self._clock.now(), self._limit)
        except StoreDown as error:
            return problem(503, str(error))
        self._oldest_event.set(found.oldest_event_seconds)
        self._oldest_mail.set(found.oldest_mail_seconds)
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)


class _Site(Starlette):
    """PayPal's posts go straight to their endpoint: the layers on the way would cost each as much as its signature."""

    def __init__(self, webhook: Callable[[Request], Awaitable[Response]], **parts: Any) -> None:
        super().__init__(**parts)
        self._webhook = webhook

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == WEBHOOKS and scope["method"] == "POST":
            await self._take(Request(scope, receive), send)
        else:
            await super().__call__(scope, receive, send)

    async def _take(self, request: Request, send: Send) -> None:
        try:
            answer = await self._webhook(request)
        except Exception as error:
            await (await on_fault(request, error))(request.scope, request.receive, send)
            raise  # so that it is logged
        await answer(request.scope, request.receive, send)
