"""Validation of e-mail addresses, and cleaning of display names, from outside sources."""

import re
from functools import lru_cache

import idna

from pipeline.errors import UsageError

LONGEST_NAME = 100  # characters; enough for any name, too short to hide a message in it
LONGEST_ADDRESS, LONGEST_LOCAL_PART = 254, 64  # octets, RFC 5321 section 4.5.3.1


class InvalidEnvelopeError(UsageError, ValueError):
    """An envelope has an invalid field. The message names the field, never its value."""


def clean_name(text: str) -> str:
    """Make outside text safe for mails and their headers: one line, at most 100 characters, without links.

    Removes control, bidirectional and invisible characters, RFC 2047 encoded words, URL schemes and telephone numbers.
    Adds a space after a dot that a letter follows, and replaces `@` with " at ". So a mail program makes no link of
    `www.evil.example`, and `J.R.Smith` stays readable. A look-alike character for the dot would not help, because
    browsers treat U+2024 as a dot. Decimal numbers are kept. Cleaning twice changes nothing.
    """
    if len(text) <= LONGEST_NAME and _PLAIN.fullmatch(text):
        return text
    text, before = text[: LONGEST_NAME * 5], ""
    while text != before:  # removing one part can join two others to a new match
        before, text = text, _clean_once(text)
    return text


def strip_controls(text: str) -> str:
    """Return the text as one line without control, bidirectional, invisible or invalid characters."""
    if text.isascii() and text.isprintable():
        return text
    return _INVISIBLE.sub("", _BREAKS.sub(" ", text))


def valid_address(text: str) -> bool:
    """Return whether the text is one plain `local@domain` address, without quotes, comments or an address literal.

    Both parts may contain non-ASCII characters (RFC 5321 sections 4.1.2 and 4.5.3, RFC 6531).
    """
    local, _, domain = text.rpartition("@")
    if not _LOCAL_PART.fullmatch(local) or not local.isprintable() or len(local.encode()) > LONGEST_LOCAL_PART:
        return False
    ascii_domain = _ascii_domain(domain)
    return ascii_domain is not None and len(local.encode()) + 1 + len(ascii_domain) <= LONGEST_ADDRESS


def ascii_address(address: str) -> str:
    """Return the address with its domain as A-labels (IDNA 2008, UTS 46 mapping). Raises InvalidEnvelopeError."""
    if not valid_address(address):
        raise InvalidEnvelopeError("this is not a valid e-mail address")
    local, _, domain = address.rpartition("@")
    return f"{local}@{_ascii_domain(domain)}"


def needs_smtputf8(address: str) -> bool:
    """Return whether the address needs SMTPUTF8 (RFC 6531): its local part is not ASCII. A domain can use A-labels."""
    return not address.rpartition("@")[0].isascii()


def _clean_once(text: str) -> str:
    text = _ENCODED_WORD.sub("", strip_controls(text))
    text = _TELEPHONE.sub("", _SCHEME.sub("", text))
    text = _DOT.sub(lambda dot: dot[0] if len(dot[0]) > 1 else dot[0] + " ", text).replace("@", " at ")
    text = " ".join(text.split())
    return text if len(text) <= LONGEST_NAME else text[: LONGEST_NAME - 1].rstrip() + "…"


@lru_cache(maxsize=1024)
def _ascii_domain(domain: str) -> str | None:
    """Return the domain as A-labels, or None if it is not a host name."""
    try:
        written = domain.lower() if domain.isascii() else idna.encode(domain, uts46=True).decode()
    except (idna.IDNAError, UnicodeError):
        return None
    if written == "localhost":
        return written
    return written if len(written) <= 253 and _HOST_NAME.fullmatch(written) else None


_LOCAL_PART = re.compile(r"[^\x00-\x20\x7f-\xa0()<>\[\]:;@\\,.\"\s]+(\.[^\x00-\x20\x7f-\xa0()<>\[\]:;@\\,.\"\s]+)*")
_HOST_NAME = re.compile(r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+(?!\d+$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")

_PLAIN = re.compile(r"[A-Za-z,'()-]+( [A-Za-z,'()-]+)*")  # most names; they need no cleaning
_BREAKS = re.compile(r"[\t\n\v\f\r\x1c-\x1f\x85\u2028\u2029]")
# C0, C1, soft hyphen, Arabic letter mark, Hangul and Mongolian fillers, zero width, bidirectional, invisible operators,
# byte order mark, interlinear marks, tags; and surrogates, which cannot be written as UTF-8.
_INVISIBLE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    r"\u3164\ufeff\uffa0\ufff0-\ufffb\ud800-\udfff\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_ENCODED_WORD = re.compile(r"=\?[^?]*\?[^?]*\?[^?]*\?=")
_SCHEME = re.compile(r"[A-Za-z0-9+.-]*:[/\\]{2,}|\b(?:mailto|tel|sms|callto|javascript|data):", re.IGNORECASE)
_TELEPHONE = re.compile(r"\+?\(?\d(?:[\s()./-]*\d){8,}")
_DOT = re.compile(r"(?<![\d.])\d+\.\d+(?![\d.])|(?<=\S)[.\u2024\u3002\uff0e\uff61](?=\w)")


def fold_address(address: str) -> str:
    """Return the form in which two addresses are compared: ASCII letters in lower case, the domain as A-labels.

    `bücher.example` and `xn--bcher-kva.example` are one domain. Other letters of the local part are not changed: only the
    mail server knows whether they are equal.
    """
    local, at, domain = address.strip().rpartition("@")
    folded = domain if domain.isascii() else _ascii_domain(domain) or domain
    return f"{local}{at}{folded}".encode("utf-8", "surrogatepass").lower().decode("utf-8", "surrogatepass")
