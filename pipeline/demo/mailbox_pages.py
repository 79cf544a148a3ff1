"""Pages of the demo's caught mails: a searchable list, and each mail as displayed and as source.

The mail catcher writes `KIND.TOKEN.eml` files to a folder. The pages run no scripts and load nothing from other sites;
their security headers enforce this. The HTML of a mail is shown in a sandboxed frame.
"""

import email.policy
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.parser import BytesHeaderParser, BytesParser
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment, FileSystemLoader, select_autoescape
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import Route

from pipeline.web import site

FOLDER = Path(__file__).parent / "templates"
PER_PAGE = 50
SUFFIX = ".eml"
NO_DATE = datetime.min.replace(tzinfo=UTC)

# Policy of the pages: only their style sheet, forms and frames from this server.
PAGE_POLICY = (
    "default-src 'none'; style-src 'self'; frame-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
# Policy of a mail: nothing except inline styles, in a separate origin.
# A link of a mail opens in a new tab. Nothing else of the mail may leave the frame.
MAIL_POLICY = (
    "sandbox allow-popups allow-popups-to-escape-sandbox; default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; "
    "frame-ancestors 'self'"
)
ALWAYS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store"}

_NAME = re.compile(r"[a-z0-9_]{1,60}\.[A-Za-z0-9_-]{1,80}", re.ASCII)


@dataclass(frozen=True, slots=True)
class CaughtMail:
    """One mail in the list. `name` is its file name without the suffix."""

    name: str
    kind: str
    to_name: str
    to: str
    subject: str
    date: datetime


@dataclass(frozen=True, slots=True)
class ParsedCaughtMail:
    """One mail with its headers, text and HTML."""

    caught: CaughtMail
    headers: Sequence[tuple[str, str]]
    text: str
    html: str


class MailboxPages:
    """Routes for the mails of one folder."""

    def __init__(self, folder: Path, show_date: Callable[[datetime], str], note: str = "") -> None:
        """`show_date` formats a time in UTC for people; `note` is a line next to the heading."""
        self._folder, self._note = folder, note
        self._mails: dict[str, CaughtMail] = {}  # by file name without suffix
        self._templates = Environment(
            loader=FileSystemLoader([FOLDER, site.FOLDER]), autoescape=select_autoescape(), auto_reload=False
        )
        self._templates.filters["date"] = lambda date: "" if date == NO_DATE else show_date(date)

    def routes(self) -> list[Route]:
        return [
            Route("/mails", self.index),
            Route("/mails/{name}", self.mail),
            Route("/mails/{name}/html", self.html),
            Route("/mails/{name}/source", self.source),
            Route("/pages/style.css", self.style),
        ]

    async def index(self, request: Request) -> Response:
        """List mails, newest first. `?kind=` and `?q=` (recipient or subject) filter them."""
        kind, words = request.query_params.get("kind", ""), request.query_params.get("q", "").strip()
        mails = self.all()
        matching = [each for each in mails if _matches(each, kind, words)]
        page = min(_parse_number(request.query_params.get("page", "1")), max(1, -(-len(matching) // PER_PAGE)))
        kinds = sorted({each.kind for each in mails})
        return self._page(
            "list.html",
            mails=matching[(page - 1) * PER_PAGE : page * PER_PAGE],
            kinds=[(name, sum(each.kind == name for each in mails)) for name in kinds],
            kind=kind,
            words=words,
            total=len(mails),
            found=len(matching),
            newer=_list_url(kind, words, page - 1) if page > 1 else "",
            older=_list_url(kind, words, page + 1) if page * PER_PAGE < len(matching) else "",
            note=self._note,
        )

    async def mail(self, request: Request) -> Response:
        """Show one mail: its HTML in a frame, its text, its headers."""
        return self._page("mail.html", mail=_parse(self._path(request)), note=self._note)

    async def html(self, request: Request) -> Response:
        """Return the HTML of one mail, for the frame."""
        html = _parse(self._path(request)).html.replace("<head>", '<head><base target="_blank">', 1)
        return HTMLResponse(html, headers=ALWAYS | {"Content-Security-Policy": MAIL_POLICY})

    async def source(self, request: Request) -> Response:
        """Return the bytes of one mail."""
        headers = ALWAYS | {"Content-Security-Policy": MAIL_POLICY}
        return FileResponse(self._path(request), media_type="text/plain", headers=headers)

    async def style(self, _: Request) -> Response:
        return FileResponse(site.FOLDER / "style.css", media_type="text/css", headers=ALWAYS)

    def all(self) -> list[CaughtMail]:
        """Return all caught mails, newest first. Each file is read once."""
        for path in self._folder.glob(f"*{SUFFIX}"):
            if path.stem not in self._mails and _NAME.fullmatch(path.stem):
                self._mails[path.stem] = _read(path)
        return sorted(self._mails.values(), key=lambda each: (each.date, each.name), reverse=True)

    def _path(self, request: Request) -> Path:
        name = str(request.path_params["name"])
        path = self._folder / f"{name}{SUFFIX}"
        if not _NAME.fullmatch(name) or not path.is_file():
            raise HTTPException(404)
        return path

    def _page(self, template: str, **values: Any) -> Response:
        html = self._templates.get_template(template).render(values)
        return HTMLResponse(html, headers=ALWAYS | {"Content-Security-Policy": PAGE_POLICY})


def _read(path: Path) -> CaughtMail:
    with path.open("rb") as file:
        return _summarize(path, BytesHeaderParser(policy=email.policy.default).parse(file))


def _parse(path: Path) -> ParsedCaughtMail:
    message = BytesParser(policy=email.policy.default).parsebytes(path.read_bytes())
    headers = [(name, _decode(raw)) for name, raw in message.raw_items()]
    return ParsedCaughtMail(_summarize(path, message), headers, _part(message, "plain"), _part(message, "html"))


def _summarize(path: Path, message: Any) -> CaughtMail:
    headers = {name.lower(): _decode(raw) for name, raw in message.raw_items()}
    name, address = _split_address(headers.get("to", ""))
    return CaughtMail(
        path.stem, path.stem.partition(".")[0], name, address, headers.get("subject", ""), _date(headers.get("date"))
    )


def _split_address(text: str) -> tuple[str, str]:
    """Split `Ada Whitfield <ada@example.com>` into name and address. Other text is returned as the address."""
    name, bracket, rest = text.rpartition("<")
    return (name.strip().strip('"'), rest.removesuffix(">")) if bracket and rest.endswith(">") else ("", text)


def _decode(raw: str) -> str:
    """Return a header's text for display.

    Does not use `email.policy`: on Python 3.11 it leaves spaces between the encoded words of a name.
    """
    text = "".join(raw.splitlines()).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    try:
        return str(make_header(decode_header(text))) if "=?" in text else text
    except (HeaderParseError, LookupError, UnicodeDecodeError):
        return text


def _date(text: str | None) -> datetime:
    try:
        return parsedate_to_datetime(text or "").astimezone(UTC)
    except ValueError:
        return NO_DATE


def _part(message: EmailMessage, subtype: str) -> str:
    part = message.get_body((subtype,))
    return str(part.get_content()) if part else ""


def _matches(mail: CaughtMail, kind: str, words: str) -> bool:
    return kind in ("", mail.kind) and words.casefold() in f"{mail.to_name}\n{mail.to}\n{mail.subject}".casefold()


def _parse_number(text: str) -> int:
    return max(1, int(text)) if text.isascii() and text.isdigit() and len(text) < 9 else 1


def _list_url(kind: str, words: str, page: int) -> str:
    return "/mails?" + urlencode({"kind": kind, "q": words, "page": page})
