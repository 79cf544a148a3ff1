"""Simulated PayPal REST API: every call that a vendor of subscriptions needs.

It answers as PayPal does (Subscriptions v1, Catalog Products v1, Payments v1 and v2, Webhooks Management v1, Transaction
Search v1, Disputes v1; errors with `name`, `message` and `debug_id`), requires a token and can be set to fail. Unknown
paths are answered 404 and recorded in `unknown`.
"""

import base64
import hmac
import itertools
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from random import Random
from urllib.parse import parse_qs

import anyio
import orjson
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from pipeline.clock import Clock, SystemClock
from pipeline.simulator.server.answers import ApiError, Call, Operation
from pipeline.simulator.server.approval_page import nothing_to_approve
from pipeline.simulator.server.faults import Faults, Misbehaviour, PendingFailure
from pipeline.simulator.server.feed import EventCallback, EventFeed
from pipeline.simulator.server.loopback import serve
from pipeline.simulator.server.operations import Services, operations
from pipeline.simulator.server.signing import Signer
from pipeline.simulator.server.subscriptions import APPROVE
from pipeline.simulator.timeline import Delivery, Json
from pipeline.simulator.world import PaypalState

Endpoint = Callable[[Request], Awaitable[Response]]

TOKEN_PATH = "/v1/oauth2/token"  # noqa: S105
EXPIRES_IN = 32_400  # lifetime of a token in seconds, as at PayPal
REPORTING_DELAY = timedelta(hours=3)  # new transactions appear in reports after up to three hours
_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


class FakePaypalApi:
    """The API as an ASGI application, `app`.

    `asked` lists all requests as `GET /v1/…`, `unknown` those with an unknown path. Tokens expire by `clock`. A stalled
    request ends when the client disconnects, at the latest after `stall_seconds`. Events that API calls cause are in
    `events`; each is passed to `on_event` after the answer. `seed` decides new ids. `signer` checks signatures of webhooks.
    `faults` delays new objects, `reporting.delay` the reports.
    """

    def __init__(
        self,
        world: PaypalState | None = None,
        *,
        client_id: str = "simulator",
        client_secret: str = "simulator-secret",  # noqa: S107 - valid only for this simulation
        clock: Clock | None = None,
        stall_seconds: float = 60.0,
        on_event: EventCallback | None = None,
        signer: Signer | None = None,
        seed: int = 7,
    ) -> None:
        self.world = world or PaypalState()
        self.asked: list[str] = []
        self.unknown: list[str] = []
        self._basic = "Basic " + base64.b64encode(f"{client_id}:{client_secret}".encode()).decode("ascii")
        self._clock, self._stall_seconds = clock or SystemClock(), stall_seconds
        self._feed = EventFeed(self.world, self._clock, Random(seed), on_event)  # noqa: S311 - ids, not secrets
        self.faults = Faults()
        self._services = Services.over(self._feed, self.faults, REPORTING_DELAY, signer)
        self.subscribing, self.webhooks = self._services.subscriptions, self._services.webhooks
        self.reporting = self._services.reporting
        self._tokens: dict[str, datetime] = {}
        self._count = itertools.count(1)
        self.app: ASGIApp = Starlette(routes=self._routes())

    @property
    def events(self) -> list[Delivery]:
        """All events that API calls and approvals caused."""
        return self._feed.events

    def set_on_event(self, on_event: EventCallback) -> None:
        """Pass the next events to this callback."""
        self._feed.on_event = on_event

    def serve(self) -> AbstractContextManager[str]:
        """Serve this API on a free loopback port during the block. Yields the base URL."""
        return serve(self.app)

    def misbehave(self, how: Misbehaviour, times: int = 1, path: str = "", *, retry_after: int | None = None) -> None:
        """Let the next `times` requests fail. Token requests never fail unless `path` is the beginning of their path.

        `stall`: no answer. `500`, `429`: PayPal's errors, with `Retry-After: retry_after` (seconds) if given. `garbage`:
        200 with a page that is not JSON. `expire_token`: all tokens issued so far become invalid.
        """
        if how == "expire_token":
            self._tokens.clear()
        else:
            self.faults.failures.append(PendingFailure(how, times, path, retry_after))

    def _routes(self) -> list[Route]:
        answers = [
            Route(path, self._recorded(self._answered(operation)), methods=[method])
            for method, path, operation in operations(self._services)
        ]
        token = Route(TOKEN_PATH, self._recorded(self._issue_token), methods=["POST"])
        page = Route(APPROVE, self._recorded(self._approve), methods=["GET", "POST"])
        return [token, *answers, page, Route("/{rest:path}", self._recorded(self._no_such_path), methods=_METHODS)]

    def _recorded(self, endpoint: Endpoint) -> Endpoint:
        """Wrap the endpoint: record the request, and answer with a pending failure if there is one."""

        async def recorded(request: Request) -> Response:
            self.asked.append(f"{request.method} {request.url.path}")
            failure = self.faults.next_failure(request.url.path, TOKEN_PATH)
            return await (self._fail(failure, request) if failure else endpoint(request))

        return recorded

    async def _fail(self, failure: PendingFailure, request: Request) -> Response:
        if failure.how == "stall":
            with anyio.move_on_after(self._stall_seconds):
                while (await request.receive())["type"] != "http.disconnect":
                    pass
        if failure.how == "garbage":
            return Response("<html><body>Just a moment…</body></html>", media_type="application/json")
        if failure.how == "429":
            limited = ApiError(429, "RATE_LIMIT_REACHED", "Too many requests. Blocked due to rate limiting.")
            answer = self._error(limited)
        else:
            answer = self._error(ApiError(500, "INTERNAL_SERVER_ERROR", "An internal server error occurred."))
        if failure.retry_after is not None:
            answer.headers["Retry-After"] = str(failure.retry_after)
        return answer

    async def _issue_token(self, request: Request) -> Response:
        if not hmac.compare_digest(request.headers.get("authorization", "").encode(), self._basic.encode()):
            refusal = {"error": "invalid_client", "error_description": "Client Authentication failed"}
            return self._json(refusal, 401)
        if (await request.body()).decode("utf-8", "replace").strip() != "grant_type=client_credentials":
            refusal = {"error": "unsupported_grant_type", "error_description": "Unsupported grant_type"}
            return self._json(refusal, 400)
        token = f"A21AA-simulator-{next(self._count)}"
        self._tokens[token] = self._clock.now() + timedelta(seconds=EXPIRES_IN)
        return self._json(
            {
                "scope": "https://uri.paypal.com/services/subscriptions https://uri.paypal.com/services/reporting/search/read",
                "access_token": token,
                "token_type": "Bearer",
                "app_id": "APP-80W284485P519543T",
                "expires_in": EXPIRES_IN,
                "nonce": f"{self._clock.now():%Y-%m-%dT%H:%M:%SZ}{token}",
            }
        )

    def _answered(self, operation: Operation) -> Endpoint:
        """Return the endpoint of an operation: it checks token and body, and sends the events after the answer."""

        async def answer(request: Request) -> Response:
            refusal = self._refuse_token(request)
            if refusal:
                return refusal
            try:
                status, body = operation(await _call(request))
            except ApiError as error:
                return self._error(error)
            response = Response(status_code=status) if body is None else self._json(body, status)
            response.background = BackgroundTask(self._feed.send)
            return response

        return answer

    async def _approve(self, request: Request) -> Response:
        id = request.query_params.get("ba_token", "")
        if request.method == "GET":
            page = self.subscribing.page(id)
            return HTMLResponse(page) if page else HTMLResponse(nothing_to_approve(), 404)
        entered = parse_qs((await request.body()).decode("utf-8", "replace"))
        target = self.subscribing.approve(id, entered.get("email", [""])[0].strip())
        if target is None:
            return HTMLResponse(nothing_to_approve(), 404)
        return RedirectResponse(target, 303, background=BackgroundTask(self._feed.send))

    def _refuse_token(self, request: Request) -> Response | None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            message = (
                "Authentication failed due to missing authorization header, or invalid authentication credentials."
            )
            return self._error(ApiError(401, "AUTHENTICATION_FAILURE", message))
        expires = self._tokens.get(token)
        if expires is None or expires <= self._clock.now():
            refusal = {"error": "invalid_token", "error_description": "Token signature verification failed"}
            return self._json(refusal, 401)
        return None

    async def _no_such_path(self, request: Request) -> Response:
        self.unknown.append(f"{request.method} {request.url.path}")
        details = [{"issue": "INVALID_URI", "description": "The URI requested is invalid."}]
        return self._error(ApiError(404, "RESOURCE_NOT_FOUND", "The specified resource does not exist.", details))

    def _error(self, error: ApiError) -> Response:
        debug_id = f"sim{next(self._count):010x}"
        about = {"name": error.name, "message": error.message, "debug_id": debug_id}
        link = {"href": f"https://developer.paypal.com/api/rest/responses/#{error.name}", "rel": "information_link"}
        body = {**about, "details": error.details, "links": [{**link, "method": "GET"}]}
        return JSONResponse(body, error.status, headers={"Paypal-Debug-Id": debug_id})

    def _json(self, body: Json, status: int = 200) -> Response:
        return JSONResponse(body, status, headers={"Paypal-Debug-Id": f"sim{next(self._count):010x}"})


async def _call(request: Request) -> Call:
    """Return the request as a Call. Raises ApiError for a body with another media type, or one that is not JSON."""
    raw, sent = await request.body(), None
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if request.method in ("POST", "PATCH") and media_type != "application/json":
        message = "The server does not support the request payload's media type."
        raise ApiError(415, "UNSUPPORTED_MEDIA_TYPE", message)
    if raw:
        try:
            sent = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            details = [{"issue": "MALFORMED_REQUEST_JSON", "description": "The request JSON is not well formed."}]
            message = "Request is not well-formed, syntactically incorrect, or violates schema."
            raise ApiError(400, "INVALID_REQUEST", message, details) from error
    base = str(request.base_url).rstrip("/")
    path, query = request.url.path, dict(request.query_params)
    return Call(path, request.path_params, query, request.headers, sent, raw, base)
