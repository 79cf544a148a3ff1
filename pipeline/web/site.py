"""What all pages for customers share: how they look, what a browser may do with them, and the access log.

A page shows itself and nothing else: no script, nothing from elsewhere, no frame, and no word to the next site of where
its reader has been. Whatever fails is answered with a page that says what to do.
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any

import structlog
from babel.dates import format_date
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from pipeline.customers.accounts import CustomerNotFoundError
from pipeline.db.engine import DatabaseUnavailableError
from pipeline.privacy.access_log import AccessLog
from pipeline.rendering.branding import Branding
from pipeline.web.forms import RequestRejectedError
from pipeline.web.problem import on_http_error, problem

Endpoint = Callable[[Request], Awaitable[Response]]

FOLDER = Path(__file__).parent / "templates"
STYLE, ICON_PATH = "/pages/style.css", "/pages/icon.svg"
ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="7" fill="{colour}"/>'
    '<text x="16" y="23" font-family="sans-serif" font-size="20" font-weight="700" text-anchor="middle" '
    'fill="{on_colour}">{letter}</text></svg>'
)
YEAR = 365 * 24 * 3600  # seconds
SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
AWAY = (
    "Please try again in a minute",
    "We cannot reach our records just now. Nothing is lost and nothing was changed.",
)
NOTHING = (
    "There is nothing at this address",
    "If you came by a link in a mail, please see that you have the whole of it.",
)
GONE = ("There is no such account any more", "It has been deleted, and with it all that we held about it.")
FAULT = ("Something failed on our side", "It has been noted. Please try again later, or write to us.")

log = structlog.get_logger(__name__)


class Site:
    """Makes responses out of templates, and routes out of endpoints."""

    def __init__(self, vendor: Branding, locale: str, origin: str, visits: AccessLog) -> None:
        """`origin` is where the pages are reached, as https://billing.example.com."""
        self.vendor, self.origin = vendor, origin
        self._visits = visits
        self._templates = Environment(
            loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined, auto_reload=False,
            trim_blocks=True, lstrip_blocks=True,
        )  # fmt: skip
        self._templates.globals |= {"vendor": vendor, "style": STYLE, "icon": ICON_PATH}
        self._templates.filters["date"] = lambda moment: _date(moment, locale)

    def route(self, path: str, endpoint: Endpoint, *methods: str, html_errors: bool = True) -> Route:
        """A route whose every request is noted. `spoken`: what fails is told by a page, else as problem details."""

        async def served(request: Request) -> Response:
            answer = await self._answer(endpoint, request, path, spoken=html_errors)
            self._visits.record(
                f"{request.method} {path}", answer.status_code, client_address(request), _browser(request)
            )
            return answer

        return Route(path, served, methods=list(methods or ("GET",)), name=f"{path} {' '.join(methods)}")

    def page(self, template: str, status: int = 200, *, posts_to: Sequence[str] = (), **values: Any) -> Response:
        """A page that only its reader may keep. `posts_to`: other origins where its form may lead."""
        written = self._templates.get_template(template).render(values)
        return HTMLResponse(written, status, self.headers(posts_to) | {"Cache-Control": "no-store"})

    def message(self, status: int, title: str, *words: str, link: tuple[str, str] | None = None) -> Response:
        """A page that says one thing; `link` is an address of ours and what it is called."""
        return self.page("message.html", status, title=title, words=words, link=link)

    def static_routes(self) -> list[Route]:
        """The style sheet and the icon, in the vendor's colour."""
        letter = escape(self.vendor.name[:1])
        style = _colours(self.vendor) + (FOLDER / "style.css").read_text("utf-8")
        icon = ICON.format(letter=letter, colour=self.vendor.colour, on_colour=self.vendor.on_colour)
        return [self._file(STYLE, style, "text/css"), self._file(ICON_PATH, icon, "image/svg+xml")]

    async def not_found(self, request: Request, error: Exception) -> Response:
        """What the router refuses itself: a page for who reads pages, problem details for all others."""
        if not isinstance(error, HTTPException) or not _reads_pages(request):
            return await on_http_error(request, error)
        self._visits.record(f"{request.method} nowhere", error.status_code, client_address(request), _browser(request))
        answer = self.message(error.status_code, *NOTHING, link=("/account", "Your account"))
        answer.headers.update(error.headers or {})
        return answer

    def _file(self, path: str, content: str, media_type: str) -> Route:
        async def file(_: Request) -> Response:
            return Response(content, 200, self.headers() | {"Cache-Control": "public, max-age=3600"}, media_type)

        return Route(path, file)

    def headers(self, posts_to: Sequence[str] = ()) -> dict[str, str]:
        """What a browser is told with each answer."""
        forms = " ".join(("'self'", *posts_to))
        policy = (
            "default-src 'self'; script-src 'none'; object-src 'none'; base-uri 'none'; frame-ancestors 'none'; "
            f"form-action {forms}"
        )
        secure = {"Strict-Transport-Security": f"max-age={YEAR}"} if self.origin.startswith("https://") else {}
        return {**SECURITY_HEADERS, "Content-Security-Policy": policy, **secure}

    async def _answer(self, endpoint: Endpoint, request: Request, path: str, *, spoken: bool) -> Response:
        try:
            return await endpoint(request)
        except RequestRejectedError as error:
            status, said = error.status, (error.title, str(error))
        except CustomerNotFoundError:
            status, said = 410, GONE
        except DatabaseUnavailableError as error:
            log.warning("store_down", reason=str(error))
            status, said = 503, AWAY
        except Exception as error:  # noqa: BLE001 - its words may name somebody, so only its type is told
            log.error("page_failed", route=path, reason=f"a fault of ours: {type(error).__name__}")
            status, said = 500, FAULT
        return self.message(status, *said) if spoken else problem(status, said[1], headers=self.headers())


def client_address(request: Request) -> str:
    """The address a request came from, as the server in front of us tells it."""
    return request.client.host if request.client else ""


def _browser(request: Request) -> str:
    return request.headers.get("user-agent", "")


def _reads_pages(request: Request) -> bool:
    """Every browser names HTML where a page is opened; programs ask for anything, or for what they can read."""
    return "text/html" in request.headers.get("accept", "").lower()


def _date(moment: datetime | None, locale: str) -> str:
    return format_date(moment, "long", locale) if moment else ""


def _colours(vendor: Branding) -> str:
    """The vendor's colour, with what can be read on it."""
    return f":root {{ --brand: {vendor.colour}; --on-brand: {vendor.on_colour}; }}\n"
