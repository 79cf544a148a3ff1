"""One mail in SMTP form: the commands MAIL, RCPT and DATA, and the dot-stuffed text."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from pipeline.email_address import InvalidEnvelopeError, ascii_address, needs_smtputf8, strip_controls
from pipeline.rendering.message_check import has_bare_line_end

LONGEST_REPLY = 400  # characters of the relay's answer that are stored

_XCHARS = re.compile(r"[!-*,-<>-~]*")
_ADDRESS = re.compile(r"[^\s<>()\"',;:]+@[^\s<>()\"',;:]+")


@dataclass(frozen=True, slots=True)
class SmtpMessage:
    """One checked mail, ready for transmission."""

    sender: str
    recipient: str
    content: bytes
    envelope_id: str

    @classmethod
    def of(cls, sender: str, recipient: str, data: bytes, envelope_id: str) -> Self:
        """Check the mail and prepare it. Raises ValueError with a message that contains no personal data."""
        sender = _wire_address(sender, "the envelope sender is not a valid address") if sender else ""
        if needs_smtputf8(sender):
            raise ValueError("the envelope sender is not ASCII")
        recipient = _wire_address(recipient, "the recipient's address is not a valid e-mail address")
        if has_bare_line_end(data):
            raise ValueError("the mail contains a bare CR or LF, which a server could read as its end")
        return cls(sender, recipient, _dot_stuffed(data), envelope_id)

    @property
    def international(self) -> bool:
        """Whether the recipient's address needs SMTPUTF8."""
        return needs_smtputf8(self.recipient)

    def commands(self, offered: dict[str, str]) -> Iterator[bytes]:
        """Yield MAIL, RCPT and DATA with the parameters that the relay offers (RFC 1870, 3461, 6531)."""
        mail, rcpt = [f"FROM:<{self.sender}>"], [f"TO:<{self.recipient}>"]
        if "size" in offered:
            mail.append(f"SIZE={len(self.content)}")
        if self.international:
            mail += ["SMTPUTF8", "BODY=8BITMIME"]  # its headers contain UTF-8; RFC 6531 section 3.1 requires both
        if "dsn" in offered:
            mail += [
                "RET=HDRS",
                f"ENVID={_xtext(self.envelope_id)}",
            ]  # headers only, so that a bounce does not contain the receipt
            rcpt.append("NOTIFY=FAILURE,DELAY")
            if not self.international:
                rcpt.append(f"ORCPT=rfc822;{_xtext(self.recipient)}")
        for command in (["MAIL", *mail], ["RCPT", *rcpt], ["DATA"]):
            yield " ".join(command).encode() + b"\r\n"

    def redact(self, text: str) -> str:
        """Return the relay's answer without e-mail addresses; answers often repeat the recipient."""
        text = without_addresses(text)
        if (local := self.recipient.rpartition("@")[0]).lower() in text.lower():
            text = re.sub(rf"(?<!\w){re.escape(local)}(?!\w)", "address", text, flags=re.IGNORECASE)
        return text[:LONGEST_REPLY]


def without_addresses(text: str) -> str:
    """Return external text as one line, with each e-mail address replaced by `address`."""
    return _ADDRESS.sub("address", strip_controls(text.encode("utf-8", "replace").decode()))


def _wire_address(address: str, otherwise: str) -> str:
    """Return the address as SMTP transmits it. Raises ValueError with the message `otherwise`."""
    try:
        return ascii_address(address)
    except InvalidEnvelopeError:
        raise ValueError(otherwise) from None


def _dot_stuffed(data: bytes) -> bytes:
    """Double each dot at the beginning of a line and add the final dot (RFC 5321 section 4.5.2)."""
    data = data if data.endswith(b"\r\n") else data + b"\r\n"
    stuffed = data.replace(b"\r\n.", b"\r\n..")  # all line ends are CRLF: `SmtpMessage.of` checks it
    return (b"." if data.startswith(b".") else b"") + stuffed + b".\r\n"


def _xtext(text: str) -> str:
    """Encode characters that could end a parameter as +XX (xtext, RFC 3461 section 4)."""
    if _XCHARS.fullmatch(text):
        return text
    return "".join(c if "!" <= c <= "~" and c not in "+=" else "".join(f"+{o:02X}" for o in c.encode()) for c in text)
