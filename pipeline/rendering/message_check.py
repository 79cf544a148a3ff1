"""A finished mail is read back: its headers are those intended, and nothing in it could pass for something else."""

import re
from binascii import Error as UndecodableBytes
from binascii import a2b_qp
from collections.abc import Iterator, Sequence

LONGEST_LINE = 998  # octets without CRLF, RFC 5322 section 2.1.1
ADDRESSES = frozenset({"From", "To", "Reply-To"})

Headers = Sequence[tuple[str, str]]


class MessageMismatchError(Exception):
    """The finished bytes do not say what was intended. Names the header, never its value. The mail must not leave."""


def verify_message(data: bytes, expected: Headers) -> None:
    """Read a finished mail back: raise Forged unless its headers are exactly `expected`, in order and in meaning.

    `expected` holds (name, text for people), Content-Type last; an address stands as `Name <local@domain>`. Also
    refused: a bare CR or LF, a NUL, a line above 998 octets, a count of boundaries other than three.
    """
    _prove_lines(data)
    head, _, body = data.partition(b"\r\n\r\n")
    found = list(_read_headers(head))
    if [name for name, _ in found] != [name for name, _ in expected]:
        raise MessageMismatchError("the mail does not carry exactly the headers that were intended")
    for (name, raw), (_, intended) in zip(found, expected, strict=True):
        if _read(name, raw) != intended:
            raise MessageMismatchError(f"the header {name} does not read back as intended")
    boundary = expected[-1][1].rpartition('boundary="')[2].rstrip('"').encode()
    if body.count(b"--" + boundary) != 3:
        raise MessageMismatchError("the parts of the mail are not the two that were intended")


def has_bare_line_end(data: bytes) -> bool:
    """Whether a CR or LF stands alone, which could pass for the end of the mail (RFC 5321 section 2.3.8)."""
    rest = data.replace(b"\r\n", b"  ")  # as long as before, so it is replaced in place, which is quicker
    return b"\r" in rest or b"\n" in rest


def has_long_line(data: bytes, *, ending: int) -> bool:
    """Whether a line is longer than 998 octets; line ends have so many octets."""
    start, widest = 0, LONGEST_LINE + ending
    while len(data) - start > LONGEST_LINE:  # from line end to line end in the widest steps allowed: few, so quick
        end = data.rfind(b"\n", start, start + widest)
        if end < 0:
            return True
        start = end + 1
    return False


def _prove_lines(data: bytes) -> None:
    if has_bare_line_end(data) or b"\0" in data:
        raise MessageMismatchError("the mail holds a bare CR, a bare LF or a NUL")
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
            raise MessageMismatchError("a line among the headers is none")
        at += 1
        while at < len(lines) and lines[at][:1] in (" ", "\t"):
            value += lines[at]
            at += 1
        yield name, value.removeprefix(" ")


def _read(name: str, raw: str) -> str:
    """The meaning of a header's text: encoded words decoded, a quoted name without its quotes."""
    if "=?" in raw:
        return _ENCODED_WORD.sub(_decoded, _BETWEEN_WORDS.sub("", raw))
    if name in ADDRESSES and (match := _QUOTED_NAME.fullmatch(raw)):
        return _ESCAPED.sub(r"\1", match[1]) + " " + match[2]
    return raw


def _decoded(word: re.Match[str]) -> str:
    try:
        return a2b_qp(word[1], header=True).decode()
    except (UndecodableBytes, UnicodeDecodeError):
        raise MessageMismatchError("an encoded word cannot be read") from None


_ENCODED_WORD = re.compile(r"=\?utf-8\?q\?([^? ]*)\?=")
_BETWEEN_WORDS = re.compile(r"(?<=\?=)[ \t]+(?==\?)")
_QUOTED_NAME = re.compile(r'"((?:[^"\\]|\\.)*)" (<\S+>)')
_ESCAPED = re.compile(r"\\(.)")
