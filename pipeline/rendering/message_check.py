"""Check a finished mail by parsing it: its headers must be exactly the intended ones, and nothing may be injected."""

import re
from binascii import Error as UndecodableBytes
from binascii import a2b_qp
from collections.abc import Iterator, Sequence

LONGEST_LINE = 998  # octets without CRLF, RFC 5322 section 2.1.1
ADDRESSES = frozenset({"From", "To", "Reply-To"})
# RFC 2047 section 5 allows encoded words in unstructured text and display names only. All other headers are structured.
UNSTRUCTURED = frozenset({"Subject"})

Headers = Sequence[tuple[str, str]]


class MessageMismatchError(Exception):
    """The finished mail differs from the intended one and must not be sent. Names the header, never its value."""


def verify_message(data: bytes, expected: Headers) -> None:
    """Parse a finished mail. Raises MessageMismatchError unless its headers are exactly `expected`, in this order.

    `expected` contains pairs of name and unencoded text, with Content-Type last. Addresses have the form
    `Name <local@domain>`. Also refused: a bare CR or LF, a NUL, a line above 998 octets, a number of boundaries other
    than three, and an encoded word where RFC 2047 forbids it, for example in a Message-ID.
    """
    _check_lines(data)
    head, _, body = data.partition(b"\r\n\r\n")
    found = list(_read_headers(head))
    if [name for name, _ in found] != [name for name, _ in expected]:
        raise MessageMismatchError("the mail does not have exactly the intended headers")
    for (name, raw), (_, intended) in zip(found, expected, strict=True):
        if _decode_header(name, raw) != intended:
            raise MessageMismatchError(f"the header {name} does not have the intended value")
    boundary = expected[-1][1].rpartition('boundary="')[2].rstrip('"').encode()
    if body.count(b"--" + boundary) != 3:
        raise MessageMismatchError("the mail does not have exactly two parts")


def has_bare_line_end(data: bytes) -> bool:
    """Return whether a CR or LF stands alone: a server could read it as the end of the mail (RFC 5321 section 2.3.8)."""
    rest = data.replace(b"\r\n", b"  ")  # a replacement of the same length is faster
    return b"\r" in rest or b"\n" in rest


def has_long_line(data: bytes, *, ending: int) -> bool:
    """Return whether a line is longer than 998 octets. `ending` is the number of octets of a line end."""
    start, widest = 0, LONGEST_LINE + ending
    while (
        len(data) - start > LONGEST_LINE
    ):  # jump to the last line end within the limit, which is faster than splitting
        end = data.rfind(b"\n", start, start + widest)
        if end < 0:
            return True
        start = end + 1
    return False


def _check_lines(data: bytes) -> None:
    if has_bare_line_end(data) or b"\0" in data:
        raise MessageMismatchError("the mail contains a bare CR, a bare LF or a NUL")
    if has_long_line(data, ending=2):
        raise MessageMismatchError(f"a line of the mail is longer than {LONGEST_LINE} octets")


def _read_headers(head: bytes) -> Iterator[tuple[str, str]]:
    try:
        lines = head.decode().split("\r\n")
    except UnicodeDecodeError:
        raise MessageMismatchError("the headers are not UTF-8") from None
    at = 0
    while at < len(lines):
        name, colon, value = lines[at].partition(":")
        if not colon or not name or name[0] in " \t":
            raise MessageMismatchError("a line among the headers is not a header")
        at += 1
        while at < len(lines) and lines[at][:1] in (" ", "\t"):
            value += lines[at]
            at += 1
        yield name, value.removeprefix(" ")


def _decode_header(name: str, raw: str) -> str:
    """Return a header's value with encoded words decoded and a quoted name without its quotes."""
    if name in UNSTRUCTURED:
        return _decode_words(raw)
    phrase, space, rest = raw.rpartition(" ") if name in ADDRESSES else ("", "", raw)
    if "=?" in rest or ((quoted := phrase.startswith('"')) and "=?" in phrase):
        raise MessageMismatchError(f"the header {name} has an encoded word where RFC 2047 forbids it")
    return (_unquote(phrase) if quoted else _decode_words(phrase)) + space + rest


def _decode_words(text: str) -> str:
    return _ENCODED_WORD.sub(_decode_word, _BETWEEN_WORDS.sub("", text)) if "=?" in text else text


def _unquote(phrase: str) -> str:
    match = _QUOTED_NAME.fullmatch(phrase)
    return _ESCAPED.sub(r"\1", match[1]) if match else phrase


def _decode_word(word: re.Match[str]) -> str:
    try:
        return a2b_qp(word[1], header=True).decode()
    except (UndecodableBytes, UnicodeDecodeError):
        raise MessageMismatchError("an encoded word cannot be decoded") from None


_ENCODED_WORD = re.compile(r"=\?utf-8\?q\?([^? ]*)\?=")
_BETWEEN_WORDS = re.compile(r"(?<=\?=)[ \t]+(?==\?)")
_QUOTED_NAME = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ESCAPED = re.compile(r"\\(.)")
