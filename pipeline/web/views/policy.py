"""The privacy policy: in force now, of another day, as plain text; and whether it is so."""

import asyncio
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

Text = tuple[str, str, date]  # the inside of a page, plain text, the day it takes effect

NONE = ("There is no such text", "No privacy policy of ours took or takes effect on that day.")


@dataclass(frozen=True, slots=True)
class PolicyTexts:
    """Where the words come from. What is the inside of a page is trusted to be escaped."""

    in_force: Callable[[Session, datetime], Text]
    of_day: Callable[[Session, str], Text | None]
    evidence: Callable[[], str]


class PolicyViews:
    """The routes."""

    def __init__(self, site: Site, records: Transactions, texts: PolicyTexts) -> None:
        self._site, self._records, self._texts = site, records, texts

    def routes(self) -> list[Route]:
        route = self._site.route
        return [
            route("/privacy", self.show),
            route("/privacy.txt", self.text),
            route("/privacy/evidence", self.evidence),
            route("/privacy/{day}", self.of_day),
        ]

    async def show(self, _: Request) -> Response:
        """The text in force."""
        body, _text, _day = await self._in_force()
        return self._site.page("policy.html", body=body, day="")

    async def text(self, _: Request) -> Response:
        """The same as plain text."""
        _body, text, _day = await self._in_force()
        return PlainTextResponse(text, headers=self._site.headers())

    async def of_day(self, request: Request) -> Response:
        """An earlier text, or one that is to come."""
        day = str(request.path_params["day"])
        found = await self._records.run(lambda session, _, __: self._texts.of_day(session, day))
        if found is None:
            raise RequestRejectedError(404, *NONE)
        return self._site.page("policy.html", body=found[0], day=day)

    async def evidence(self, _: Request) -> Response:
        """What the last check found of each clause."""
        return self._site.page("policy.html", body=await asyncio.to_thread(self._texts.evidence), day="evidence")

    async def _in_force(self) -> Text:
        return await self._records.run(lambda session, _, now: self._texts.in_force(session, now))
