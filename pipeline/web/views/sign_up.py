"""Sign-up: the form, the JSON API, and the pages that PayPal redirects to."""

import secrets
from collections.abc import Mapping, Sequence
from functools import partial
from urllib.parse import urlsplit

import structlog
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from pipeline.customers import sign_up
from pipeline.customers.sign_up import ADULT, InvalidFormError, PlanRefusedError, RateLimitError, SignUp
from pipeline.paypal.errors import PaypalRejectedError, PaypalUnavailableError
from pipeline.web.bounded_pool import BoundedPool
from pipeline.web.forms import RequestRejectedError, form, json_object
from pipeline.web.problem import problem
from pipeline.web.site import Site, client_address

CLOSED = ("Sign-up is not available yet", "We cannot take orders on this page right now. Please write to us.")
PLAN_REFUSED = "This plan cannot be ordered at the moment. Please choose another one, or write to us."
PAYPAL_DOWN = (
    "PayPal is not responding right now. Please send the form again in a minute. You will not be signed up twice."
)
SIGN_UPS_AT_ONCE = 8  # each waits for PayPal
EMPTY: dict[str, str] = dict.fromkeys(sign_up.FIELDS, "")

log = structlog.get_logger(__name__)


class SignUpViews:
    """Routes of sign-up. `service` is None if PayPal's credentials or the plans are not configured."""

    def __init__(self, site: Site, service: SignUp | None, approval: Sequence[str]) -> None:
        """`approval`: the origins of PayPal's approval pages."""
        self._site, self._service, self._approval = site, service, approval
        self._calls = BoundedPool("sign-up", SIGN_UPS_AT_ONCE)

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
        """Show the form. Its token identifies it, so sending it twice creates one subscription."""
        return self._form(EMPTY, {}, secrets.token_urlsafe(16))

    async def post(self, request: Request) -> Response:
        """Sign up, then redirect to PayPal's approval page."""
        entered = await form(request, (*sign_up.FIELDS, "token"), self._site.origin)
        token = entered.pop("token", "")
        try:
            approval_url = await self._sign_up(entered, token, client_address(request))
        except InvalidFormError as error:
            return self._form(EMPTY | entered, error.problems, token, 422)
        except PlanRefusedError:
            return self._form(EMPTY | entered, {"plan": PLAN_REFUSED}, token, 422)
        except (PaypalUnavailableError, PaypalRejectedError) as error:
            log.warning("sign_up_deferred", reason=str(error))
            response = self._form(EMPTY | entered, {"paypal": PAYPAL_DOWN}, token, 503)
            response.headers["Retry-After"] = "60"
            return response
        return RedirectResponse(approval_url, 303, self._site.headers(self._approval) | {"Cache-Control": "no-store"})

    async def api(self, request: Request) -> Response:
        """Sign up with a JSON body. Answers 201 with `approve`, the URL of PayPal's approval page.

        Requests with the same `Idempotency-Key` header create one subscription.
        """
        entered = await json_object(request, sign_up.FIELDS)
        token = request.headers.get("idempotency-key") or secrets.token_urlsafe(16)
        try:
            approval_url = await self._sign_up(entered, token, client_address(request))
        except InvalidFormError as error:
            return problem(422, "Some fields are invalid.", more={"errors": dict(error.problems)})
        except PlanRefusedError:
            return problem(422, "Some fields are invalid.", more={"errors": {"plan": PLAN_REFUSED}})
        except (PaypalUnavailableError, PaypalRejectedError) as error:
            log.warning("sign_up_deferred", reason=str(error))
            return problem(503, PAYPAL_DOWN.replace("form", "request"), headers={"Retry-After": "60"})
        return JSONResponse({"approve": approval_url}, 201, self._site.headers() | {"Cache-Control": "no-store"})

    async def done(self, _: Request) -> Response:
        """Show the page after the approval. PayPal's query parameters are ignored: its webhook reports the same."""
        return self._site.message(
            200,
            "Thank you",
            f"PayPal usually confirms your subscription to {self._site.vendor.product} within a minute. Then we send you an "
            "e-mail with everything you need to get started. If PayPal knows you by another address than the one you "
            "entered, it goes there, and we ask you to confirm the other one.",
            link=("/account", "Your account"),
        )

    async def cancelled(self, _: Request) -> Response:
        """Show the page after the customer left PayPal without approval."""
        return self._site.message(
            200,
            "You have not subscribed",
            "You left PayPal before you approved the subscription, so nothing is charged.",
            link=("/signup", "Sign up again"),
        )

    async def _sign_up(self, entered: Mapping[str, object], token: str, address: str) -> str:
        if self._service is None:
            raise RequestRejectedError(503, *CLOSED)
        valid = sign_up.validate_form(entered, self._service.plans)
        work = partial(self._service.sign_up, valid, token or secrets.token_urlsafe(16), address)
        try:
            return await self._calls.run(object(), work)
        except RateLimitError as error:
            raise RequestRejectedError(429, "Please wait a little", str(error)) from None

    def _form(self, entered: Mapping[str, str], problems: Mapping[str, str], token: str, status: int = 200) -> Response:
        if self._service is None:
            return self._site.message(503, *CLOSED)
        plans = list(self._service.plans)
        values = {"entered": entered, "problems": problems, "token": token, "plans": plans, "adult": ADULT}
        return self._site.page("signup.html", status, posts_to=self._approval, **values)


def approval_origins(base_url: str) -> tuple[str, ...]:
    """Return the origins of PayPal's approval pages for an API URL. A simulator serves them itself."""
    host = urlsplit(base_url).hostname or ""
    if host.endswith(".paypal.com"):
        return (f"https://www.{host.removeprefix('api-m.').removeprefix('api.')}",)
    parts = urlsplit(base_url)
    return (f"{parts.scheme}://{parts.netloc}",)
