"""The pages of caught mails: a list that can be searched, and each mail as its reader sees it and as it was sent.

For the demo's mail catcher, which leaves `KIND.TOKEN.eml` files in a folder. Nothing here runs scripts or loads
anything from elsewhere, and the browser is told so; the HTML of a mail stands in a sandboxed frame.
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
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from pipeline.web import site

FOLDER = Path(__file__).parent / "templates"
PER_PAGE = 50
SUFFIX = ".eml"
NO_DATE = datetime.min.replace(tzinfo=UTC)

# What a page may do: nothing but show itself, its style sheet, a form, and frames of this very server.
PAGE_POLICY = (
    "default-src 'none'; style-src 'self'; frame-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
# What a mail may do: nothing at all, in an origin of its own.
MAIL_POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'self'"
ALWAYS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store"}

_NAME = re.compile(r"[a-z0-9_]{1,60}\.[A-Za-z0-9_-]{1,80}", re.ASCII)


@dataclass(frozen=True, slots=True)
class CaughtMail:
    """One mail in the list. `name` is its file's, less the suffix."""

    name: str
    kind: str
    to_name: str
    to: str
    subject: str
    date: datetime


@dataclass(frozen=True, slots=True)
class ParsedCaughtMail:
    """One mail, taken apart."""

    caught: CaughtMail
    headers: Sequence[tuple[str, str]]
    text: str
    html: str


class MailboxPages:
    """The routes, over one folder of caught mails."""

    def __init__(self, folder: Path, show_date: Callable[[datetime], str], note: str = "") -> None:
        """`show_date` writes a time in UTC for people; `note` is a line under the heading."""
        self._folder, self._note = folder, note
        self._known: dict[str, CaughtMail] = {}
        self._templates = Environment(
            loader=FileSystemLoader([FOLDER, site.FOLDER]), autoescape=select_autoescape(), auto_reload=False
        )
        self._templates.filters["date"] = lambda date: "" if date == NO_DATE else show_date(date)

    def routes(self) -> list[Route]:
        return [
            Route("/", self.home),
            Route("/mails", self.index),
            Route("/mails/{name}", self.mail),
            Route("/mails/{name}/html", self.html),
            Route("/mails/{name}/source", self.source),
            Route("/pages/style.css", self.style),
        ]

    async def home(self, _: Request) -> Response:
        return RedirectResponse("/mails", 302, ALWAYS)

    async def index(self, request: Request) -> Response:
        """All mails, the newest first; `?kind=` and `?q=` (in address or subject) choose."""
        kind, words = request.query_params.get("kind", ""), request.query_params.get("q", "").strip()
        everyone = self.all()
        chosen = [each for each in everyone if _fits(each, kind, words)]
        page = min(_number(request.query_params.get("page", "1")), max(1, -(-len(chosen) // PER_PAGE)))
        kinds = sorted({each.kind for each in everyone})
        return self._page(
            "list.html",
            mails=chosen[(page - 1) * PER_PAGE : page * PER_PAGE],
            kinds=[(name, sum(each.kind == name for each in everyone)) for name in kinds],
            kind=kind,
            words=words,
            total=len(everyone),
            found=len(chosen),
            newer=_address(kind, words, page - 1) if page > 1 else "",
            older=_address(kind, words, page + 1) if page * PER_PAGE < len(chosen) else "",
            note=self._note,
        )

    async def mail(self, request: Request) -> Response:
        """One mail: what its reader sees in a frame, its text, its headers."""
        return self._page("mail.html", mail=_open(self._path(request)), note=self._note)

    async def html(self, request: Request) -> Response:
        """The HTML of one mail, for the frame."""
        return HTMLResponse(_open(self._path(request)).html, headers=ALWAYS | {"Content-Security-Policy": MAIL_POLICY})

    async def source(self, request: Request) -> Response:
        """One mail, byte for byte."""
        headers = ALWAYS | {"Content-Security-Policy": MAIL_POLICY}
        return FileResponse(self._path(request), media_type="text/plain", headers=headers)

    async def style(self, _: Request) -> Response:
        return FileResponse(site.FOLDER / "style.css", media_type="text/css", headers=ALWAYS)

    def all(self) -> list[CaughtMail]:
        """Every caught mail, the newest first. Each file is read once."""
        for path in self._folder.glob(f"*{SUFFIX}"):
            if path.stem not in self._known and _NAME.fullmatch(path.stem):
                self._known[path.stem] = _read(path)
        return sorted(self._known.values(), key=lambda each: (each.date, each.name), reverse=True)

    def _path(self, request: Request) -> Path:
        name = str(request.path_params["name"])
        path = self._folder / f"{name}{SUFFIX}"
        if not _NAME.fullmatch(name) or not path.is_file():
            raise HTTPException(404)
        return path

    def _page(self, template: str, **values: Any) -> Response:
        written = self._templates.get_template(template).render(values)
        return HTMLResponse(written, headers=ALWAYS | {"Content-Security-Policy": PAGE_POLICY})


def _read(path: Path) -> CaughtMail:
    with path.open("rb") as file:
        return _caught(path, BytesHeaderParser(policy=email.policy.default).parse(file))


def _open(path: Path) -> ParsedCaughtMail:
    message = BytesParser(policy=email.policy.default).parsebytes(path.read_bytes())
    headers = [(name, _decoded(raw)) for name, raw in message.raw_items()]
    return ParsedCaughtMail(_caught(path, message), headers, _part(message, "plain"), _part(message, "html"))


def _caught(path: Path, message: Any) -> CaughtMail:
    said = {name.lower(): _decoded(raw) for name, raw in message.raw_items()}
    name, address = _addressee(said.get("to", ""))
    return CaughtMail(
        path.stem, path.stem.partition(".")[0], name, address, said.get("subject", ""), _date(said.get("date"))
    )


def _addressee(text: str) -> tuple[str, str]:
    """`Ada Whitfield <ada@example.com>` as its two parts; what is written otherwise stands for the address."""
    name, bracket, rest = text.rpartition("<")
    return (name.strip().strip('"'), rest.removesuffix(">")) if bracket and rest.endswith(">") else ("", text)


def _decoded(raw: str) -> str:
    """A header's text for people. Not by the policy: on 3.11 it leaves gaps between the encoded words of a name."""
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


def _fits(mail: CaughtMail, kind: str, words: str) -> bool:
    return kind in ("", mail.kind) and words.casefold() in f"{mail.to_name}\n{mail.to}\n{mail.subject}".casefold()


def _number(text: str) -> int:
    return max(1, int(text)) if text.isascii() and text.isdigit() and len(text) < 9 else 1


def _address(kind: str, words: str, page: int) -> str:
    return "/mails?" + urlencode({"kind": kind, "q": words, "page": page})
