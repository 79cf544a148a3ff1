"""The bytes of a mail: other programs read exactly the intended content, even with hostile names."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from email import message_from_bytes
from email.header import decode_header, make_header
from email.message import Message
from html import unescape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.email_address import InvalidEnvelopeError, clean_name, strip_controls
from pipeline.rendering.message import Envelope, RenderedMail, build_message
from pipeline.rendering.message_check import MessageMismatchError
from pipeline.rendering.mime_encoding import encode_header
from tests.support.hostile_text import HOSTILE_TEXT, INJECTION

ENVELOPE = Envelope(
    token="abcdefghijklmnopqrstuvwxyz",
    sender_name="SMT Constructions",
    sender_address="billing@example.com",
    recipient_name="Ada Example",
    recipient_address="ada@example.com",
    reply_to="help@example.com",
    date=datetime(2026, 3, 1, 10, 0, tzinfo=UTC),
    message_id="<abcdefghijklmnopqrstuvwxyz@mail.example.com>",
    locale="en_US",
)
RENDERED = RenderedMail("Receipt: $19.99 USD", "Thank you!\n", "<p>Thank you!</p>\n")
NAMES = [
    "From",
    "To",
    "Reply-To",
    "Subject",
    "Date",
    "Message-ID",
    "Auto-Submitted",
    "X-Auto-Response-Suppress",
    "Content-Language",
    "MIME-Version",
    "Content-Type",
]


def read(data: bytes) -> Message:
    """Parse the mail with the standard library, independent of this project's code."""
    return message_from_bytes(data)


def decoded(mail: Message, name: str) -> str:
    return str(make_header(decode_header(mail[name]))).replace("\r\n", "")


def bodies(mail: Message) -> list[str]:
    parts = mail.get_payload()
    assert isinstance(parts, list)
    return [part.get_payload(decode=True).decode().replace("\r\n", "\n") for part in parts]  # type: ignore[union-attr]


def test_message_has_expected_headers_in_order() -> None:
    mail = read(build_message(RENDERED, envelope=ENVELOPE))
    assert mail.keys() == NAMES
    assert mail["From"] == "SMT Constructions <billing@example.com>"
    assert mail["To"] == "Ada Example <ada@example.com>"
    assert mail["Reply-To"] == "help@example.com"
    assert mail["Date"] == "Sun, 01 Mar 2026 10:00:00 +0000"
    assert mail["Message-ID"] == "<abcdefghijklmnopqrstuvwxyz@mail.example.com>"
    assert (mail["Auto-Submitted"], mail["X-Auto-Response-Suppress"]) == ("auto-generated", "All")
    assert mail["Content-Language"] == "en-US"
    assert mail.get_boundary() == "=_abcdefghijklmnopqrstuvwxyz"


def test_text_part_precedes_html_part_in_ascii() -> None:
    mail = read(build_message(RenderedMail("Grüße", "Grüße = 5 €\n", '<p class="x">Grüße 😀</p>\n'), envelope=ENVELOPE))
    parts = mail.get_payload()
    assert isinstance(parts, list)
    assert mail.get_content_type() == "multipart/alternative"
    kinds = [
        (part.get_content_type(), part["Content-Transfer-Encoding"]) for part in parts if isinstance(part, Message)
    ]
    assert kinds == [("text/plain", "quoted-printable"), ("text/html", "7bit")]
    text, html = bodies(mail)
    assert text == "Grüße = 5 €\n"
    assert html == '<p class="x">Gr&#252;&#223;e &#128512;</p>\n'
    assert unescape(html) == '<p class="x">Grüße 😀</p>\n'


@pytest.mark.parametrize("odd", ["x" * 999, "<p>\nFrom here\n</p>", "a\0b"])
def test_html_that_a_relay_could_change_is_quoted_printable(odd: str) -> None:
    mail = read(build_message(RenderedMail("x", "y", odd), envelope=ENVELOPE))
    assert [part["Content-Transfer-Encoding"] for part in mail.walk()][1:] == ["quoted-printable"] * 2
    assert bodies(mail)[1] == odd


def test_html_with_lines_of_maximum_length_is_sent_as_7bit() -> None:
    longest = f"{'x' * 998}\n\n.\n{'y' * 998}"
    mail = read(build_message(RenderedMail("x", "y", longest), envelope=ENVELOPE))
    assert [part["Content-Transfer-Encoding"] for part in mail.walk()][2] == "7bit"
    assert bodies(mail)[1] == longest


def test_same_input_produces_same_bytes() -> None:
    assert build_message(RENDERED, envelope=ENVELOPE) == build_message(replace(RENDERED), envelope=replace(ENVELOPE))


def test_date_is_converted_to_utc() -> None:
    zone = timezone(timedelta(hours=2))
    data = build_message(RENDERED, envelope=replace(ENVELOPE, date=datetime(2026, 3, 1, 12, 0, 0, 999, tzinfo=zone)))
    assert read(data)["Date"] == "Sun, 01 Mar 2026 10:00:00 +0000"


def test_empty_reply_to_is_omitted() -> None:
    assert "Reply-To" not in read(build_message(RENDERED, envelope=replace(ENVELOPE, reply_to="")))


def with_references(text: str) -> bytes:
    """Replace characters that are not ASCII by HTML character references."""
    return text.encode("ascii", "xmlcharrefreplace")


@given(name=HOSTILE_TEXT, sender=HOSTILE_TEXT, subject=HOSTILE_TEXT, text=HOSTILE_TEXT, html=HOSTILE_TEXT)
def test_standard_library_parses_hostile_texts_as_intended(
    name: str, sender: str, subject: str, text: str, html: str
) -> None:
    envelope = replace(ENVELOPE, recipient_name=name, sender_name=sender)
    data = build_message(RenderedMail(subject, text, html), envelope=envelope)
    mail = read(data)
    assert mail.keys() == NAMES
    assert all(len(line) <= 998 for line in data.split(b"\r\n"))
    assert b"\0" not in data
    assert not re.search(rb"\r(?!\n)|(?<!\r)\n", data)
    assert data.isascii()
    assert decoded(mail, "Subject").strip() == strip_controls(subject).strip()
    unified = [part.replace("\r\n", "\n").replace("\r", "\n") for part in (text, html)]
    assert [with_references(part) for part in bodies(mail)] == [with_references(part) for part in unified]
    for header, shown, address in (("To", name, "ada@example.com"), ("From", sender, "billing@example.com")):
        written = decoded(mail, header)
        if mail[header].startswith('"'):
            written = re.sub(r'^"(.*)" (<\S+>)$', lambda m: re.sub(r"\\(.)", r"\1", m[1]) + " " + m[2], written)
        assert written == (f"{clean_name(shown)} <{address}>" if clean_name(shown) else address)


@given(st.text(min_size=1, max_size=400))
def test_header_lines_have_at_most_78_octets(subject: str) -> None:
    head = build_message(replace(RENDERED, subject=subject), envelope=ENVELOPE).partition(b"\r\n\r\n")[0]
    lines = head.split(b"\r\n")
    assert max(len(line) for line in lines) <= 78
    assert all(line.strip() for line in lines)


def test_encoded_word_in_name_adds_no_header() -> None:
    envelope = replace(ENVELOPE, recipient_name=f"Zoe {INJECTION}", sender_name=INJECTION)
    data = build_message(replace(RENDERED, subject=f"Receipt for {INJECTION}"), envelope=envelope)
    mail = read(data)
    assert mail.keys() == NAMES
    assert b"\nBcc" not in data
    assert decoded(mail, "Subject") == f"Receipt for {INJECTION}"  # the text itself, not decoded
    assert decoded(mail, "To") == "Zoe <ada@example.com>"


def test_long_name_is_truncated() -> None:
    data = build_message(replace(RENDERED, subject="s" * 5000), envelope=replace(ENVELOPE, recipient_name="n" * 5000))
    assert max(len(line) for line in data.split(b"\r\n")) <= 78
    assert decoded(read(data), "To") == "n" * 99 + "… <ada@example.com>"


def test_name_keeps_commas_and_quotes() -> None:
    data = build_message(RENDERED, envelope=replace(ENVELOPE, recipient_name='Muster, Max "Maxl" \\o/'))
    assert read(data)["To"] == '"Muster, Max \\"Maxl\\" \\\\o/" <ada@example.com>'


def test_international_domain_is_encoded_as_a_labels() -> None:
    data = build_message(RENDERED, envelope=replace(ENVELOPE, recipient_address="ada@bücher.example"))
    assert read(data)["To"] == "Ada Example <ada@xn--bcher-kva.example>"
    assert data.isascii()


def test_international_local_part_is_kept() -> None:
    data = build_message(RENDERED, envelope=replace(ENVELOPE, recipient_address="jörg@bücher.example"))
    assert "To: Ada Example <jörg@xn--bcher-kva.example>\r\n".encode() in data


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("token", "a b"),
        ("token", ""),
        ("token", 'x"\r\nBcc: a'),
        ("sender_address", "no at sign"),
        ("recipient_address", "ada@example.com\r\nBcc: evil@example.org"),
        ("recipient_address", "ada@example.com, evil@example.org"),
        ("reply_to", "help@"),
        ("message_id", "no at sign"),
        ("message_id", "a@b>\r\nBcc: c"),
        ("locale", "en_US\r\nBcc: a"),
        ("date", datetime(2026, 3, 1)),  # noqa: DTZ001
    ],
)
def test_invalid_envelope_field_is_refused_without_its_value(field: str, value: object) -> None:
    with pytest.raises(InvalidEnvelopeError, match=field) as caught:
        build_message(RENDERED, envelope=replace(ENVELOPE, **{field: value}))  # type: ignore[arg-type]
    assert not isinstance(value, str) or not value or value not in str(caught.value)


@pytest.mark.parametrize("fault", ["\r\nBcc: evil@example.org", " and more", "\n", "\0", "x" * 999])
def test_faulty_header_encoding_stops_the_mail(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    faulty = lambda name, value: encode_header(name, value) + fault  # noqa: E731
    monkeypatch.setattr("pipeline.rendering.message.encode_header", faulty)
    with pytest.raises(MessageMismatchError):
        build_message(RENDERED, envelope=ENVELOPE)


def test_subject_may_resemble_a_boundary() -> None:
    subject = 'Your plan boundary="x" is paid'
    assert read(build_message(replace(RENDERED, subject=subject), envelope=ENVELOPE))["Subject"] == subject
