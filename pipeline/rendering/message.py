"""One mail as bytes: RFC 5322 headers, and a multipart/alternative of a text in quoted-printable and plain ASCII HTML.

Written by hand, because the standard library's `email` package is slower than everything else a mail needs together,
and because some of its releases let an encoded word in a name add headers of its own (CVE-2024-6923). `proof` reads
every finished mail back and compares its headers with those intended, so that no such trick can leave this module.
"""

import re
from binascii import b2a_qp
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.errors import MessageError
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from functools import lru_cache

import idna

from pipeline.errors import UsageError
from pipeline.rendering.message_check import ADDRESSES, has_long_line, prove

FOLD_AT = 76  # octets: RFC 5322 asks for 78, RFC 2047 allows a line with encoded words 76
LONGEST_WORD = 75  # octets of one encoded word, RFC 2047 section 2
LONGEST_NAME = 100  # characters: longer than any name, far shorter than a message hidden in one
LONGEST_ADDRESS, LONGEST_LOCAL_PART = 254, 64  # octets, RFC 5321 section 4.5.3.1


class BadEnvelope(UsageError, ValueError):
    """An envelope holds what no mail can carry. Names the field, never its value."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """What a mail says: a subject of one line, and the same message as text and as HTML."""

    subject: str
    text: str
    html: str


@dataclass(frozen=True, slots=True)
class Envelope:
    """All that a mail needs beside its texts. `token` is unique to the mail and makes its boundary; `date` is aware."""

    token: str
    sender_name: str
    sender_address: str
    recipient_name: str
    recipient_address: str
    reply_to: str
    date: datetime
    message_id: str
    locale: str
    unsubscribe: str = ""  # the https:// address of RFC 8058, for mail that can be declined


def build(rendered: Rendered, *, envelope: Envelope) -> bytes:
    """The whole mail with CRLF line ends. The same input gives the same bytes.

    Raises BadEnvelope for an address, a token or an id that cannot stand in a mail, and Forged if the finished bytes
    do not read back as intended.
    """
    headers = _headers(rendered, envelope)
    head = "".join([f"{name}: {_write(name, value)}\r\n" for name, value in headers]).encode()
    boundary = b"=_" + envelope.token.encode()
    data = b"".join(
        (
            head,
            b'MIME-Version: 1.0\r\nContent-Type: multipart/alternative;\r\n boundary="%b"\r\n' % boundary,
            b"\r\n--%b\r\n" % boundary,
            _quoted_part(b"plain", rendered.text),
            b"\r\n--%b\r\n" % boundary,
            _html_part(rendered.html),
            b"\r\n--%b--\r\n" % boundary,
        )
    )
    mime = (("MIME-Version", "1.0"), ("Content-Type", f'multipart/alternative; boundary="{boundary.decode()}"'))
    prove(data, (*headers, *mime))
    return data


def clean_name(text: str) -> str:
    """Make outside text safe to show in a mail and its headers: one line, at most 100 characters, leading nowhere.

    Removed: control, bidirectional and invisible characters, RFC 2047 encoded words, schemes, and what reads as a
    telephone number. A dot before a letter gets a space after it, and `@` becomes " at ": a mail program then makes
    no link of `www.evil.example`, while `J.R.Smith` only becomes easier to read. A look-alike of the dot would not do,
    as browsers take U+2024 for a dot. Decimal numbers stay. Cleaning twice changes nothing.
    """
    if len(text) <= LONGEST_NAME and _PLAIN.fullmatch(text):
        return text
    text, before = text[: LONGEST_NAME * 5], ""
    while text != before:  # removing one thing can put another together
        before, text = text, _clean_once(text)
    return text


def strip_controls(text: str) -> str:
    """One line without control, bidirectional, invisible or broken characters."""
    if text.isascii() and text.isprintable():
        return text
    return _UNSEEN.sub("", _BREAKS.sub(" ", text))


def valid_address(text: str) -> bool:
    """Whether mail can be addressed to it: one plain `local@domain`, no quoting, no comments, no address literal.

    The domain may be international and so may the local part; RFC 5321 sections 4.1.2 and 4.5.3, RFC 6531.
    """
    local, _, domain = text.rpartition("@")
    if not _LOCAL_PART.fullmatch(local) or not local.isprintable() or len(local.encode()) > LONGEST_LOCAL_PART:
        return False
    ascii_domain = _ascii_domain(domain)
    return ascii_domain is not None and len(local.encode()) + 1 + len(ascii_domain) <= LONGEST_ADDRESS


def ascii_address(address: str) -> str:
    """The address with its domain as A-labels (IDNA 2008, with UTS 46 mapping). Raises BadEnvelope if not valid."""
    if not valid_address(address):
        raise BadEnvelope("not an address mail can be sent to")
    local, _, domain = address.rpartition("@")
    return f"{local}@{_ascii_domain(domain)}"


def needs_smtputf8(address: str) -> bool:
    """Only a local part beyond ASCII needs SMTPUTF8 (RFC 6531); a domain can always be written as A-labels."""
    return not address.rpartition("@")[0].isascii()


def injection_probe() -> bool:
    """Whether this interpreter's `email` package lets an encoded word add a header (CVE-2024-6923). We do not use it
    to write mail; what else runs on this interpreter may."""
    message = EmailMessage()
    try:
        message["Subject"] = "=?utf-8?q?a=0D=0ABcc=3A_somebody=40example=2Ecom?="
        return b"\nBcc:" in message.as_bytes(policy=SMTP)
    except (MessageError, ValueError):
        return False


# Headers: what they say


def _headers(rendered: Rendered, envelope: Envelope) -> list[tuple[str, str]]:
    """Every header but MIME's, as text for people. Raises BadEnvelope."""
    headers = [
        ("From", _own_mailbox(envelope.sender_name, envelope.sender_address, "sender_address")),
        ("To", _mailbox(envelope.recipient_name, envelope.recipient_address, "recipient_address")),
        ("Subject", strip_controls(rendered.subject)),
        ("Date", _date(envelope.date)),
        ("Message-ID", f"<{_matching(_ID, envelope.message_id.strip('<>'), 'message_id')}>"),
        ("Auto-Submitted", "auto-generated"),  # RFC 3834: no vacation notice answers this
        ("X-Auto-Response-Suppress", "All"),  # the same for Exchange
        ("Content-Language", _matching(_LANGUAGE, envelope.locale.replace("_", "-"), "locale")),
    ]
    _matching(_TOKEN, envelope.token, "token")
    if envelope.reply_to:
        headers.insert(2, ("Reply-To", _own_mailbox("", envelope.reply_to, "reply_to")))
    if envelope.unsubscribe:
        headers.append(("List-Unsubscribe", f"<{_matching(_HTTPS, envelope.unsubscribe, 'unsubscribe')}>"))
        headers.append(("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"))
    return headers


def _mailbox(name: str, address: str, field: str) -> str:
    try:
        address = ascii_address(address)
    except BadEnvelope:
        raise BadEnvelope(f"{field} is not an address mail can be sent to") from None
    name = clean_name(name)
    return f"{name} <{address}>" if name else address


_own_mailbox = lru_cache(maxsize=16)(_mailbox)  # ours only: a cache is no place for customers


def _matching(pattern: re.Pattern[str], text: str, field: str) -> str:
    if not pattern.fullmatch(text):
        raise BadEnvelope(f"{field} holds characters, or a length, that a mail cannot carry")
    return text


@lru_cache(maxsize=64)
def _date(date: datetime) -> str:
    if date.tzinfo is None:
        raise BadEnvelope("date has no time zone")
    return format_datetime(date.astimezone(UTC))


# Headers: how they are written


def _write(name: str, value: str) -> str:
    """The text of a header after its colon, folded and, where ASCII does not do, in encoded words."""
    if name == "List-Unsubscribe":  # a long address stays whole, and no encoded word may stand here
        return value
    if name not in ADDRESSES:
        return _write_text(value, used=len(name) + 2)
    phrase, space, address = value.rpartition(" ")
    if not phrase:
        return address
    written = _write_phrase(phrase, used=len(name) + 2)
    last = len(name) + 2 + len(written) if "\r\n" not in written else FOLD_AT
    return f"{written}{space if last + 1 + len(address) <= FOLD_AT else _FOLD}{address}"


def _write_text(text: str, used: int) -> str:
    if not text.isascii() or "=?" in text:
        return _FOLD.join(_encoded_words(text, used))
    if used + len(text) <= FOLD_AT:
        return text
    if max(map(len, text.split(" "))) >= FOLD_AT - used:  # nowhere to fold, as in a long unbroken name
        return _FOLD.join(_encoded_words(text, used))
    return _folded(text, used)


def _write_phrase(name: str, used: int) -> str:
    """A display name: plain words, else a quoted string, else encoded words (RFC 5322 section 3.4, RFC 2047)."""
    if not name.isascii() or "=?" in name or len(name) > FOLD_AT - used - 20:
        return _FOLD.join(_encoded_words(name, used))
    if _ATOMS.fullmatch(name):
        return name
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _folded(text: str, used: int) -> str:
    """Broken before words, so that taking the line breaks out gives the text back (RFC 5322 section 2.2.3)."""
    lines = [""]
    for word in text.split(" "):
        room = FOLD_AT - (used if len(lines) == 1 else 1)
        if lines[-1] and len(lines[-1]) + 1 + len(word) > room and word:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}" if lines != [""] else word
    return _FOLD.join(lines)


def _encoded_words(text: str, used: int) -> Iterator[str]:
    """Q-encoded words in UTF-8; none is longer than 75 octets, none splits a character, none needs a longer line."""
    room, whole, word = min(LONGEST_WORD, FOLD_AT - used) - len("=?utf-8?q??="), "".join(map(_quoted, text)), ""
    if len(whole) <= room:
        yield f"=?utf-8?q?{whole}?="
        return
    for piece in map(_quoted, text):
        if len(word) + len(piece) > room:
            yield f"=?utf-8?q?{word}?="
            word, room = "", LONGEST_WORD - len("=?utf-8?q??=")
        word += piece
    yield f"=?utf-8?q?{word}?="


@lru_cache(maxsize=4096)
def _quoted(character: str) -> str:
    if character == " ":
        return "_"
    if character.isascii() and character.isalnum():
        return character
    return "".join(f"={octet:02X}" for octet in character.encode())


def _html_part(html: str) -> bytes:
    """HTML can name any character in ASCII, so it goes as it is (7bit, RFC 2045 section 2.7): that is shorter, and
    quicker to write. Not so where a line would be changed on the way."""
    octets = _unix(html).encode("ascii", "xmlcharrefreplace")
    if b"\0" in octets or b"\nFrom " in octets or has_long_line(octets, ending=1):
        return _quoted_part(b"html", html)
    return _part(b"html", b"7bit", octets)


def _quoted_part(subtype: bytes, text: str) -> bytes:
    # b2a_qp leaves line ends alone, keeps lines within 76 octets, and hides a space or a tab at the end of one.
    return _part(subtype, b"quoted-printable", b2a_qp(_unix(text).encode("utf-8", "replace"), istext=True))


def _part(subtype: bytes, encoding: bytes, octets: bytes) -> bytes:
    head = b"Content-Type: text/%b; charset=utf-8\r\nContent-Transfer-Encoding: %b\r\n\r\n" % (subtype, encoding)
    return head + octets.replace(b"\n", b"\r\n")


def _unix(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


# Outside text and addresses


def _clean_once(text: str) -> str:
    text = _ENCODED_LOOK.sub("", strip_controls(text))
    text = _TELEPHONE.sub("", _SCHEME.sub("", text))
    text = _DOT.sub(lambda dot: dot[0] if len(dot[0]) > 1 else dot[0] + " ", text).replace("@", " at ")
    text = " ".join(text.split())
    return text if len(text) <= LONGEST_NAME else text[: LONGEST_NAME - 1].rstrip() + "…"


@lru_cache(maxsize=1024)
def _ascii_domain(domain: str) -> str | None:
    """The domain as A-labels; None if it is no host name."""
    try:
        written = domain.lower() if domain.isascii() else idna.encode(domain, uts46=True).decode()
    except (idna.IDNAError, UnicodeError):
        return None
    if written == "localhost":
        return written
    return written if len(written) <= 253 and _HOST_NAME.fullmatch(written) else None


_FOLD = "\r\n "
_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+( [A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_TOKEN = re.compile(r"[A-Za-z0-9]{1,60}")  # nobody who writes into a mail knows it
_ID = re.compile(r"[A-Za-z0-9._+=-]{1,120}@[A-Za-z0-9.-]{1,120}")
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*")
_HTTPS = re.compile(r"https://[A-Za-z0-9._~:/?#@!$&'()*+,;=%-]{1,500}")

_LOCAL_PART = re.compile(r"[^\x00-\x20\x7f-\xa0()<>\[\]:;@\\,.\"\s]+(\.[^\x00-\x20\x7f-\xa0()<>\[\]:;@\\,.\"\s]+)*")
_HOST_NAME = re.compile(r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+(?!\d+$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")

_PLAIN = re.compile(r"[A-Za-z,'()-]+( [A-Za-z,'()-]+)*")  # nothing to clean: the quick way for most names
_BREAKS = re.compile(r"[\t\n\v\f\r\x1c-\x1f\x85\u2028\u2029]")
# C0, C1, soft hyphen, Arabic letter mark, Hangul and Mongolian fillers, zero width, bidirectional, invisible operators,
# byte order mark, interlinear marks, tags; and surrogates, which cannot be written as UTF-8.
_UNSEEN = re.compile(
    r"[\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    r"\u3164\ufeff\uffa0\ufff0-\ufffb\ud800-\udfff\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_ENCODED_LOOK = re.compile(r"=\?[^?]*\?[^?]*\?[^?]*\?=")
_SCHEME = re.compile(r"[A-Za-z0-9+.-]*:[/\\]{2,}|\b(?:mailto|tel|sms|callto|javascript|data):", re.IGNORECASE)
_TELEPHONE = re.compile(r"\+?\(?\d(?:[\s()./-]*\d){8,}")
_DOT = re.compile(r"(?<![\d.])\d+\.\d+(?![\d.])|(?<=\S)[.\u2024\u3002\uff0e\uff61](?=\w)")
