"""Parse an inbound message: sender, subject, whether it is automatic, and which privacy right it asks for.

The From line is not authenticated, so nothing parsed here may change a customer's data or settings.
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
LARGEST = 10 * 2**20  # bytes stored of one message
PARSED = 128 * 1024  # bytes parsed of one message: some of Python's parsers need quadratic time for hostile input
HEAD = 64 * 1024  # bytes parsed of its headers; mail servers write about 10 KiB
PARTS = 50  # MIME parts searched for a text part
MACHINES = re.compile(r"^(mailer-daemon|postmaster|no-?reply|do-?not-?reply|bounces?)([+.-]|@)", re.IGNORECASE)
# Headers of automatic mail: RFC 3834 section 2, and headers that autoresponders commonly add.
AUTOMATIC_HEADERS = ("List-Id", "List-Post", "List-Unsubscribe", "X-Autoreply", "X-Autorespond", "Feedback-ID")
AUTOMATIC_PRECEDENCE = ("bulk", "junk", "list", "auto_reply")

# Phrases that ask for a privacy right; the most serious right first. Other messages become requests of kind `other`.
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
UNKNOWN = "\ufffd"  # stands for bytes that cannot be decoded, so an address with it is not the sender's
_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")
_MESSAGE_ID = re.compile(rb"^message-id:[ \t]*(?:\r?\n[ \t]+)?(\S+)", re.IGNORECASE | re.MULTILINE)
_NON_WORD = re.compile(r"\W+")
_TAG = re.compile(
    r"<blockquote.*|<[^<>]*>", re.DOTALL | re.IGNORECASE
)  # HTML tags, and everything after a quote starts


@dataclass(frozen=True, slots=True)
class ParsedMail:
    """The parsed fields of a message. `sender` is "" if the From line has no single valid address."""

    sender: str
    subject: str
    automatic: bool  # written by a program: it is never answered (RFC 3834)
    asks: Kind | None


UNREADABLE = ParsedMail("", "", automatic=True, asks=None)


def parse_mail(raw: bytes) -> ParsedMail:
    """Parse a message. Never raises: a message that cannot be parsed counts as automatic."""
    try:
        return _parse(BytesParser(policy=policy.compat32).parsebytes(_parsed_part(raw)))
    except Exception:  # noqa: BLE001 - Python's parsers raise many kinds of errors for hostile input
        return UNREADABLE


def identity(raw: bytes) -> str:
    """Return the id of a message: a hash of Message-ID and body, because each delivery adds its own headers."""
    head, *body = _END_OF_HEAD.split(raw, 1)
    found = _MESSAGE_ID.search(head[:HEAD])
    return hashlib.sha256(b"\0".join((found[1], *body)) if found else raw).hexdigest()


def _parsed_part(raw: bytes) -> bytes:
    """Return the beginning of the head and of the body. A head that is too long is cut before its last line."""
    found = _END_OF_HEAD.search(raw, 0, PARSED)
    end = found.start() if found else len(raw)
    if end <= HEAD:
        return raw[:PARSED]
    return raw[: raw.rfind(b"\n", 0, HEAD) + 1] + (raw[end:PARSED] if found else b"")


def _parse(message: Parsed) -> ParsedMail:
    sender, subject = _sender(message), header_text(message, "Subject")
    automatic = not sender or _is_automatic(message, sender)
    asks = None if automatic else _requested_right(f"{subject}\n{_text(message)}")
    return ParsedMail(sender, clean_name(subject), automatic, asks)


def _sender(message: Parsed) -> str:
    """Return the single address of the From line, else "". Reply-To is ignored, because it does not name the author."""
    found = getaddresses([header_text(message, "From")])
    address = found[0][1].strip() if len(found) == 1 else ""
    return address if valid_address(address) and UNKNOWN not in address else ""


def header_text(message: Parsed, name: str) -> str:
    """Return a header's decoded text; "" if there is none. It may be written in UTF-8 without encoding (RFC 6532)."""
    value = _utf8(message, name)[:2000]
    try:
        return str(make_header(decode_header(value)))
    except (MessageError, ValueError, LookupError):
        return value


def _utf8(message: Parsed, name: str) -> str:
    """Return the first header of this name. Bytes that are not UTF-8 become UNKNOWN."""
    value = next((value for key, value in message.raw_items() if key.lower() == name.lower()), "")
    return str(value).encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _is_automatic(message: Parsed, sender: str) -> bool:
    return (
        _keyword(message, "Auto-Submitted") not in ("", "no")
        or _keyword(message, "Precedence") in AUTOMATIC_PRECEDENCE
        or _keyword(message, "Return-Path") == "<>"
        or message.get_content_type() == "multipart/report"
        or any(name in message for name in AUTOMATIC_HEADERS)
        or bool(MACHINES.match(sender))
    )


def _keyword(message: Parsed, name: str) -> str:
    return header_text(message, name).partition(";")[0].strip().lower()


def _requested_right(text: str) -> Kind | None:
    words = _NON_WORD.sub(" ", f" {text.lower()} ")
    return next((kind for kind, phrases in PLAIN_WORDS.items() if any(f" {each} " in words for each in phrases)), None)


def _text(message: Parsed) -> str:
    """Return the first text part without quoted lines, because a quoted mail may contain the phrases."""
    for part in islice(message.walk(), PARTS):
        if part.get_content_type() in ("text/plain", "text/html"):
            return "\n".join(line for line in decoded_text(part).splitlines() if not line.lstrip().startswith(">"))
    return ""


def decoded_text(part: Parsed) -> str:
    """Return the text of a part. Tags and quotes are removed from HTML."""
    payload = part.get_payload(decode=True)
    content = payload if isinstance(payload, bytes) else b""
    try:
        text = content.decode(part.get_content_charset() or "utf-8", "replace")
    except (LookupError, ValueError):  # Python does not know the charset
        text = content.decode("utf-8", "replace")
    return _TAG.sub(" ", text) if part.get_content_type() == "text/html" else text
