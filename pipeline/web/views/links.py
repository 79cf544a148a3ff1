"""Links out of mails: each leads to a page with one button. To look changes nothing; the button does, once."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pipeline.crypto.keyring import Keyring
from pipeline.customers import accounts, links, newsletter, sign_in, sign_up
from pipeline.customers.links import PATHS, Purpose
from pipeline.customers.product_hook import ProductUnavailableError
from pipeline.privacy.erasure import workflow
from pipeline.web.forms import RequestRejectedError, form
from pipeline.web.session import Sessions
from pipeline.web.site import Site
from pipeline.web.transactions import Transactions

Act = Callable[[str], Awaitable[Response]]

OVER = (
    "This link does not work any more",
    "It was used already, or its time is over. You can ask for a new one on your account page.",
)
NO_PRODUCT = (
    "Not everything could be fetched",
    "The product did not hand over its part of your data, so we give you none of it yet. Please try this link again later.",
)


@dataclass(frozen=True, slots=True)
class Button:
    """What stands on the page of a link: what will happen, and the button that makes it happen."""

    title: str
    words: str
    label: str
    act: Act


class LinkViews:
    """The routes."""

    def __init__(self, site: Site, records: Transactions, export: Callable[[str], bytes]) -> None:
        """`export` makes the ZIP of a customer; it may take its time."""
        self._site, self._records, self._export = site, records, export
        self._visitors = Sessions(site, records)

    def routes(self) -> list[Route]:
        return [route for purpose, button in self._buttons().items() for route in self._routes(purpose, button)]

    def _buttons(self) -> dict[Purpose, Button]:
        return {
            "account": Button(
                "Sign in", "You are about to sign in on this device, for half an hour.", "Sign in", self._open
            ),
            "confirm_email": Button(
                "Confirm your new address",
                "From now on our mails go to this address.",
                "Use this address",
                self._confirm,
            ),
            "export": Button(
                "A copy of your data",
                "One ZIP file with everything we hold about you; begin with index.html in it. The link serves once.",
                "Download",
                self._download,
            ),
            "cancel_erase": Button(
                "Keep your account",
                "The scheduled deletion is called off, and everything stays.",
                "Keep my account",
                self._keep,
            ),
            "confirm_news": Button(
                "Our news",
                f"If you want it, news of {self._site.vendor.product} comes by mail now and then. Each can be stopped with one "
                "click.",
                "Send me the news",
                self._confirm_news,
            ),
        }

    def _routes(self, purpose: Purpose, button: Button) -> list[Route]:
        async def show(request: Request) -> Response:
            secret = str(request.path_params["secret"])
            found = await self._records.run(
                lambda session, _, now: links.peek(session, secret, now, purpose) is not None
            )
            if not found:
                raise RequestRejectedError(410, *OVER)
            return self._site.page("button.html", title=button.title, words=button.words, label=button.label)

        async def act(request: Request) -> Response:
            await form(request, (), self._site.origin)
            return await button.act(str(request.path_params["secret"]))

        path = PATHS[purpose] + "{secret}"
        return [self._site.route(path, show), self._site.route(path, act, "POST")]

    async def _open(self, secret: str) -> Response:
        def work(session: Session, keyring: Keyring, now: datetime) -> str | None:
            return sign_in.start_session(session, keyring, secret, now)

        begun = await self._records.run(work)
        if begun is None:
            raise RequestRejectedError(410, *OVER)
        return self._visitors.log_in(begun)

    async def _confirm(self, secret: str) -> Response:
        def work(session: Session, keyring: Keyring, now: datetime) -> str | None:
            link = links.redeem(session, secret, now, "confirm_email")
            email = links.details(link, keyring).get("email") if link else None
            if link is None or not email:
                return None
            old = accounts.correct_field(session, keyring, link.customer_id, "email", str(email), now)
            links.end_sessions(session, link.customer_id, now)
            return " A mail that says so is on its way to your old address." if old not in (None, email) else ""

        told = await self._records.run(work)
        if told is None:
            raise RequestRejectedError(410, *OVER)
        words = f"Your new address is noted, and our mails go there from now on.{told}"
        return self._site.message(200, "Thank you", words, link=("/account", "Sign in again"))

    async def _confirm_news(self, secret: str) -> Response:
        if not await self._records.run(lambda session, _, now: newsletter.confirm(session, secret, now, sign_up.TEXTS)):
            raise RequestRejectedError(410, *OVER)
        return self._site.message(200, "Thank you", "From now on you get our news.", link=("/account", "Your account"))

    async def _keep(self, secret: str) -> Response:
        def work(session: Session, keyring: Keyring, now: datetime) -> bool:
            link = links.redeem(session, secret, now, "cancel_erase")
            if link and link.request_id:
                workflow.cancel_erasure(session, link.request_id, now)
            return link is not None

        try:
            kept = await self._records.run(work)
        except workflow.ErasureTooLateError:
            kept = False
        if not kept:
            raise RequestRejectedError(410, "It is too late", "The deletion has begun or was called off already.")
        return self._site.message(
            200, "Your account stays", "Nothing will be deleted.", link=("/account", "Your account")
        )

    async def _download(self, secret: str) -> Response:
        """The copy is made once, for who comes first with the link; they may come again if it could not be made."""

        def take(session: Session, _: Keyring, now: datetime) -> str | None:
            link = links.redeem(session, secret, now, "export")
            return link.customer_id if link else None

        customer_id = await self._records.run(take)
        if customer_id is None:
            raise RequestRejectedError(410, *OVER)
        try:
            data = await asyncio.to_thread(self._export, customer_id)
        except Exception as error:
            await self._records.run(lambda session, _, __: links.restore(session, secret))
            if isinstance(error, ProductUnavailableError):
                raise RequestRejectedError(503, *NO_PRODUCT) from None
            raise
        headers = self._site.headers() | {
            "Cache-Control": "no-store",
            "Content-Disposition": 'attachment; filename="your-data.zip"',
        }
        return Response(data, 200, headers, media_type="application/zip")
