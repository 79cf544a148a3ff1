"""Parser: never raises, recognizes automatic mail, and recognizes privacy requests."""

import time
from email.header import Header

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.inbound_mail import parser


def mail(
    text: str = "Hello", *, subject: str = "A question", sender: str = "Ada <ada@example.com>", **more: str
) -> bytes:
    headers = {"From": sender, "To": "info@example.com", "Subject": subject} | {
        name.replace("_", "-"): value for name, value in more.items()
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"{head}\r\n{text}\r\n".encode()


def test_question_has_sender_and_asks_for_no_right() -> None:
    parsed = parser.parse_mail(mail("How do I add a second user?"))
    assert (parsed.sender, parsed.subject, parsed.automatic, parsed.asks) == (
        "ada@example.com",
        "A question",
        False,
        None,
    )


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Please delete my account.", "erase"),
        ("I invoke my right to be forgotten", "erase"),
        ("Bitte meine Daten löschen", "erase"),
        ("Please send me a copy of my data.", "access"),
        ("This is a subject access request", "access"),
        ("Please correct my address, I moved", "correct"),
        ("Please unsubscribe me", "opt_out"),
        ("I want to opt-out", "opt_out"),
        ("My child signed up, please delete my account", "child"),
        ("A question under GDPR", None),
        ("Is there a copy of my song?", None),
        ("How do I import data from a spreadsheet?", None),
        ("I deleted an invoice, can I undo that?", None),
    ],
)
def test_privacy_request_is_found_in_text_and_subject(text: str, kind: str | None) -> None:
    assert parser.parse_mail(mail(text)).asks == kind
    assert parser.parse_mail(mail("Hello", subject=Header(text, "utf-8").encode())).asks == kind


def test_quoted_text_is_ignored() -> None:
    assert parser.parse_mail(mail("Thanks!\r\n> you can have us delete your account\r\n")).asks is None
    html = "<p>Thanks!</p><blockquote>delete my account</blockquote>"
    assert parser.parse_mail(mail(html, Content_Type="text/html; charset=utf-8")).asks is None


@pytest.mark.parametrize(
    "more",
    [
        {"Auto_Submitted": "auto-replied"},
        {"Auto_Submitted": "auto-generated; owner=x"},
        {"Precedence": "bulk"},
        {"Return_Path": "<>"},
        {"List_Id": "<news.example.com>"},
        {"Content_Type": "multipart/report; report-type=delivery-status; boundary=x"},
        {"sender": "Mail Delivery <MAILER-DAEMON@example.com>"},
        {"sender": "no-reply@example.com"},
        {"sender": "ada@example.com, bob@example.com"},
        {"sender": "no address"},
    ],
)
def test_automatic_mail_asks_for_no_right(more: dict[str, str]) -> None:
    parsed = parser.parse_mail(mail("please delete my account", **more))
    assert parsed.automatic
    assert parsed.asks is None


def test_auto_submitted_no_is_not_automatic() -> None:
    assert not parser.parse_mail(mail(Auto_Submitted="no")).automatic


def test_first_text_part_of_multipart_mail_is_parsed() -> None:
    parts = (
        "--x\r\nContent-Type: multipart/alternative; boundary=y\r\n\r\n"
        "--y\r\nContent-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
        "Konto l=F6schen\r\n--y--\r\n"
        "--x\r\nContent-Type: text/plain\r\nContent-Disposition: attachment\r\n\r\nunsubscribe\r\n--x--\r\n"
    )
    assert parser.parse_mail(mail(parts, Content_Type="multipart/mixed; boundary=x")).asks == "erase"


def test_deeply_nested_and_huge_mail_is_bounded() -> None:
    deep = "".join(f"--b{n}\r\nContent-Type: multipart/mixed; boundary=b{n + 1}\r\n\r\n" for n in range(3000))
    assert parser.parse_mail(mail(deep, Content_Type="multipart/mixed; boundary=b0")).asks is None
    assert parser.parse_mail(mail("<" * 3_000_000, Content_Type="text/html")).asks is None
    assert parser.parse_mail(mail("x" * parser.PARSED + " delete my account")).asks is None


@pytest.mark.parametrize("charset", ["utf-7", "no-such-charset", "idna", "\x00", "punycode", "rot13", "zlib"])
def test_unknown_charset_does_not_stop_parsing(charset: str) -> None:
    assert (
        parser.parse_mail(mail("delete my account", Content_Type=f"text/plain; charset={charset}")).sender
        == "ada@example.com"
    )


def test_unparsable_mail_is_automatic() -> None:
    assert parser.parse_mail(mail(sender="(" * 1000)).automatic


FROM = b"From: ada@example.com\r\n"
SLOW = {
    "parameters": FROM + b"Content-Type: text/plain" + b";" * 2_000_000 + b"\r\n\r\nhi",
    "named parameters": FROM + b"Content-Type: text/plain" + b";a=b" * 500_000 + b"\r\n\r\nhi",
    "comments": b"From: " + b"(" * 2_000_000 + b"\r\n\r\nhi",
    "folded comments": b"From: " + b"(\r\n " * 500_000 + b"\r\n\r\nhi",
    "parts": FROM + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\n" * 1_200_000,
    "headers": FROM + b"X: y\r\n" * 1_000_000 + b"\r\nhi",
    "no end of the head": FROM + b"message-id:" + b" " * 8_000_000,
    "folded message id": b"message-id:\r\n " * 600_000,
    "words": FROM + b"Subject: " + b"=?utf-8?q?a?= " * 500_000 + b"\r\n\r\nhi",
    "quotes": FROM + b"Content-Type: text/html\r\n\r\n" + b"<blockquote" * 700_000,
}


@pytest.mark.parametrize("case", SLOW)
def test_hostile_mail_is_parsed_in_bounded_time(case: str) -> None:
    begin = time.process_time()
    parser.parse_mail(SLOW[case])
    parser.identity(SLOW[case])
    assert time.process_time() - begin < 3  # measured: at most 0.6 seconds


def test_text_after_a_long_head_is_parsed() -> None:
    head = b"From: ada@example.com\r\nSubject: hello\r\n" + b"X-Long: y\r\n" * 8_000
    parsed = parser.parse_mail(head + b"\r\ndelete my account")
    assert (parsed.sender, parsed.subject, parsed.asks) == ("ada@example.com", "hello", "erase")


@given(st.binary(max_size=600))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_parser_never_raises(raw: bytes) -> None:
    parser.parse_mail(raw)
    parser.identity(raw)
    parser.parse_mail(b'From: ada@example.com\r\nContent-Type: multipart/mixed; boundary="b"\r\nSubject: =?' + raw)
    parser.parse_mail(b"From: " + raw + b"\r\n\r\n" + raw)


def test_subject_contains_no_line_break_address_or_url() -> None:
    parsed = parser.parse_mail(mail(subject="=?utf-8?q?Hi=0D=0ABcc:_eve@example.com_https://evil.example?="))
    assert "\n" not in parsed.subject
    assert "@" not in parsed.subject
    assert "https://" not in parsed.subject


def test_header_in_utf8_is_read() -> None:
    """Mail servers with SMTPUTF8 deliver headers in UTF-8 (RFC 6532)."""
    parsed = parser.parse_mail(mail(sender="Jörg <jörg@bücher.example>", subject="Größe"))
    assert (parsed.sender, parsed.subject, parsed.automatic) == ("jörg@bücher.example", "Größe", False)


def test_sender_that_cannot_be_decoded_is_not_answered() -> None:
    parsed = parser.parse_mail(b"From: \xe1lice@example.com\r\nSubject: hello\r\n\r\nHello")
    assert (parsed.sender, parsed.automatic) == ("", True)
