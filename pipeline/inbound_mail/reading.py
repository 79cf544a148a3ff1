"""Read a stored message for the operator: its headers, its text, its attachments, and the conversation it belongs to."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from email import policy
from email.parser import BytesParser
from itertools import islice

from pipeline.email_address import strip_controls
from pipeline.inbound_mail.parser import PARSED, PARTS, Parsed, decoded_text, header_text, parse_mail

SHOWN_TYPES = ("text/plain", "message/delivery-status", "message/feedback-report")
REFERENCES = 10  # message ids of a conversation that a reply names: the first one and the last ones
_MESSAGE_ID = re.compile(r"<[!-;=@-~]{1,250}>")


@dataclass(frozen=True, slots=True)
class ReadableMessage:
    """A message for people. `sender` is "" unless the From line has one valid address, so it can be answered.

    `references` are the message ids of the conversation, oldest first; the last one is the message's own.
    """

    sender: str
    from_line: str
    to: str
    subject: str
    date: str
    text: str
    attachments: tuple[str, ...]
    references: tuple[str, ...]


def read_message(raw: bytes) -> ReadableMessage:
    """Read a message. Never raises: the text of a message that cannot be parsed is its beginning."""
    sender = parse_mail(raw).sender
    try:
        return _read(BytesParser(policy=policy.compat32).parsebytes(raw[:PARSED]), sender)
    except Exception:  # noqa: BLE001 - Python's parsers raise many kinds of errors for hostile input
        return ReadableMessage(sender, "", "", "", "", raw[:PARSED].decode("utf-8", "replace"), (), ())


def _read(message: Parsed, sender: str) -> ReadableMessage:
    from_line, to, subject, date = (
        strip_controls(header_text(message, name)) for name in ("From", "To", "Subject", "Date")
    )
    parts = [part for part in islice(message.walk(), PARTS) if not part.is_multipart() or _is_report(part)]
    attachments = tuple(_name(part) for part in parts if part.get_content_disposition() == "attachment")
    return ReadableMessage(sender, from_line, to, subject, date, _text(parts), attachments, _references(message))


def _text(parts: list[Parsed]) -> str:
    """Return the text parts and reports; the text of the HTML parts if there are none."""
    inline = [part for part in parts if part.get_content_disposition() != "attachment"]
    plain = [_decode(part) for part in inline if part.get_content_type() in SHOWN_TYPES]
    html = [decoded_text(part) for part in inline if part.get_content_type() == "text/html"]
    return "\n\n".join("\n".join(text.strip().splitlines()) for text in plain or html if text.strip())


def _decode(part: Parsed) -> str:
    return "\n".join(str(block) for block in _blocks(part)) if _is_report(part) else decoded_text(part)


def _blocks(part: Parsed) -> Iterator[object]:
    """Yield the fields of a report. Python parses them as messages that have only headers."""
    payload = part.get_payload()
    yield from payload if isinstance(payload, list) else [payload]


def _is_report(part: Parsed) -> bool:
    return part.get_content_type() in SHOWN_TYPES[1:]


def _name(part: Parsed) -> str:
    return f"{strip_controls(part.get_filename() or 'without name')} ({part.get_content_type()})"


def _references(message: Parsed) -> tuple[str, ...]:
    """Return the valid message ids of References, otherwise In-Reply-To, and the message's own (RFC 5322 section 3.6.4)."""
    [own] = _MESSAGE_ID.findall(str(message.get("Message-ID", "")))[:1] or [""]
    if not own:
        return ()
    before = [id for id in _ids(message, "References") or _ids(message, "In-Reply-To")[:1] if id != own]
    return (*before[:1], *before[1:][-(REFERENCES - 2) :], own)


def _ids(message: Parsed, name: str) -> list[str]:
    return _MESSAGE_ID.findall(str(message.get(name, ""))[:20_000])
