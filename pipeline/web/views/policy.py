"""Privacy policy pages: the version in force, other versions, plain text, and the results of the last check."""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from pipeline.web.forms import RequestRejectedError
from pipeline.web.site import Site
from pipeline.web.transactions import Transactions

Text = tuple[str, str, date]  # HTML for the page, plain text, effective date

ID = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")  # of a version: the day on which it takes effect
NO_VERSION = ("No such version", "No version of our privacy policy takes effect on that day.")


@dataclass(frozen=True, slots=True)
class PolicyTexts:
    """Sources of the texts. Their HTML must already be escaped."""

    in_force: Callable[[Session, datetime], Text]
    of_day: Callable[[Session, str], Text | None]
    evidence: Callable[[], str]


class PolicyViews:
    """Routes of the privacy policy."""

    def __init__(self, site: Site, transactions: Transactions, texts: PolicyTexts) -> None:
        self._site, self._transactions, self._texts = site, transactions, texts

    def routes(self) -> list[Route]:
        route = self._site.route
        return [
            route("/privacy", self.show),
            route("/privacy.txt", self.text),
            route("/privacy/evidence", self.evidence),
            route("/privacy/{day}", self.of_day),
        ]

    async def show(self, _: Request) -> Response:
        """Show the policy in force."""
        body, _text, _day = await self._in_force()
        return self._site.page("policy.html", body=body, day="")

    async def text(self, _: Request) -> Response:
        """Return the policy in force as plain text."""
        _body, text, _day = await self._in_force()
        return PlainTextResponse(text, headers=self._site.headers())

    async def of_day(self, request: Request) -> Response:
        """Show the version that takes effect on a given day, past or future."""
        day = str(request.path_params["day"])
        if not ID.fullmatch(day):
            raise RequestRejectedError(404, *NO_VERSION)
        found = await self._transactions.run(lambda session, _, __: self._texts.of_day(session, day))
        if found is None:
            raise RequestRejectedError(404, *NO_VERSION)
        return self._site.page("policy.html", body=found[0], day=day)

    async def evidence(self, _: Request) -> Response:
        """Show the result of the last check for each clause."""
        return self._site.page("policy.html", body=await asyncio.to_thread(self._texts.evidence), day="evidence")

    async def _in_force(self) -> Text:
        return await self._transactions.run(lambda session, _, now: self._texts.in_force(session, now))
