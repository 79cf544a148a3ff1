"""The ASGI applications: webhook endpoint, health and the pages that are passed in; and the one for monitoring."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from pipeline.db.engine import DatabaseUnavailableError
from pipeline.operations.health import Health, HealthCheck
from pipeline.web.metrics import MEDIA_TYPE, Metrics
from pipeline.web.problem import Lost, on_http_error, on_internal_error
from pipeline.web.snapshot import Snapshot
from pipeline.web.views.webhook import WebhookEndpoint
from pipeline.webhooks.receiver import WebhookReceiver

SubscriptionCounter = Callable[[], Mapping[tuple[str, bool], int]]

WEBHOOKS = "/webhooks/paypal"


class Web:
    """Builds the public application, and the one for monitoring, which has a listener of its own."""

    def __init__(
        self, receiver: WebhookReceiver, health_check: HealthCheck, count_subscriptions: SubscriptionCounter
    ) -> None:
        """`count_subscriptions` returns the number of subscriptions by status, and by whether they are past due."""
        self._health_check, self._count_subscriptions = health_check, count_subscriptions
        self._snapshot = Snapshot(self._check)
        self._metrics = Metrics()
        self._endpoint = WebhookEndpoint(receiver, self._metrics)

    def app(self, pages: Sequence[BaseRoute] = (), lost: Lost = on_http_error) -> Starlette:
        """Return the public application. `lost` answers requests that the router refuses."""
        routes = [Route(WEBHOOKS, self._endpoint, methods=["POST"]), Route("/healthz", self.healthz), *pages]
        app = _Application(
            self._endpoint, routes=routes, exception_handlers={HTTPException: lost, Exception: on_internal_error}
        )
        app.router.redirect_slashes = False  # the redirect would contain the Host header and a link's secret
        return app

    def monitoring_app(self) -> Starlette:
        """Return the application for monitoring: `/healthz` with all figures, and `/metrics`."""
        routes = [Route("/healthz", self.health_details), Route("/metrics", self.metrics)]
        handlers: dict[Any, Any] = {HTTPException: on_http_error, Exception: on_internal_error}
        return Starlette(routes=routes, exception_handlers=handlers)

    async def healthz(self, request: Request) -> Response:
        """Return whether the system is well, and nothing else: strangers can read it. 503 if the pipeline stalls.

        The state is a few seconds old, so a flood of requests does not become a flood of queries.
        """
        found = await self._snapshot.get()
        return JSONResponse({"status": found.status}, 503 if found.is_stalled else 200)

    async def health_details(self, request: Request) -> Response:
        """Return all figures, with the same status code."""
        found = await self._check()
        return JSONResponse(found.as_json(), 503 if found.is_stalled else 200)

    async def metrics(self, request: Request) -> Response:
        """Return the metrics for Prometheus; always 200, since an outage of the database is one of the figures."""
        self._metrics.set_subscriptions(await asyncio.to_thread(self._subscriptions_by_status))
        return Response(self._metrics.render(await self._check()), media_type=MEDIA_TYPE)

    async def _check(self) -> Health:
        return await asyncio.to_thread(self._health_check.take)

    def _subscriptions_by_status(self) -> Mapping[tuple[str, bool], int]:
        try:
            return self._count_subscriptions()
        except DatabaseUnavailableError:
            return {}  # unknown figures are absent


class _Application(Starlette):
    """Sends PayPal's requests directly to the endpoint, without Starlette's middleware, for speed."""

    def __init__(self, endpoint: ASGIApp, **options: Any) -> None:
        super().__init__(**options)
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_webhook = scope["type"] == "http" and scope["path"] == WEBHOOKS and scope["method"] == "POST"
        await (self._endpoint if is_webhook else super().__call__)(scope, receive, send)
