"""Structured headers of every kind of mail are valid for every length of the sender's domain."""

import email
import email.policy
from dataclasses import replace
from datetime import UTC, datetime
from email.message import EmailMessage
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.mailer.relay_log import message_id_of
from pipeline.rendering.message import Envelope, RenderedMail, build_message
from tests.support.outbox_fixtures import TEMPLATES

MAIL_ID = "iu5uxtncahmljnwov7opfyel2y"
UNSUBSCRIBE = "https://billing.example.com/unsubscribe/" + "t" * 120
ENVELOPE = Envelope(
    token=MAIL_ID,
    sender_name="Brightwater & Söhne",
    sender_address="",
    recipient_name="Zoë Example",
    recipient_address="zoe@example.com",
    reply_to="",
    date=datetime(2026, 3, 1, tzinfo=UTC),
    message_id="",
    locale="en_US",
    unsubscribe=UNSUBSCRIBE,
)
FREE_TEXT = {"subject", "from", "to"}  # may contain encoded words: RFC 2047 section 5
KINDS = st.sampled_from(TEMPLATES.kinds)


@st.composite
def domains(draw: st.DrawFn, shortest: int = 4, longest: int = 253) -> str:
    """A domain of this many characters, in labels of at most 63."""
    length, labels = draw(st.integers(shortest, longest)), ["io"]
    while (left := length - len(".".join(labels)) - 1) > 0:
        # No label may leave exactly one character, the dot of the next one.
        sizes = [size for size in range(1, min(left, 63) + 1) if left - size != 1]
        labels.insert(0, "d" * draw(st.sampled_from(sizes)))
    return ".".join(labels)


@cache
def rendered(kind: str) -> RenderedMail:
    return TEMPLATES.render(kind, TEMPLATES.example(kind))


def headers_of(data: bytes) -> list[tuple[str, str]]:
    """Return the headers with their lines as they are in the bytes."""
    head = data.partition(b"\r\n\r\n")[0].decode("ascii").replace("\r\n ", "\n ")
    return [(name.lower(), value) for name, _, value in (line.partition(": ") for line in head.split("\r\n"))]


def parse_strictly(data: bytes) -> EmailMessage:
    """Parse with the standard library. Raises a defect of the message; asserts that no header has one."""
    message = email.message_from_bytes(data, policy=email.policy.strict)
    assert isinstance(message, EmailMessage)
    assert [(name, value.defects) for name, value in message.items() if value.defects] == []
    return message


@given(kind=KINDS, domain=domains(longest=252))
def test_message_id_is_valid_for_every_kind_and_domain(kind: str, domain: str) -> None:
    sent_by = replace(ENVELOPE, sender_address=f"b@{domain}", reply_to=f"b@{domain}")
    data = build_message(rendered(kind), envelope=replace(sent_by, message_id=message_id_of(MAIL_ID, domain)))
    message = parse_strictly(data)
    assert message["Message-ID"] == f"<{MAIL_ID}@{domain}>"
    assert message["From"].addresses[0].addr_spec == f"b@{domain}"
    assert [(name, raw) for name, raw in headers_of(data) if "=?" in raw and name not in FREE_TEXT] == []


@given(domain=domains(shortest=253))
def test_longest_domain_is_accepted_in_message_id(domain: str) -> None:
    assert len(domain) == 253
    envelope = replace(ENVELOPE, sender_address="b@example.com", message_id=message_id_of(MAIL_ID, domain))
    assert parse_strictly(build_message(rendered("receipt"), envelope=envelope))["Message-ID"] == envelope.message_id


@pytest.mark.parametrize("kind", TEMPLATES.kinds)
def test_header_lines_of_ordinary_domain_have_at_most_78_octets(kind: str) -> None:
    domain = "billing.smtconstructions.example.com"
    envelope = replace(ENVELOPE, sender_address=f"b@{domain}", unsubscribe="")
    data = build_message(rendered(kind), envelope=replace(envelope, message_id=message_id_of(MAIL_ID, domain)))
    assert max(map(len, data.partition(b"\r\n\r\n")[0].split(b"\r\n"))) <= 78
