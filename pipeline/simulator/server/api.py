"""Simulated PayPal REST API: tokens, look-ups, and creation, approval and cancellation of subscriptions.

It answers as PayPal does (Subscriptions v1, Payments v1; errors with `name`, `message` and `debug_id`), requires a token
and can be set to fail. Unknown paths are answered 404 and recorded in `unknown`.
"""

import base64
import hmac
import itertools
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal
from urllib.parse import parse_qs

import anyio
import orjson
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from pipeline.clock import Clock, SystemClock
from pipeline.simulator.server.approval_page import nothing_to_approve
from pipeline.simulator.server.loopback import serve
from pipeline.simulator.server.subscriptions import APPROVE, ApiError, ApiSubscriptions, EventCallback
from pipeline.simulator.timeline import Json, Kind
from pipeline.simulator.world import PaypalState

Misbehaviour = Literal["stall", "500", "429", "garbage", "expire_token"]
Endpoint = Callable[[Request], Awaitable[Response]]

TOKEN_PATH = "/v1/oauth2/token"  # noqa: S105
READS: dict[Kind, str] = {
    "subscription": "/v1/billing/subscriptions/{id}",
    "plan": "/v1/billing/plans/{id}",
    "sale": "/v1/payments/sale/{id}",
    "refund": "/v1/payments/refund/{id}",
}
SUBSCRIPTIONS = "/v1/billing/subscriptions"
EXPIRES_IN = 32_400  # lifetime of a token in seconds, as at PayPal
_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


@dataclass(slots=True)
class _PendingFailure:
    """A failure for the next `times` requests whose path begins with `path`."""

    how: Misbehaviour
    times: int
    path: str


class FakePaypalApi:
    """The API as an ASGI application, `app`.

    `asked` lists all requests as `GET /v1/…`, `unknown` those with an unknown path. Tokens expire by `clock`. A stalled
    request ends when the client disconnects, at the latest after `stall_seconds`. Events that API calls cause are in
    `subscribing.events`; each is passed to `on_event` after the answer. `seed` decides the ids of new subscriptions.
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
        seed: int = 7,
    ) -> None:
        self.world = world or PaypalState()
        self.asked: list[str] = []
        self.unknown: list[str] = []
        self._basic = "Basic " + base64.b64encode(f"{client_id}:{client_secret}".encode()).decode("ascii")
        self._clock, self._stall_seconds = clock or SystemClock(), stall_seconds
        self.subscribing = ApiSubscriptions(self.world, self._clock, on_event, seed)
        self._tokens: dict[str, datetime] = {}
        self._failures: list[_PendingFailure] = []
        self._count = itertools.count(1)
        self.app = Starlette(routes=self._routes())

    def serve(self) -> AbstractContextManager[str]:
        """Serve this API on a free loopback port during the block. Yields the base URL."""
        return serve(self.app)

    def misbehave(self, how: Misbehaviour, times: int = 1, path: str = "") -> None:
        """Let the next `times` requests fail. Token requests never fail unless `path` is the beginning of their path.

        `stall`: no answer. `500`, `429`: PayPal's errors. `garbage`: 200 with a page that is not JSON. `expire_token`: all
        tokens issued so far become invalid.
        """
        if how == "expire_token":
            self._tokens.clear()
        else:
            self._failures.append(_PendingFailure(how, times, path))

    def _routes(self) -> list[Route]:
        reads = [Route(path, self._recorded(self._reader(kind)), methods=["GET"]) for kind, path in READS.items()]
        token = Route(TOKEN_PATH, self._recorded(self._issue_token), methods=["POST"])
        cancel = SUBSCRIPTIONS + "/{id}/cancel"
        writes = [
            Route(SUBSCRIPTIONS, self._recorded(self._create), methods=["POST"]),
            Route(cancel, self._recorded(self._cancel), methods=["POST"]),
            Route(APPROVE, self._recorded(self._approve), methods=["GET", "POST"]),
        ]
        return [token, *reads, *writes, Route("/{rest:path}", self._recorded(self._no_such_path), methods=_METHODS)]

    def _recorded(self, endpoint: Endpoint) -> Endpoint:
        """Wrap the endpoint: record the request, and answer with a pending failure if there is one."""

        async def recorded(request: Request) -> Response:
            self.asked.append(f"{request.method} {request.url.path}")
            failure = self._next_failure(request.url.path)
            return await (self._fail(failure, request) if failure else endpoint(request))

        return recorded

    def _next_failure(self, path: str) -> Misbehaviour | None:
        for failure in self._failures:
            if failure.times > 0 and path.startswith(failure.path) and (failure.path or path != TOKEN_PATH):
                failure.times -= 1
                return failure.how
        return None

    async def _fail(self, how: Misbehaviour, request: Request) -> Response:
        if how == "stall":
            with anyio.move_on_after(self._stall_seconds):
                while (await request.receive())["type"] != "http.disconnect":
                    pass
        if how == "429":
            return self._error(429, "RATE_LIMIT_REACHED", "Too many requests. Blocked due to rate limiting.")
        if how == "garbage":
            return Response("<html><body>Just a moment…</body></html>", media_type="application/json")
        return self._error(500, "INTERNAL_SERVER_ERROR", "An internal server error has occurred.")

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

    def _reader(self, kind: Kind) -> Endpoint:
        async def read(request: Request) -> Response:
            refusal = self._refuse_token(request)
            if refusal:
                return refusal
            found = self.world.show(kind, request.path_params["id"])
            if found is None:
                return self._not_found("INVALID_RESOURCE_ID", "Requested resource ID was not found.")
            return self._json(self._on_request(found, request) if kind == "subscription" else found)

        return read

    async def _create(self, request: Request) -> Response:
        refusal = self._refuse_token(request)
        if refusal:
            return refusal
        base, key = str(request.base_url).rstrip("/"), request.headers.get("paypal-request-id", "")
        try:
            status, answer = self.subscribing.create(await _document(request), key, base)
        except ApiError as error:
            return self._api_error(error)
        return self._json(answer, status)

    async def _cancel(self, request: Request) -> Response:
        refusal = self._refuse_token(request)
        if refusal:
            return refusal
        try:
            self.subscribing.cancel(request.path_params["id"], await _document(request))
        except ApiError as error:
            return self._api_error(error)
        return Response(status_code=204, background=BackgroundTask(self.subscribing.send_events))

    async def _approve(self, request: Request) -> Response:
        id = request.query_params.get("ba_token", "")
        if request.method == "GET":
            page = self.subscribing.page(id)
            return HTMLResponse(page) if page else HTMLResponse(nothing_to_approve(), 404)
        entered = parse_qs((await request.body()).decode("utf-8", "replace"))
        target = self.subscribing.approve(id, entered.get("email", [""])[0].strip())
        if target is None:
            return HTMLResponse(nothing_to_approve(), 404)
        return RedirectResponse(target, 303, background=BackgroundTask(self.subscribing.send_events))

    def _api_error(self, error: ApiError) -> Response:
        details = [{"issue": error.issue, "description": error.description}]
        return self._error(error.status, error.name, str(error), details)

    def _refuse_token(self, request: Request) -> Response | None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            message = (
                "Authentication failed due to missing authorization header, or invalid authentication credentials."
            )
            return self._error(401, "AUTHENTICATION_FAILURE", message)
        expires = self._tokens.get(token)
        if expires is None or expires <= self._clock.now():
            refusal = {"error": "invalid_token", "error_description": "Token signature verification failed"}
            return self._json(refusal, 401)
        return None

    def _on_request(self, found: Json, request: Request) -> Json:
        """Add or omit the fields that PayPal returns only on request (query parameter `fields`)."""
        fields = request.query_params.get("fields", "").split(",")
        if "last_failed_payment" not in fields:
            found.get("billing_info", {}).pop("last_failed_payment", None)
        if "plan" in fields:
            found["plan"] = self.world.show("plan", found["plan_id"])
        return found

    async def _no_such_path(self, request: Request) -> Response:
        self.unknown.append(f"{request.method} {request.url.path}")
        return self._not_found("INVALID_URI", "The URI requested is invalid.")

    def _not_found(self, issue: str, description: str) -> Response:
        details = [{"issue": issue, "description": description}]
        return self._error(404, "RESOURCE_NOT_FOUND", "The specified resource does not exist.", details)

    def _error(self, status: int, name: str, message: str, details: list[dict[str, str]] | None = None) -> Response:
        debug_id = f"sim{next(self._count):010x}"
        body = {"name": name, "message": message, "debug_id": debug_id, "details": details or [], "links": []}
        return JSONResponse(body, status, headers={"Paypal-Debug-Id": debug_id})

    def _json(self, body: Json, status: int = 200) -> Response:
        return JSONResponse(body, status, headers={"Paypal-Debug-Id": f"sim{next(self._count):010x}"})


async def _document(request: Request) -> Json:
    """Return the JSON object in the request's body; an empty one for anything else."""
    try:
        found = orjson.loads(await request.body())
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}
