"""Build the bytes of one mail: RFC 5322 headers, and multipart/alternative with a text and an HTML part."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache

from pipeline.email_address import InvalidEnvelopeError, ascii_address, clean_name, strip_controls
from pipeline.rendering.message_check import verify_message
from pipeline.rendering.mime_encoding import encode_header, encode_html_part, encode_text_part

_TOKEN = re.compile(
    r"[A-Za-z0-9]{1,60}"
)  # part of the MIME boundary, so it must be unpredictable for authors of mail text
# RFC 5322 section 3.6.4, both sides as dot-atoms. A domain has at most 253 characters (RFC 1035).
_ID = re.compile(
    r"(?=[^@]{1,120}@)[A-Za-z0-9_+=-]+(?:\.[A-Za-z0-9_+=-]+)*@(?=.{1,253}$)[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*"
)
_REFERENCE = re.compile(r"<[!-;=@-~]{1,250}>")
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*")
_HTTPS = re.compile(r"https://[A-Za-z0-9._~:/?#@!$&'()*+,;=%-]{1,500}")

AUTOMATIC = (
    ("Auto-Submitted", "auto-generated"),  # RFC 3834: prevents vacation replies
    ("X-Auto-Response-Suppress", "All"),  # the same for Exchange
)


@dataclass(frozen=True, slots=True)
class RenderedMail:
    """The rendered content of a mail: a subject of one line, and the same message as text and as HTML."""

    subject: str
    text: str
    html: str


@dataclass(frozen=True, slots=True)
class Envelope:
    """Sender, recipient and header data of a mail.

    `token` is unique for each mail and becomes part of its MIME boundary. `date` has a time zone.
    """

    token: str
    sender_name: str
    sender_address: str
    recipient_name: str
    recipient_address: str
    reply_to: str
    date: datetime
    message_id: str
    locale: str
    unsubscribe: str = ""  # the https:// URL of RFC 8058, for optional mail
    references: tuple[str, ...] = ()  # message ids of the conversation, oldest first; the last one is answered
    automatic: bool = True  # False if a person wrote the text


def build_message(rendered: RenderedMail, *, envelope: Envelope) -> bytes:
    """Return the complete mail with CRLF line ends. The same input gives the same bytes.

    Raises InvalidEnvelopeError for an invalid address, token or id. Raises MessageMismatchError if the finished bytes
    do not parse to the intended headers.
    """
    headers = _headers(rendered, envelope)
    head = "".join([f"{name}: {encode_header(name, value)}\r\n" for name, value in headers]).encode()
    boundary = b"=_" + envelope.token.encode()
    data = b"".join(
        (
            head,
            b'MIME-Version: 1.0\r\nContent-Type: multipart/alternative;\r\n boundary="%b"\r\n' % boundary,
            b"\r\n--%b\r\n" % boundary,
            encode_text_part(rendered.text),
            b"\r\n--%b\r\n" % boundary,
            encode_html_part(rendered.html),
            b"\r\n--%b--\r\n" % boundary,
        )
    )
    mime = (("MIME-Version", "1.0"), ("Content-Type", f'multipart/alternative; boundary="{boundary.decode()}"'))
    verify_message(data, (*headers, *mime))
    return data


def _headers(rendered: RenderedMail, envelope: Envelope) -> list[tuple[str, str]]:
    """Return all headers except MIME's, not yet encoded. Raises InvalidEnvelopeError."""
    headers = [
        ("From", _mailbox(envelope.sender_name, envelope.sender_address, "sender_address")),
        ("To", _mailbox(envelope.recipient_name, envelope.recipient_address, "recipient_address")),
        ("Subject", strip_controls(rendered.subject)),
        ("Date", _date(envelope.date)),
        ("Message-ID", f"<{_matching(_ID, envelope.message_id.strip('<>'), 'message_id')}>"),
        *(AUTOMATIC if envelope.automatic else ()),
        ("Content-Language", _matching(_LANGUAGE, envelope.locale.replace("_", "-"), "locale")),
    ]
    _matching(_TOKEN, envelope.token, "token")
    if envelope.reply_to:
        headers.insert(2, ("Reply-To", _mailbox("", envelope.reply_to, "reply_to")))
    if envelope.references:  # RFC 5322 section 3.6.4
        named = [_matching(_REFERENCE, id, "references") for id in envelope.references]
        headers += [("In-Reply-To", named[-1]), ("References", " ".join(named))]
    if envelope.unsubscribe:
        headers.append(("List-Unsubscribe", f"<{_matching(_HTTPS, envelope.unsubscribe, 'unsubscribe')}>"))
        headers.append(("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"))
    return headers


def _mailbox(name: str, address: str, field: str) -> str:
    try:
        address = ascii_address(address)
    except InvalidEnvelopeError:
        raise InvalidEnvelopeError(f"{field} is not a valid e-mail address") from None
    name = clean_name(name)
    return f"{name} <{address}>" if name else address


def _matching(pattern: re.Pattern[str], text: str, field: str) -> str:
    if not pattern.fullmatch(text):
        raise InvalidEnvelopeError(f"{field} contains invalid characters or has an invalid length")
    return text


@lru_cache(maxsize=64)
def _date(date: datetime) -> str:
    if date.tzinfo is None:
        raise InvalidEnvelopeError("date has no time zone")
    return format_datetime(date.astimezone(UTC))
