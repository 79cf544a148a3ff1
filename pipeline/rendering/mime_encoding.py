"""MIME encoder: folded headers, encoded words, and the text and HTML parts of a mail.

It replaces the standard library's `email` package for two reasons. For one receipt, that package takes about ten times
as long, more than all other work on the mail together (docs/performance.md). In some of its releases an encoded word in
a name can add headers (CVE-2024-6923). `message_check` parses every finished mail to verify it.
"""

import re
from binascii import b2a_qp
from collections.abc import Iterator
from functools import lru_cache

from pipeline.rendering.message_check import ADDRESSES, UNSTRUCTURED, has_long_line

FOLD_AT = 76  # octets: RFC 5322 recommends at most 78, RFC 2047 allows 76 for a line with encoded words
LONGEST_WORD = 75  # octets of one encoded word, RFC 2047 section 2

REFERENCES = frozenset({"In-Reply-To", "References"})
_FOLD = "\r\n "
_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+( [A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")


def encode_header(name: str, value: str) -> str:
    """Return a header's value. Subject and display names are folded, and encoded where they are not ASCII.

    All other headers are structured: RFC 2047 forbids encoded words in them, and a fold inside a Message-ID or a URL would
    change it. Only lists of ids are folded, between the ids. Such a line may be longer than 78 octets, which RFC 5322
    allows.
    """
    if name in REFERENCES:
        return value.replace(" ", _FOLD)
    if name in UNSTRUCTURED:
        return _encode_text(value, used=len(name) + 2)
    if name not in ADDRESSES:
        return value
    phrase, space, address = value.rpartition(" ")
    if not phrase:
        return address
    encoded = _encode_phrase(phrase, used=len(name) + 2)
    last = len(name) + 2 + len(encoded) if "\r\n" not in encoded else FOLD_AT
    return f"{encoded}{space if last + 1 + len(address) <= FOLD_AT else _FOLD}{address}"


def encode_text_part(text: str) -> bytes:
    """Return the `text/plain` part of a mail with its headers, in quoted-printable."""
    return _quoted_part(b"plain", text)


def encode_html_part(html: str) -> bytes:
    """Return the `text/html` part of a mail with its headers.

    HTML can express every character in ASCII, so it is sent as 7bit (RFC 2045 section 2.7), which is shorter and faster.
    Quoted-printable is used if a relay could change a line.
    """
    octets = _with_lf(html).encode("ascii", "xmlcharrefreplace")
    if b"\0" in octets or b"\nFrom " in octets or has_long_line(octets, ending=1):
        return _quoted_part(b"html", html)
    return _part(b"html", b"7bit", octets)


def _encode_text(text: str, used: int) -> str:
    """Encode unstructured text. `used` is the width of the header's name on the first line."""
    if not text.isascii() or "=?" in text:
        return _FOLD.join(_encoded_words(text, used))
    if used + len(text) <= FOLD_AT:
        return text
    if max(map(len, text.split(" "))) >= FOLD_AT - used:  # a word is too long to fold
        return _FOLD.join(_encoded_words(text, used))
    return _folded(text, used)


def _encode_phrase(name: str, used: int) -> str:
    """Encode a display name as plain words, a quoted string or encoded words (RFC 5322 section 3.4, RFC 2047)."""
    if not name.isascii() or "=?" in name or len(name) > FOLD_AT - used - 20:
        return _FOLD.join(_encoded_words(name, used))
    if _ATOMS.fullmatch(name):
        return name
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _folded(text: str, used: int) -> str:
    """Fold before words. Removing the line breaks restores the text (RFC 5322 section 2.2.3)."""
    lines = [""]
    for word in text.split(" "):
        room = FOLD_AT - (used if len(lines) == 1 else 1)
        if lines[-1] and len(lines[-1]) + 1 + len(word) > room and word:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}" if lines != [""] else word
    return _FOLD.join(lines)


def _encoded_words(text: str, used: int) -> Iterator[str]:
    """Yield Q-encoded words in UTF-8, at most 75 octets each. They fit on their lines and never split a character."""
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


def _quoted_part(subtype: bytes, text: str) -> bytes:
    # b2a_qp keeps line ends, limits lines to 76 octets, and encodes a space or tab at the end of a line.
    return _part(subtype, b"quoted-printable", b2a_qp(_with_lf(text).encode("utf-8", "replace"), istext=True))


def _part(subtype: bytes, encoding: bytes, octets: bytes) -> bytes:
    head = b"Content-Type: text/%b; charset=utf-8\r\nContent-Transfer-Encoding: %b\r\n\r\n" % (subtype, encoding)
    return head + octets.replace(b"\n", b"\r\n")


def _with_lf(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")
