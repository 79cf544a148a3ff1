"""One mail that somebody wrote to us, read with care: who it is from, what it is about, whether a person wrote it.

Nothing here ever raises for what a stranger sent. Only the first text is looked at; what is attached is kept, not read.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from email import policy
from email.errors import MessageError
from email.header import decode_header, make_header
from email.message import Message
from email.parser import BytesParser
from email.utils import getaddresses
from typing import TYPE_CHECKING, TypeAlias

from pipeline.email_address import clean_name, valid_address

if TYPE_CHECKING:
    from pipeline.privacy.requests import Kind

Parsed: TypeAlias = "Message[str, str]"
LARGEST = 10 * 2**20  # octets that are kept of one mail
LOOKED_AT = 20_000  # characters of its text that are searched for a request
MACHINES = re.compile(r"^(mailer-daemon|postmaster|no-?reply|do-?not-?reply|bounces?)([+.-]|@)", re.IGNORECASE)
# RFC 3834 section 2 and what machines say of themselves besides.
LIST_HEADERS = ("List-Id", "List-Post", "List-Unsubscribe", "X-Autoreply", "X-Autorespond", "Feedback-ID")

# What people write when they mean their rights, the gravest first; English, and German for the neighbours. `~` stands
# for what may come before the noun, as in "delete all of my personal data".
WORDS: "tuple[tuple[Kind, tuple[str, ...]], ...]" = (
    ("child", (r"my (?:\w+ )?(?:child|son|daughter|kid)", r"minor'?s? data", r"mein(?:e|er)? (?:kind|sohn|tochter)")),
    (
        "erase",
        (
            r"(?:delet|eras|remov|destroy)\w* ~(?:data|account|information|details|profile)",
            r"right to (?:erasure|be forgotten)",
            r"forget me",
            r"(?:daten|konto|account) löschen",
            r"löschung",
        ),
    ),
    (
        "correct",
        (
            r"(?:correct|rectif|amend)\w* ~(?:data|name|address|e-?mail|phone|details|information)",
            r"right to rectification",
            r"berichtigung",
        ),
    ),
    (
        "access",
        (
            r"(?:export|copy|download|send me) (?:of )?~(?:data|information)",
            r"access (?:to )?~data",
            r"what (?:personal )?data (?:do )?you (?:have|hold|store)",
            r"subject access",
            r"right (?:of|to) access",
            r"daten(?:auskunft|kopie|export)",
        ),
    ),
    (
        "opt_out",
        (
            r"unsubscribe",
            r"opt(?:ing)?[ -]?out",
            r"(?:no more|stop (?:sending|the)) (?:news|newsletters?|e?-?mails?|marketing)",
            r"abbestellen",
        ),
    ),
    ("other", (r"gdpr", r"ccpa", r"dsgvo", r"data protection", r"privacy (?:request|rights?)")),
)
_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")
_BEFORE = r"(?:all |of )*(?:my |the |our |your )?(?:personal |account |stored |customer )?"
_WORDS = tuple(
    (kind, re.compile(r"\b(?:" + "|".join(phrases).replace("~", _BEFORE) + r")\b", re.IGNORECASE))
    for kind, phrases in WORDS
)


@dataclass(frozen=True, slots=True)
class Read:
    """What a mail says of itself. `sender` is "" where it names no address that can be answered.

    `id` is the same for the same mail whatever way it came: each delivery adds headers of its own.
    """

    id: str
    sender: str
    subject: str
    automatic: bool
    asks: "Kind | None"


def read(raw: bytes) -> Read:
    """Read a mail. Never raises."""
    try:
        message = BytesParser(policy=policy.compat32).parsebytes(raw[:LARGEST])
    except (MessageError, ValueError, RecursionError, LookupError, TypeError):
        return Read(_hash(raw), "", "", automatic=True, asks=None)
    sender, subject = _sender(message), clean_name(_header(message, "Subject"))
    automatic = not sender or _is_automatic(message, sender)
    id = _identity(message, raw)
    return Read(
        id, sender, subject, automatic, None if automatic else _asks(_header(message, "Subject"), _text(message))
    )


def _identity(message: Parsed, raw: bytes) -> str:
    name = _header(message, "Message-ID").strip()
    return _hash(name.encode("utf-8", "replace") + b"\0" + _END_OF_HEAD.split(raw, 1)[-1] if name else raw)


def _hash(octets: bytes) -> str:
    return hashlib.sha256(octets).hexdigest()


def _sender(message: Parsed) -> str:
    """The one address it is from; Reply-To is not who wrote it."""
    found = getaddresses([_header(message, "From")])
    address = found[0][1].strip() if len(found) == 1 else ""
    return address if valid_address(address) else ""


def _header(message: Parsed, name: str) -> str:
    """A header's text, decoded as far as it can be; "" if there is none."""
    value = str(message.get(name, ""))[:2000]
    try:
        return str(make_header(decode_header(value)))
    except (MessageError, ValueError, LookupError):
        return value


def _is_automatic(message: Parsed, sender: str) -> bool:
    if _header(message, "Auto-Submitted").split(";")[0].strip().lower() not in ("", "no"):
        return True
    if _header(message, "Precedence").strip().lower() in ("bulk", "junk", "list", "auto_reply"):
        return True
    if message.get_content_type() == "multipart/report" or _header(message, "Return-Path").strip() == "<>":
        return True
    return bool(MACHINES.match(sender)) or any(message.get(name) is not None for name in LIST_HEADERS)


def _asks(subject: str, text: str) -> "Kind | None":
    words = " ".join(f"{subject}\n{text}"[:LOOKED_AT].split())
    return next((kind for kind, pattern in _WORDS if pattern.search(words)), None)


def _text(message: Parsed) -> str:
    """The first text part, without what it quotes of an earlier mail: our own words in it ask for nothing."""
    for part in _parts(message):
        if part.get_content_type() in ("text/plain", "text/html"):
            return _unquoted(part)
    return ""


def _parts(message: Parsed) -> Iterator[Parsed]:
    """Parts in order, the first few of them: no mail is a maze."""
    waiting, seen = [message], 0
    while waiting and seen < 50:
        part, seen = waiting.pop(0), seen + 1
        inside = part.get_payload()
        if isinstance(inside, list):
            waiting[:0] = [each for each in inside if isinstance(each, Message)]
        else:
            yield part


def _unquoted(part: Parsed) -> str:
    payload = part.get_payload(decode=True)
    octets = payload[: LOOKED_AT * 8] if isinstance(payload, bytes) else b""
    try:
        text = octets.decode(part.get_content_charset() or "utf-8", "replace")
    except (LookupError, ValueError):  # no charset that anybody knows
        text = octets.decode("utf-8", "replace")
    if part.get_content_type() == "text/html":
        text = re.sub(r"<blockquote.*", " ", text, flags=re.DOTALL | re.IGNORECASE)
        text = re.sub(r"<[^>]{0,2000}>", " ", text)
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith(">"))
