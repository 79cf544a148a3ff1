"""Parse one inbound message: who wrote it, its subject, whether a person wrote it, and which right it plainly asks for.

The From line is not authenticated, so nothing that is read here may change a customer's data or settings.
"""

import hashlib
import re
from dataclasses import dataclass
from email import policy
from email.errors import MessageError
from email.header import decode_header, make_header
from email.message import Message
from email.parser import BytesParser
from email.utils import getaddresses
from itertools import islice
from typing import TypeAlias

from pipeline.email_address import clean_name, valid_address
from pipeline.privacy.requests import Kind

Parsed: TypeAlias = "Message[str, str]"
LARGEST = 10 * 2**20  # octets that are stored of one message
PARSED = 128 * 1024  # octets that are parsed: a few of Python's parsers take quadratic time on hostile input
PARTS = 50  # MIME parts that are searched for a text
MACHINES = re.compile(r"^(mailer-daemon|postmaster|no-?reply|do-?not-?reply|bounces?)([+.-]|@)", re.IGNORECASE)
# RFC 3834 section 2, and what autoresponders say of themselves besides.
AUTOMATIC_HEADERS = ("List-Id", "List-Post", "List-Unsubscribe", "X-Autoreply", "X-Autorespond", "Feedback-ID")
AUTOMATIC_PRECEDENCE = ("bulk", "junk", "list", "auto_reply")

# Words that plainly ask for a right, the gravest right first. Whatever they miss is a request of the kind `other`.
PLAIN_WORDS: dict[Kind, tuple[str, ...]] = {
    "child": ("my child", "my son", "my daughter", "mein kind"),
    "erase": (
        "delete my account", "delete my data", "delete my personal data", "delete all my data", "erase my data",
        "right to erasure", "right to be forgotten", "daten löschen", "konto löschen",
    ),
    "correct": ("correct my", "right to rectification", "daten berichtigen"),
    "access": ("copy of my data", "send me my data", "export my data", "subject access", "right of access", "datenauskunft"),
    "opt_out": ("unsubscribe", "opt out", "abbestellen"),
}  # fmt: skip
_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")
_MESSAGE_ID = re.compile(rb"^message-id:[ \t]*(?:\r?\n[ \t]+)?(\S+)", re.IGNORECASE | re.MULTILINE)
_NO_WORD = re.compile(r"\W+")
_TAG = re.compile(r"<blockquote.*|<[^<>]*>", re.DOTALL | re.IGNORECASE)  # and everything that is quoted


@dataclass(frozen=True, slots=True)
class ParsedMail:
    """What a message says of itself. `sender` is "" where it names no single address that can be answered."""

    sender: str
    subject: str
    automatic: bool  # no person wrote it: it is never answered (RFC 3834)
    asks: Kind | None


def parse_mail(raw: bytes) -> ParsedMail:
    """Parse a message. Never raises: one that cannot be parsed counts as automatic."""
    try:
        return _read(BytesParser(policy=policy.compat32).parsebytes(raw[:PARSED]))
    except Exception:  # noqa: BLE001 - Python's parsers raise many kinds of errors for hostile input
        return ParsedMail("", "", automatic=True, asks=None)


def identity(raw: bytes) -> str:
    """Return the id of a message: the same one however it came, because each delivery adds headers of its own."""
    head, *body = _END_OF_HEAD.split(raw, 1)
    found = _MESSAGE_ID.search(head)
    return hashlib.sha256(b"\0".join((found[1], *body)) if found else raw).hexdigest()


def _read(message: Parsed) -> ParsedMail:
    sender, subject = _sender(message), _header(message, "Subject")
    automatic = not sender or _is_automatic(message, sender)
    asks = None if automatic else _asks(f"{subject}\n{_text(message)}")
    return ParsedMail(sender, clean_name(subject), automatic, asks)


def _sender(message: Parsed) -> str:
    """The one address of the From line; Reply-To does not say who wrote the message."""
    found = getaddresses([_header(message, "From")])
    address = found[0][1].strip() if len(found) == 1 else ""
    return address if valid_address(address) else ""


def _header(message: Parsed, name: str) -> str:
    value = str(message.get(name, ""))[:2000]
    try:
        return str(make_header(decode_header(value)))
    except (MessageError, ValueError, LookupError):
        return value


def _is_automatic(message: Parsed, sender: str) -> bool:
    return (
        _word(message, "Auto-Submitted") not in ("", "no")
        or _word(message, "Precedence") in AUTOMATIC_PRECEDENCE
        or _word(message, "Return-Path") == "<>"
        or message.get_content_type() == "multipart/report"
        or any(name in message for name in AUTOMATIC_HEADERS)
        or bool(MACHINES.match(sender))
    )


def _word(message: Parsed, name: str) -> str:
    return _header(message, name).partition(";")[0].strip().lower()


def _asks(text: str) -> Kind | None:
    words = _NO_WORD.sub(" ", f" {text.lower()} ")
    return next((kind for kind, phrases in PLAIN_WORDS.items() if any(f" {each} " in words for each in phrases)), None)


def _text(message: Parsed) -> str:
    """The first text part, without what it quotes of an earlier message, which may be ours."""
    for part in islice(message.walk(), PARTS):
        if part.get_content_type() in ("text/plain", "text/html"):
            return "\n".join(line for line in _decoded(part).splitlines() if not line.lstrip().startswith(">"))
    return ""


def _decoded(part: Parsed) -> str:
    payload = part.get_payload(decode=True)
    octets = payload if isinstance(payload, bytes) else b""
    try:
        text = octets.decode(part.get_content_charset() or "utf-8", "replace")
    except (LookupError, ValueError):  # no charset that Python knows
        text = octets.decode("utf-8", "replace")
    return _TAG.sub(" ", text) if part.get_content_type() == "text/html" else text
