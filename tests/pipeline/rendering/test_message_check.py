"""The check of a finished mail accepts only the intended content."""

import pytest

from pipeline.rendering.message_check import MessageMismatchError, verify_message

EXPECTED = [
    ("Subject", "Grüße"),
    ("To", 'Max "M" <ada@example.com>'),
    ("Content-Type", 'multipart/alternative; boundary="=_x"'),
]
GOOD = (
    b'Subject: =?utf-8?q?Gr=C3=BC?=\r\n =?utf-8?q?=C3=9Fe?=\r\nTo: "Max \\"M\\""\r\n <ada@example.com>\r\n'
    b'Content-Type: multipart/alternative;\r\n boundary="=_x"\r\n\r\n--=_x\r\n\r\n--=_x\r\n\r\n--=_x--\r\n'
)


def test_intended_message_is_accepted() -> None:
    verify_message(GOOD, EXPECTED)


@pytest.mark.parametrize(
    ("good", "forged"),
    [
        (b"To:", b"Bcc: evil@example.org\r\nTo:"),  # an additional header
        (b"Subject:", b"Comment:"),
        (b"=C3=9F", b"=73=73"),  # another value
        (b"=C3=9F", b"=FF=FF"),  # invalid UTF-8
        (b"ada@", b"eve@"),
        (b"\r\nTo:", b"\nTo:"),
        (b"\r\nTo:", b"\rTo:"),
        (b"--=_x\r\n\r\n", b"--=_x\r\n\0\r\n"),
        (b"--=_x\r\n\r\n--=_x\r\n", b"--=_x\r\n" + b"y" * 999 + b"\r\n--=_x\r\n"),
        (b"\r\n--=_x--", b"\r\n--=_x\r\n\r\n--=_x--"),  # an additional part
        (b"Subject:", b" folded\r\nSubject:"),
        (b"Subject:", b"no colon\r\nSubject:"),
        (b"Subject: ", b"Subject: \xff"),
    ],
)
def test_changed_message_is_refused_without_personal_data(good: bytes, forged: bytes) -> None:
    data = GOOD.replace(good, forged, 1)
    assert data != GOOD
    with pytest.raises(MessageMismatchError) as caught:
        verify_message(data, EXPECTED)
    assert "@" not in str(caught.value)


ALL = [
    ("From", "Acme <billing@example.com>"),
    ("Subject", "Hello"),
    ("Date", "Sun, 01 Mar 2026 10:00:00 +0000"),
    ("Message-ID", "<abc@example.com>"),
    ("Auto-Submitted", "auto-generated"),
    ("Content-Language", "en-US"),
    ("List-Unsubscribe", "<https://billing.example.com/unsubscribe/abc>"),
    ("Content-Type", 'multipart/alternative; boundary="=_x"'),
]
BODY = b"\r\n--=_x\r\n\r\n--=_x\r\n\r\n--=_x--\r\n"


def with_header(name: str, raw: str) -> bytes:
    lines = [f"{each}: {raw if each == name else value}\r\n" for each, value in ALL]
    return "".join(lines).encode() + BODY


@pytest.mark.parametrize("name", [name for name, _ in ALL if name not in ("From", "Subject")])
def test_encoded_word_in_structured_header_is_refused(name: str) -> None:
    """A mail program that decodes it would read the intended value, but RFC 2047 section 5 forbids it."""
    value = dict(ALL)[name]
    verify_message(with_header(name, value), ALL)
    encoded = "=?utf-8?q?" + "".join(f"={octet:02X}" for octet in value.encode()) + "?="
    with pytest.raises(MessageMismatchError, match=name):
        verify_message(with_header(name, encoded), ALL)
    if name != "Content-Type":  # its boundary must be readable
        intended = [(each, encoded if each == name else value) for each, value in ALL]
        with pytest.raises(MessageMismatchError, match=f"{name} has an encoded word"):
            verify_message(with_header(name, encoded), intended)


@pytest.mark.parametrize(
    "raw", ["Acme <=?utf-8?q?billing?=@example.com>", '"=?utf-8?q?Acme?=" <billing@example.com>', "=?utf-8?q?Acme?="]
)
def test_encoded_word_in_address_or_quoted_name_is_refused(raw: str) -> None:
    with pytest.raises(MessageMismatchError, match="From"):
        verify_message(with_header("From", raw), ALL)


def test_encoded_words_in_subject_and_display_name_are_accepted() -> None:
    verify_message(with_header("From", "=?utf-8?q?Acme?= <billing@example.com>"), ALL)
    verify_message(with_header("Subject", "=?utf-8?q?Hello?="), ALL)


@pytest.mark.parametrize("raw", ["<abc@\r\n example.com>", "<abc\r\n @example.com>"])
def test_folded_message_id_is_refused(raw: str) -> None:
    with pytest.raises(MessageMismatchError, match="Message-ID"):
        verify_message(with_header("Message-ID", raw), ALL)


def test_line_of_998_octets_is_accepted() -> None:
    line = b"--=_x\r\n" + b"y" * 998 + b"\r\n"
    verify_message(GOOD.replace(b"--=_x\r\n", line, 1), EXPECTED)
