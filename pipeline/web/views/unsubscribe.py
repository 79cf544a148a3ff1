"""Unsubscribe without sign-in: one click in a mail program (RFC 8058), or the button of our page."""

from datetime import datetime

from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from pipeline.crypto.keyring import Keyring
from pipeline.customers import unsubscribe
from pipeline.customers.unsubscribe import OptOut
from pipeline.web.forms import RequestRejectedError, fields
from pipeline.web.site import Site
from pipeline.web.transactions import Transactions

ONE_CLICK = "List-Unsubscribe"  # mail programs post this field with the value One-Click (RFC 8058 section 3.1)
INVALID = (
    "This link does not work",
    "The link is incomplete, or the account no longer exists. In that case we send you no more of this e-mail.",
)
NAMES = {"service": "optional service announcements", "marketing": "our newsletter"}
WORDS = "You will no longer receive {}. We still send e-mail that belongs to your subscription, such as receipts."


class UnsubscribeViews:
    """Routes of `/unsubscribe/<token>`."""

    def __init__(self, site: Site, transactions: Transactions) -> None:
        self._site, self._transactions = site, transactions

    def routes(self) -> list[Route]:
        path = "/unsubscribe/{token}"
        return [self._site.route(path, self.show), self._site.route(path, self.post, "POST")]

    async def show(self, request: Request) -> Response:
        """Show the page with the button. Opening it changes nothing, because mail scanners open links."""
        token = str(request.path_params["token"])
        found = await self._transactions.run(
            lambda session, keyring, _: unsubscribe.find_opt_out(session, keyring, token)
        )
        if found is None:
            raise RequestRejectedError(410, *INVALID)
        words = WORDS.format(NAMES[found.kind])
        return self._site.page("button.html", title="Unsubscribe", words=words, label="Unsubscribe")

    async def post(self, request: Request) -> Response:
        """Unsubscribe. Mail programs post `List-Unsubscribe=One-Click` without cookies and follow no redirects."""
        token = str(request.path_params["token"])
        one_click = (await fields(request, (ONE_CLICK,))).get(ONE_CLICK) == "One-Click"

        def work(session: Session, keyring: Keyring, now: datetime) -> OptOut | None:
            return unsubscribe.opt_out(session, keyring, token, now, "one-click" if one_click else "page")

        found = await self._transactions.run(work)
        if found is None:
            raise RequestRejectedError(410, *INVALID)
        if one_click:
            return PlainTextResponse("You are unsubscribed.\n", headers=self._site.headers())
        return self._site.message(200, "You are unsubscribed", WORDS.format(NAMES[found.kind]))
