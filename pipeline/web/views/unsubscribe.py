"""Unsubscribing: by the button of a mail program (RFC 8058) or of our page, without signing in."""

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

ONE_CLICK = "List-Unsubscribe"  # and its value One-Click: what a mail program posts, RFC 8058 section 3.1
OVER = ("This link does not work", "It is not whole, or the account is gone. Then no such mail reaches you any more.")
NAMES = {"service": "mail about the service that you can do without", "marketing": "news"}
WORDS = "From now on you get no {} from us. What we owe you, such as receipts, still comes."


class UnsubscribeViews:
    """The routes."""

    def __init__(self, site: Site, records: Transactions) -> None:
        self._site, self._records = site, records

    def routes(self) -> list[Route]:
        path = "/unsubscribe/{token}"
        return [self._site.route(path, self.show), self._site.route(path, self.post, "POST")]

    async def show(self, request: Request) -> Response:
        """The page with the button. Mail scanners that fetch it change nothing."""
        token = str(request.path_params["token"])
        found = await self._records.run(lambda session, keyring, _: unsubscribe.find_opt_out(session, keyring, token))
        if found is None:
            raise RequestRejectedError(410, *OVER)
        words = WORDS.format(NAMES[found.kind])
        return self._site.page("button.html", title="Unsubscribe", words=words, label="Unsubscribe")

    async def post(self, request: Request) -> Response:
        """Unsubscribe at once. A mail program posts `List-Unsubscribe=One-Click`, without cookies, and follows nothing."""
        token = str(request.path_params["token"])
        one_click = (await fields(request, (ONE_CLICK,))).get(ONE_CLICK) == "One-Click"

        def work(session: Session, keyring: Keyring, now: datetime) -> OptOut | None:
            return unsubscribe.opt_out(session, keyring, token, now, "one-click" if one_click else "page")

        found = await self._records.run(work)
        if found is None:
            raise RequestRejectedError(410, *OVER)
        if one_click:
            return PlainTextResponse("You are unsubscribed.\n", headers=self._site.headers())
        return self._site.message(200, "You are unsubscribed", WORDS.format(NAMES[found.kind]))
