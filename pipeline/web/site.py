"""Shared code of all customer pages: templates, security headers, error pages and the access log.

A page loads no scripts and nothing from other sites, cannot be framed, and sends no referrer. Each failure is answered
with a page that says what to do.
"""

import secrets
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
from pipeline.errors import place_of
from pipeline.limited_log import LimitedLog
from pipeline.money import format_money
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
    "Our database is not available right now. Nothing was lost or changed.",
)
NOT_FOUND = (
    "Page not found",
    "If you followed a link in an e-mail, please check that the link is complete.",
)
GONE = ("This account no longer exists", "It has been deleted, together with your personal data.")
FAULT = (
    "Something went wrong on our side",
    "The error has been logged as {id}. Please try again later, or write to us and name {id}.",
)

log = structlog.get_logger(__name__)


class Site:
    """Renders templates into responses, and wraps endpoints into routes."""

    def __init__(self, vendor: Branding, locale: str, origin: str, access_log: AccessLog) -> None:
        """`origin` is the scheme and host of the pages, for example https://billing.example.com."""
        self.vendor, self.origin = vendor, origin
        self._access_log, self._warn = access_log, LimitedLog(log.warning)
        self._templates = Environment(
            loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined, auto_reload=False,
            trim_blocks=True, lstrip_blocks=True,
        )  # fmt: skip
        self._templates.globals |= {"vendor": vendor, "style": STYLE, "icon": ICON_PATH}
        self._templates.filters["date"] = lambda moment: _date(moment, locale)
        self._templates.filters["money"] = lambda money: format_money(money, locale)

    def route(self, path: str, endpoint: Endpoint, *methods: str, html_errors: bool = True) -> Route:
        """Return a route whose requests are logged. `html_errors`: failures are pages, otherwise problem details."""

        async def served(request: Request) -> Response:
            response = await self._respond(endpoint, request, path, html_errors=html_errors)
            self._access_log.record(
                f"{request.method} {path}", response.status_code, client_address(request), _user_agent(request)
            )
            return response

        return Route(path, served, methods=list(methods or ("GET",)), name=f"{path} {' '.join(methods)}")

    def page(self, template: str, status: int = 200, *, posts_to: Sequence[str] = (), **values: Any) -> Response:
        """Return a rendered page that must not be cached. `posts_to`: other origins that its form may redirect to."""
        html = self._templates.get_template(template).render(values)
        return HTMLResponse(html, status, self.headers(posts_to) | {"Cache-Control": "no-store"})

    def message(self, status: int, title: str, *words: str, link: tuple[str, str] | None = None) -> Response:
        """Return a page with a title and paragraphs. `link` is a path on this site and its label."""
        return self.page("message.html", status, title=title, words=words, link=link)

    def static_routes(self) -> list[Route]:
        """Return routes for the style sheet and the icon, in the vendor's colour."""
        letter = escape(self.vendor.name[:1])
        style = _colours(self.vendor) + (FOLDER / "style.css").read_text("utf-8")
        icon = ICON.format(letter=letter, colour=self.vendor.colour, on_colour=self.vendor.on_colour)
        return [self._file(STYLE, style, "text/css"), self._file(ICON_PATH, icon, "image/svg+xml")]

    async def not_found(self, request: Request, error: Exception) -> Response:
        """Answer requests that the router refuses: with a page for browsers, with problem details for programs."""
        if not isinstance(error, HTTPException) or not _accepts_html(request):
            return await on_http_error(request, error)
        self._access_log.record(
            f"{request.method} nowhere", error.status_code, client_address(request), _user_agent(request)
        )
        response = self.message(error.status_code, *NOT_FOUND, link=("/account", "Your account"))
        response.headers.update(error.headers or {})
        return response

    def _file(self, path: str, content: str, media_type: str) -> Route:
        async def file(_: Request) -> Response:
            return Response(content, 200, self.headers() | {"Cache-Control": "public, max-age=3600"}, media_type)

        return Route(path, file)

    def headers(self, posts_to: Sequence[str] = ()) -> dict[str, str]:
        """Return the security headers of every response."""
        forms = " ".join(("'self'", *posts_to))
        policy = (
            "default-src 'self'; script-src 'none'; object-src 'none'; base-uri 'none'; frame-ancestors 'none'; "
            f"form-action {forms}"
        )
        secure = {"Strict-Transport-Security": f"max-age={YEAR}"} if self.origin.startswith("https://") else {}
        return {**SECURITY_HEADERS, "Content-Security-Policy": policy, **secure}

    async def _respond(self, endpoint: Endpoint, request: Request, path: str, *, html_errors: bool) -> Response:
        headers: dict[str, str] = {}
        try:
            _require_text(request)
            return await endpoint(request)
        except RequestRejectedError as error:
            status, text, headers = error.status, (error.title, str(error)), error.headers
        except CustomerNotFoundError:
            status, text = 410, GONE
        except DatabaseUnavailableError as error:
            self._warn("store_down", reason=str(error))
            status, text, headers = 503, AWAY, {"Retry-After": "60"}
        except Exception as error:  # noqa: BLE001 - its message may contain personal data, so log only its type
            request_id = secrets.token_hex(5)
            reason = f"internal error: {type(error).__name__} at {place_of(error)}"
            log.error("page_failed", request_id=request_id, method=request.method, route=path, reason=reason)
            status, text = 500, (FAULT[0], FAULT[1].format(id=request_id))
        response = self.message(status, *text) if html_errors else problem(status, text[1], headers=self.headers())
        response.headers.update(headers)
        return response


def client_address(request: Request) -> str:
    """Return the client's IP address, as the reverse proxy reports it."""
    return request.client.host if request.client else ""


def _require_text(request: Request) -> None:
    """Raise RequestRejectedError if a part of the path contains NUL: no address does, and PostgreSQL cannot store it."""
    if any("\0" in str(part) for part in request.path_params.values()):
        raise RequestRejectedError(404, *NOT_FOUND)


def _user_agent(request: Request) -> str:
    return request.headers.get("user-agent", "")


def _accepts_html(request: Request) -> bool:
    """Return whether the client is a browser: browsers name text/html when they open a page, programs do not."""
    return "text/html" in request.headers.get("accept", "").lower()


def _date(moment: datetime | None, locale: str) -> str:
    return format_date(moment, "long", locale) if moment else ""


def _colours(vendor: Branding) -> str:
    """Return CSS variables for the vendor's colour and a text colour that is readable on it."""
    return f":root {{ --brand: {vendor.colour}; --on-brand: {vendor.on_colour}; }}\n"
