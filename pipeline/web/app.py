"""The web application: PayPal's door, health, metrics; and whatever pages it is given."""

import asyncio
from collections.abc import Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from pipeline.clock import Clock
from pipeline.db.engine import Database, DatabaseUnavailableError
from pipeline.operations import health
from pipeline.web.metrics import MEDIA_TYPE, Metrics
from pipeline.web.problem import Lost, on_http_error, on_internal_error, problem
from pipeline.web.views.webhook import WebhookEndpoint
from pipeline.webhooks.receiver import WebhookReceiver

WEBHOOKS = "/webhooks/paypal"


class Web:
    """What the routes need."""

    def __init__(self, door: WebhookReceiver, database: Database, clock: Clock, health_limit_seconds: int) -> None:
        self._database, self._clock, self._limit = database, clock, health_limit_seconds
        self._metrics = Metrics()
        self._doorway = WebhookEndpoint(door, self._metrics)

    def app(self, pages: Sequence[BaseRoute] = (), lost: Lost = on_http_error) -> Starlette:
        """`lost` answers what the router refuses itself."""
        routes = [
            Route(WEBHOOKS, self._doorway, methods=["POST"]),
            Route("/healthz", self.healthz),
            Route("/metrics", self.metrics),
            *pages,
        ]
        return _Site(
            self._doorway, routes=routes, exception_handlers={HTTPException: lost, Exception: on_internal_error}
        )

    async def healthz(self, request: Request) -> Response:
        """Whether work is being done: 503 past the limit, and when the database is away."""
        try:
            found = await asyncio.to_thread(health.check_health, self._database, self._clock.now(), self._limit)
        except DatabaseUnavailableError as error:
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
            found = await asyncio.to_thread(health.check_health, self._database, self._clock.now(), self._limit)
        except DatabaseUnavailableError as error:
            return problem(503, str(error))
        return Response(self._metrics.render(found), media_type=MEDIA_TYPE)


class _Site(Starlette):
    """PayPal's posts go straight to the door."""

    def __init__(self, doorway: ASGIApp, **parts: Any) -> None:
        super().__init__(**parts)
        self._doorway = doorway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        posted = scope["type"] == "http" and scope["path"] == WEBHOOKS and scope["method"] == "POST"
        await (self._doorway if posted else super().__call__)(scope, receive, send)
