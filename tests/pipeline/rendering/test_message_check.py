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


def test_line_of_998_octets_is_accepted() -> None:
    line = b"--=_x\r\n" + b"y" * 998 + b"\r\n"
    verify_message(GOOD.replace(b"--=_x\r\n", line, 1), EXPECTED)
