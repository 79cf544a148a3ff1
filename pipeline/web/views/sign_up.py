"""Signing up: the page, the same as an API, and the pages that PayPal leads back to."""

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

import structlog
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from pipeline.customers import sign_up
from pipeline.customers.sign_up import ADULT, InvalidFormError, RateLimitError, SignUp
from pipeline.paypal.errors import PaypalNotFoundError, PaypalRejectedError, PaypalUnavailableError
from pipeline.web.forms import RequestRejectedError, form, json_object
from pipeline.web.problem import problem
from pipeline.web.site import Site, client_address

CLOSED = ("Sign-up is not open yet", "We cannot take orders on this page just now. Please write to us.")
AWAY = "PayPal does not answer just now. Please send the form again in a minute: it goes on where it was."
EMPTY: dict[str, str] = dict.fromkeys(sign_up.FIELDS, "")

log = structlog.get_logger(__name__)


class SignUpViews:
    """The routes. Without a desk sign-up is not open: PayPal's credentials or the plans are missing."""

    def __init__(self, site: Site, desk: SignUp | None, approval: Sequence[str]) -> None:
        """`approval` are the origins where PayPal has subscriptions approved."""
        self._site, self._desk, self._approval = site, desk, approval

    def routes(self) -> list[Route]:
        route = self._site.route
        return [
            route("/signup", self.show),
            route("/signup", self.post, "POST"),
            route("/signup/done", self.done),
            route("/signup/cancelled", self.cancelled),
            route("/api/signup", self.api, "POST", html_errors=False),
        ]

    async def show(self, _: Request) -> Response:
        """The form; its token makes one sign-up of it, however often it is sent."""
        return self._form(EMPTY, {}, secrets.token_urlsafe(16))

    async def post(self, request: Request) -> Response:
        """Sign up, and go on to PayPal."""
        said = await form(request, (*sign_up.FIELDS, "token"), self._site.origin)
        token = said.pop("token", "")
        try:
            approve = await self._sign_up(said, token, client_address(request))
        except InvalidFormError as error:
            return self._form(EMPTY | said, error.problems, token, 422)
        except (PaypalUnavailableError, PaypalRejectedError, PaypalNotFoundError) as error:
            log.warning("sign_up_waits", reason=str(error))
            return self._form(EMPTY | said, {"paypal": AWAY}, token, 503)
        return RedirectResponse(approve, 303, self._site.headers(self._approval) | {"Cache-Control": "no-store"})

    async def api(self, request: Request) -> Response:
        """The same as JSON: answers 201 with `approve`, the address where PayPal has the subscription approved.

        An `Idempotency-Key` header makes one sign-up of requests that are sent again.
        """
        said = await json_object(request, sign_up.FIELDS)
        token = request.headers.get("idempotency-key") or secrets.token_urlsafe(16)
        try:
            approve = await self._sign_up(said, token, client_address(request))
        except InvalidFormError as error:
            return problem(422, "Some of it cannot be taken.", more={"errors": dict(error.problems)})
        except (PaypalUnavailableError, PaypalRejectedError, PaypalNotFoundError) as error:
            log.warning("sign_up_waits", reason=str(error))
            return problem(503, AWAY.replace("form", "request"), headers={"Retry-After": "60"})
        return JSONResponse({"approve": approve}, 201, self._site.headers() | {"Cache-Control": "no-store"})

    async def done(self, _: Request) -> Response:
        """Where PayPal leads back to; what it appends to the address is not needed, its webhook tells the same."""
        return self._site.message(
            200,
            "Thank you",
            f"PayPal tells us as soon as your subscription to {self._site.vendor.product} is active, as a rule within a "
            "minute. Then we send you a mail with everything you need to begin.",
            link=("/account", "Your account"),
        )

    async def cancelled(self, _: Request) -> Response:
        """Where PayPal leads back to when nothing was approved."""
        return self._site.message(
            200,
            "You have not subscribed",
            "You left PayPal before approving, so nothing is charged and no subscription begins.",
            link=("/signup", "Begin again"),
        )

    async def _sign_up(self, said: Mapping[str, object], token: str, line: str) -> str:
        if self._desk is None:
            raise RequestRejectedError(503, *CLOSED)
        asked = sign_up.validate_form(said, self._desk.plans)
        try:
            return await asyncio.to_thread(self._desk.sign_up, asked, token or secrets.token_urlsafe(16), line)
        except RateLimitError as error:
            raise RequestRejectedError(429, "Please wait a little", str(error)) from None

    def _form(self, said: Mapping[str, str], problems: Mapping[str, str], token: str, status: int = 200) -> Response:
        if self._desk is None:
            return self._site.message(503, *CLOSED)
        plans = list(self._desk.plans)
        values = {"said": said, "problems": problems, "token": token, "plans": plans, "adult": ADULT}
        return self._site.page("signup.html", status, posts_to=self._approval, **values)


def approval_origins(base_url: str) -> tuple[str, ...]:
    """Where PayPal has subscriptions approved, by the address of its API; a simulator on this machine does it itself."""
    host = urlsplit(base_url).hostname or ""
    if host.endswith(".paypal.com"):
        return (f"https://www.{host.removeprefix('api-m.').removeprefix('api.')}",)
    parts = urlsplit(base_url)
    return (f"{parts.scheme}://{parts.netloc}",)
