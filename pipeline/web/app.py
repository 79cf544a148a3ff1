"""The ASGI application: webhook endpoint, health, metrics, and the pages that are passed in."""

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
from pipeline.queries import subscriptions
from pipeline.web.metrics import MEDIA_TYPE, Metrics
from pipeline.web.problem import Lost, on_http_error, on_internal_error, problem
from pipeline.web.views.webhook import WebhookEndpoint
from pipeline.webhooks.receiver import WebhookReceiver

WEBHOOKS = "/webhooks/paypal"


class Web:
    """Builds the application and answers `/healthz` and `/metrics`."""

    def __init__(self, receiver: WebhookReceiver, database: Database, clock: Clock, health_limit_seconds: int) -> None:
        self._database, self._clock, self._limit = database, clock, health_limit_seconds
        self._metrics = Metrics()
        self._endpoint = WebhookEndpoint(receiver, self._metrics)

    def app(self, pages: Sequence[BaseRoute] = (), lost: Lost = on_http_error) -> Starlette:
        """Return the application. `lost` answers requests that the router refuses."""
        routes = [
            Route(WEBHOOKS, self._endpoint, methods=["POST"]),
            Route("/healthz", self.healthz),
            Route("/metrics", self.metrics),
            *pages,
        ]
        app = _Application(
            self._endpoint, routes=routes, exception_handlers={HTTPException: lost, Exception: on_internal_error}
        )
        app.router.redirect_slashes = False  # the redirect would contain the Host header and a link's secret
        return app

    async def healthz(self, request: Request) -> Response:
        """Return the ages of the oldest event and mail. 503 if one exceeds the limit or the database is down."""
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
        """Return the metrics for Prometheus."""
        try:
            found = await asyncio.to_thread(health.check_health, self._database, self._clock.now(), self._limit)
            self._metrics.set_subscriptions(await asyncio.to_thread(self._count_subscriptions))
        except DatabaseUnavailableError as error:
            return problem(503, str(error))
        return Response(self._metrics.render(found), media_type=MEDIA_TYPE)

    def _count_subscriptions(self) -> dict[tuple[str, bool], int]:
        with self._database.reading() as session:
            return subscriptions.count_by_status(session, self._clock.now())


class _Application(Starlette):
    """Sends PayPal's requests directly to the endpoint, without Starlette's middleware, for speed."""

    def __init__(self, endpoint: ASGIApp, **options: Any) -> None:
        super().__init__(**options)
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_webhook = scope["type"] == "http" and scope["path"] == WEBHOOKS and scope["method"] == "POST"
        await (self._endpoint if is_webhook else super().__call__)(scope, receive, send)
