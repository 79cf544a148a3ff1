"""Pages that links in mails open: one button each. Opening a page changes nothing; its button can be used once."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from pipeline.crypto.keyring import Keyring
from pipeline.customers import addresses, links, newsletter, sign_in, sign_up
from pipeline.customers.links import PATHS, Purpose
from pipeline.customers.product_hook import ProductUnavailableError
from pipeline.privacy.erasure import workflow
from pipeline.privacy.export.spool import Spool
from pipeline.web.bounded_pool import RETRY_SECONDS, BoundedPool
from pipeline.web.forms import RequestRejectedError, form
from pipeline.web.session import Sessions
from pipeline.web.site import Site
from pipeline.web.transactions import Transactions

EXPORTS_AT_ONCE = 2  # each holds a customer's data in memory, and may wait minutes for the product

Action = Callable[[str], Awaitable[Response]]

EXPIRED = (
    "This link no longer works",
    "It has been used, or it has expired. You can request a new link on your account page.",
)
CONFIRMED: dict[addresses.Outcome, str] = {
    "changed": "Your address has been saved. We will send all e-mail there.",
    "waiting": (
        "Your new address is confirmed. We have sent an e-mail to your previous address. The change takes effect when you "
        "use the link in it, or after 72 hours."
    ),
}
REJECTED = "The other address is not used. Everyone has been signed out of your account."
NO_PRODUCT = (
    "Your data is not ready yet",
    "We could not fetch the part of your data that our product stores. Please try this link again later.",
)


@dataclass(frozen=True, slots=True)
class Button:
    """Texts of a link's page, and the action of its button."""

    title: str
    words: str
    label: str
    action: Action


class LinkViews:
    """Routes of the links: `GET` shows the page, `POST` runs the action."""

    def __init__(self, site: Site, transactions: Transactions, export: Callable[[str], Spool]) -> None:
        """`export` returns a customer's ZIP file, which is closed after the download.

        It runs in a thread, because it can be slow.
        """
        self._site, self._transactions, self._export = site, transactions, export
        self._sessions = Sessions(site, transactions)
        self._exports = BoundedPool("export", EXPORTS_AT_ONCE)

    def routes(self) -> list[Route]:
        return [route for purpose, button in self._buttons().items() for route in self._routes(purpose, button)]

    def _buttons(self) -> dict[Purpose, Button]:
        return {
            "account": Button(
                "Sign in", "You will be signed in on this device for 30 minutes.", "Sign in", self._sign_in
            ),
            "confirm_email": Button(
                "Confirm your new address",
                "We will send all e-mail to this address.",
                "Use this address",
                self._confirm_address,
            ),
            "approve_email": Button(
                "Use the new address",
                "All our e-mail goes to the new address from now on.",
                "Use the new address",
                self._approve_address,
            ),
            "reject_email": Button(
                "Keep this address",
                "The new address is not used, and everyone is signed out of your account.",
                "Keep this address",
                self._reject_address,
            ),
            "export": Button(
                "Your data is ready",
                "One ZIP file contains everything we store about you. Open index.html in it first. The link can be used once.",
                "Download your data",
                self._download,
            ),
            "cancel_erase": Button(
                "Keep your account",
                "This cancels the scheduled deletion. Nothing will be deleted.",
                "Keep my account",
                self._keep,
            ),
            "confirm_news": Button(
                "Our newsletter",
                f"We will e-mail you news about {self._site.vendor.product} now and then. You can unsubscribe with one click "
                "at any time.",
                "Subscribe to the newsletter",
                self._confirm_news,
            ),
        }

    def _routes(self, purpose: Purpose, button: Button) -> list[Route]:
        async def show(request: Request) -> Response:
            secret = str(request.path_params["secret"])
            found = await self._transactions.run(
                lambda session, _, now: links.peek(session, secret, now, purpose) is not None
            )
            if not found:
                raise RequestRejectedError(410, *EXPIRED)
            return self._site.page("button.html", title=button.title, words=button.words, label=button.label)

        async def run(request: Request) -> Response:
            await form(request, (), self._site.origin)
            return await button.action(str(request.path_params["secret"]))

        path = PATHS[purpose] + "{secret}"
        return [self._site.route(path, show), self._site.route(path, run, "POST")]

    async def _sign_in(self, secret: str) -> Response:
        def work(session: Session, keyring: Keyring, now: datetime) -> str | None:
            return sign_in.start_session(session, keyring, secret, now)

        session_secret = await self._transactions.run(work)
        if session_secret is None:
            raise RequestRejectedError(410, *EXPIRED)
        return self._sessions.log_in(session_secret)

    async def _confirm_address(self, secret: str) -> Response:
        def work(session: Session, keyring: Keyring, now: datetime) -> addresses.Outcome | None:
            return addresses.confirm(session, keyring, secret, now, self._site.origin)

        outcome = await self._transactions.run(work)
        if outcome is None:
            raise RequestRejectedError(410, *EXPIRED)
        return self._site.message(200, "Thank you", CONFIRMED[outcome], link=("/account", "Your account"))

    async def _approve_address(self, secret: str) -> Response:
        def work(session: Session, keyring: Keyring, now: datetime) -> bool:
            return addresses.approve(session, keyring, secret, now)

        if not await self._transactions.run(work):
            raise RequestRejectedError(410, *EXPIRED)
        return self._site.message(200, "Thank you", CONFIRMED["changed"], link=("/account", "Sign in again"))

    async def _reject_address(self, secret: str) -> Response:
        def work(session: Session, keyring: Keyring, now: datetime) -> bool:
            return addresses.reject(session, keyring, secret, now)

        if not await self._transactions.run(work):
            raise RequestRejectedError(410, *EXPIRED)
        return self._site.message(200, "Your address stays", REJECTED, link=("/account", "Sign in again"))

    async def _confirm_news(self, secret: str) -> Response:
        if not await self._transactions.run(
            lambda session, _, now: newsletter.confirm(session, secret, now, sign_up.TEXTS)
        ):
            raise RequestRejectedError(410, *EXPIRED)
        return self._site.message(
            200, "Thank you", "You are subscribed to our newsletter.", link=("/account", "Your account")
        )

    async def _keep(self, secret: str) -> Response:
        def work(session: Session, keyring: Keyring, now: datetime) -> bool:
            link = links.redeem(session, secret, now, "cancel_erase")
            if link and link.request_id:
                workflow.cancel_erasure(session, link.request_id, now)
            return link is not None

        try:
            is_kept = await self._transactions.run(work)
        except workflow.ErasureTooLateError:
            is_kept = False
        if not is_kept:
            raise RequestRejectedError(
                410, "This link no longer works", "The deletion has started, or it was already cancelled."
            )
        return self._site.message(
            200, "Your account stays", "Nothing will be deleted.", link=("/account", "Your account")
        )

    async def _download(self, secret: str) -> Response:
        """Build the export. The link can be used once, but it stays usable if the export fails."""

        def redeem(session: Session, _: Keyring, now: datetime) -> str | None:
            link = links.redeem(session, secret, now, "export")
            return link.customer_id if link else None

        customer_id = await self._transactions.run(redeem)
        if customer_id is None:
            raise RequestRejectedError(410, *EXPIRED)
        try:
            built = await self._exports.run(customer_id, partial(self._export, customer_id))
        except Exception as error:
            await self._transactions.run(lambda session, _, __: links.restore(session, secret))
            if isinstance(error, ProductUnavailableError):
                raise RequestRejectedError(503, *NO_PRODUCT, retry_after=RETRY_SECONDS) from None
            raise
        headers = self._site.headers() | {
            "Cache-Control": "no-store",
            "Content-Disposition": 'attachment; filename="your-data.zip"',
            "Content-Length": str(built.size),
        }
        return _Download(built, headers)


class _Download(StreamingResponse):
    """Sends a ZIP file, then deletes it, also if the client disconnects."""

    def __init__(self, built: Spool, headers: dict[str, str]) -> None:
        super().__init__(built.chunks(), 200, headers, media_type="application/zip")
        self._built = built

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._built:
            await super().__call__(scope, receive, send)
