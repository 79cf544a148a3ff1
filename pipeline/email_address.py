"""Rules for e-mail addresses and display names that come from outside: what is valid, and how it is written safely."""

import re
from functools import lru_cache

import idna

from pipeline.errors import UsageError

LONGEST_NAME = 100  # characters: longer than any name, far shorter than a message hidden in one
LONGEST_ADDRESS, LONGEST_LOCAL_PART = 254, 64  # octets, RFC 5321 section 4.5.3.1


class InvalidEnvelopeError(UsageError, ValueError):
    """An envelope holds what no mail can carry. Names the field, never its value."""


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
        raise InvalidEnvelopeError("not an address mail can be sent to")
    local, _, domain = address.rpartition("@")
    return f"{local}@{_ascii_domain(domain)}"


def needs_smtputf8(address: str) -> bool:
    """Only a local part beyond ASCII needs SMTPUTF8 (RFC 6531); a domain can always be written as A-labels."""
    return not address.rpartition("@")[0].isascii()


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
