"""Mail from outside is read with care: never an exception, never an answer to a machine, and a wish is recognised."""

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


def test_a_plain_question_is_from_its_sender_and_asks_for_nothing() -> None:
    read = parser.parse_mail(mail("How do I add a second user?"))
    assert (read.sender, read.subject, read.automatic, read.asks) == ("ada@example.com", "A question", False, None)


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
def test_a_wish_is_recognised_in_the_text_and_in_the_subject(text: str, kind: str | None) -> None:
    assert parser.parse_mail(mail(text)).asks == kind
    assert parser.parse_mail(mail("Hello", subject=Header(text, "utf-8").encode())).asks == kind


def test_what_is_quoted_of_our_own_mail_asks_for_nothing() -> None:
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
        {"sender": "nobody"},
    ],
)
def test_what_no_person_wrote_is_automatic_whatever_it_asks(more: dict[str, str]) -> None:
    read = parser.parse_mail(mail("please delete my account", **more))
    assert read.automatic
    assert read.asks is None


def test_auto_submitted_no_is_a_person() -> None:
    assert not parser.parse_mail(mail(Auto_Submitted="no")).automatic


def test_the_first_text_of_a_mail_in_parts_is_read() -> None:
    parts = (
        "--x\r\nContent-Type: multipart/alternative; boundary=y\r\n\r\n"
        "--y\r\nContent-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
        "Konto l=F6schen\r\n--y--\r\n"
        "--x\r\nContent-Type: text/plain\r\nContent-Disposition: attachment\r\n\r\nunsubscribe\r\n--x--\r\n"
    )
    assert parser.parse_mail(mail(parts, Content_Type="multipart/mixed; boundary=x")).asks == "erase"


def test_a_maze_of_parts_and_a_huge_mail_are_bounded() -> None:
    deep = "".join(f"--b{n}\r\nContent-Type: multipart/mixed; boundary=b{n + 1}\r\n\r\n" for n in range(3000))
    assert parser.parse_mail(mail(deep, Content_Type="multipart/mixed; boundary=b0")).asks is None
    assert parser.parse_mail(mail("<" * 3_000_000, Content_Type="text/html")).asks is None
    assert parser.parse_mail(mail("x" * parser.PARSED + " delete my account")).asks is None


@pytest.mark.parametrize("charset", ["utf-7", "no-such-charset", "idna", "\x00", "punycode", "rot13", "zlib"])
def test_a_strange_charset_is_read_as_far_as_it_goes(charset: str) -> None:
    assert (
        parser.parse_mail(mail("delete my account", Content_Type=f"text/plain; charset={charset}")).sender
        == "ada@example.com"
    )


def test_what_python_cannot_parse_is_automatic() -> None:
    assert parser.parse_mail(mail(sender="(" * 1000)).automatic


@given(st.binary(max_size=600))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_no_bytes_ever_raise(raw: bytes) -> None:
    parser.parse_mail(raw)
    parser.identity(raw)
    parser.parse_mail(b'From: ada@example.com\r\nContent-Type: multipart/mixed; boundary="b"\r\nSubject: =?' + raw)
    parser.parse_mail(b"From: " + raw + b"\r\n\r\n" + raw)


def test_a_name_cannot_smuggle_an_address_or_a_line_into_the_subject() -> None:
    read = parser.parse_mail(mail(subject="=?utf-8?q?Hi=0D=0ABcc:_eve@example.com_https://evil.example?="))
    assert "\n" not in read.subject
    assert "@" not in read.subject
    assert "https://" not in read.subject
