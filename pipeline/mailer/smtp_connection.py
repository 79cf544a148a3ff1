"""One SMTP connection to the relay: aiosmtplib opens it, then `smtp_protocol` sends the mail commands.

aiosmtplib sends one command at a time and does not report whether the transmission of a mail's text has begun.
`SmtpDialogue` does, and it sends MAIL, RCPT and DATA together if the relay offers PIPELINING.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, cast

from aiosmtplib import SMTP, SMTPException, SMTPResponseException

from pipeline.email_address import strip_controls
from pipeline.error_texts import describe
from pipeline.mailer.smtp_message import LONGEST_REPLY, SmtpMessage, without_addresses
from pipeline.mailer.smtp_protocol import SmtpConnectionLostError, SmtpDialogue, SmtpReply
from pipeline.network.smtp_url import SmtpUrl

IDLE_SECONDS = 30.0  # a connection that was idle for longer is tested with RSET before it is used again
QUIT_SECONDS = 5.0  # maximum wait for the answer to QUIT
EHLO_NAME = "[127.0.0.1]"  # an address literal (RFC 5321 section 4.1.4) avoids a DNS request for the local host name
EXPECTED_CODES = {b"MAIL": (250,), b"RCPT": (250, 251), b"DATA": (354,)}  # RFC 5321 section 4.3.2

Outcome = Literal["sent", "later", "failed", "doubt"]
StillOwned = Callable[[], Awaitable[bool]]  # returns whether the mailer still owns its claim


@dataclass(frozen=True, slots=True)
class DeliveryResult:
    """Result of one delivery attempt. `text` is the relay's code and answer, without e-mail addresses.

    Outcomes: `sent`: the relay accepted the mail (250). `later`: it did not; try again. `failed`: it refused the mail
    permanently. `doubt`: the text was transmitted and no valid answer arrived. `data_began` is true if any of the text
    was transmitted.
    """

    outcome: Outcome
    text: str
    data_began: bool


class SmtpConnection:
    """One connection to the relay. It delivers one mail after another."""

    def __init__(self, route: SmtpUrl, timeout: float, final_timeout: float) -> None:
        self._smtp = SMTP(
            hostname=route.host,
            port=route.port,
            username=route.username,
            password=route.password,
            local_hostname=EHLO_NAME,
            timeout=timeout,
            use_tls=route.use_tls,
            start_tls=route.start_tls,
        )
        self._timeout, self._final_timeout = timeout, final_timeout
        self._greeting = ""
        self._dialogue: SmtpDialogue | None = None  # set by `open`
        self._last_used = 0.0
        self.uses = 0
        self.lost_before_text = False  # the connection ended before the last mail's text, so that mail was not sent

    @property
    def alive(self) -> bool:
        """Whether the connection is open, as far as is known."""
        return self._dialogue is not None and self._dialogue.alive

    async def open(self) -> None:
        """Connect, and log in if the URL has a user name. Raises SMTPException or OSError."""
        self._greeting = (await self._smtp.connect()).message
        try:
            if self._smtp.is_ehlo_or_helo_needed:
                await self._smtp.ehlo()
            if not self._smtp.is_connected:
                raise SmtpConnectionLostError("Connection lost")
        except BaseException:
            self.abort()
            raise
        # From here on only the dialogue uses the transport; aiosmtplib sends nothing more.
        self._dialogue = SmtpDialogue(cast(asyncio.Transport, self._smtp.transport))
        self._touch()

    async def is_usable(self) -> bool:
        """Return whether the connection is open; after IDLE_SECONDS without use, test it first."""
        if self.alive and asyncio.get_running_loop().time() - self._last_used > IDLE_SECONDS:
            await self._reset()
        return self.alive

    async def probe(self) -> str:
        """Send NOOP. Return the relay's greeting, whether TLS is used, and the extensions it offers."""
        await self._ask(b"NOOP\r\n")
        offers = ", ".join(sorted(name.upper() for name in self._smtp.esmtp_extensions))
        secured = "with TLS" if self._smtp.get_transport_info("sslcontext") else "without TLS"
        return strip_controls(f"{self._greeting} ({secured}; offers {offers or 'nothing'})")

    async def deliver(self, message: SmtpMessage, allowed: StillOwned | None) -> DeliveryResult:
        """Send one mail. Sets `lost_before_text` if the connection ended before the text was transmitted.

        `allowed` is called directly before the text is transmitted. If it returns false, the mail is not sent.
        """
        if message.international and not self._smtp.supports_extension("smtputf8"):
            return DeliveryResult(
                "failed", "the recipient's address needs SMTPUTF8, which the relay does not offer", False
            )
        self.uses += 1
        try:
            if refusal := await self._announce(message):
                return refusal
            if allowed and not await allowed():
                self.abort()  # after DATA is accepted, only closing the connection cancels the mail
                return DeliveryResult("later", "not sent: the mailer lost its claim", False)
            dialogue = self._send_text(message.content)
        except (SMTPException, OSError) as error:
            self.lost_before_text = True
            self.abort()
            return DeliveryResult(
                "later", message.redact(f"connection lost before the text: {describe_error(error)}"), False
            )
        return await self._read_final_reply(message, dialogue)

    async def _announce(self, message: SmtpMessage) -> DeliveryResult | None:
        """Send MAIL, RCPT and DATA. Return None if the relay accepts the text now, otherwise its refusal.

        Raises SmtpConnectionLostError.
        """
        for group in self._groups(message):
            answers = await self._ask(*group)
            for command, answer in zip(group, answers, strict=False):
                if answer.code not in EXPECTED_CODES[command[:4]]:
                    return await self._handle_refusal(message, answer, answers)
            if len(answers) < len(group):
                raise SmtpConnectionLostError("Connection lost")
        return None

    def _groups(self, message: SmtpMessage) -> list[list[bytes]]:
        """Return the commands grouped by round trip: one group if the relay offers PIPELINING, otherwise three."""
        commands = list(message.commands(self._smtp.esmtp_extensions))
        return [commands] if self._smtp.supports_extension("pipelining") else [[command] for command in commands]

    async def _ask(self, *commands: bytes) -> list[SmtpReply]:
        """Send the commands and return the answers; fewer if the connection is lost in between.

        Raises SmtpConnectionLostError if no answer arrived.
        """
        if self._dialogue is None:
            raise SmtpConnectionLostError("Connection lost")
        self._dialogue.write(b"".join(commands), answers=len(commands))
        return await self._dialogue.read(self._timeout)

    def _send_text(self, content: bytes) -> SmtpDialogue:
        """Write the mail's text. After this call a missing answer means `doubt`.

        Raises SmtpConnectionLostError if the connection is closed; then nothing was written.
        """
        if self._dialogue is None:
            raise SmtpConnectionLostError("Connection lost")
        self._dialogue.write(content, answers=1)
        return self._dialogue

    async def _read_final_reply(self, message: SmtpMessage, dialogue: SmtpDialogue) -> DeliveryResult:
        try:
            [answer] = await dialogue.read(self._final_timeout)
        except OSError as error:
            self.abort()
            return DeliveryResult("doubt", message.redact(f"no answer after the text: {describe_error(error)}"), True)
        self._touch()
        if answer.code == 421:
            self.abort()
        return DeliveryResult(_outcome(answer.code, after_text=True), message.redact(_line(answer)), True)

    async def _handle_refusal(
        self, message: SmtpMessage, answer: SmtpReply, answers: list[SmtpReply]
    ) -> DeliveryResult:
        """Return the result of a refusal before the text, and reset or close the connection.

        421 means that the relay closes the connection; it does not concern the mail. A relay may refuse one command of
        a group and still wait for the text (RFC 2920 section 3.1). Then the connection is closed.
        """
        if answer.code == 421:
            self.lost_before_text = True
            self.abort()
        elif any(each.code in EXPECTED_CODES[b"DATA"] for each in answers):
            self.abort()
        else:
            await self._reset()
        return DeliveryResult(_outcome(answer.code, after_text=False), message.redact(_line(answer)), False)

    async def _reset(self) -> None:
        try:
            await self._ask(b"RSET\r\n")
            self._touch()
        except OSError:
            self.abort()

    async def quit(self) -> None:
        """Send QUIT if the connection is open, then close it."""
        if self._dialogue is not None and self._dialogue.alive:
            with suppress(OSError):
                self._dialogue.write(b"QUIT\r\n", answers=1)
                await self._dialogue.read(QUIT_SECONDS)
        self.abort()

    def abort(self) -> None:
        """Close the connection without QUIT."""
        if self._dialogue is not None:
            self._dialogue.close()
        self._smtp.close()

    def _touch(self) -> None:
        self._last_used = asyncio.get_running_loop().time()


def describe_error(error: Exception) -> str:
    """Return the error's message without e-mail addresses, at most LONGEST_REPLY characters."""
    if isinstance(error, SMTPResponseException):
        text = f"{error.code} {error.message}"
    elif isinstance(error, OSError) and not isinstance(error, SmtpConnectionLostError):
        text = describe(error)
    else:
        text = str(error) or describe(error)
    return without_addresses(text)[:LONGEST_REPLY]


def _outcome(code: int, *, after_text: bool) -> Outcome:
    """Return the outcome for a reply code. An unexpected code means `doubt` after the text, `later` before it."""
    if 200 <= code < 300 and after_text:
        return "sent"
    if 400 <= code < 500:
        return "later"
    if 500 <= code < 600:
        return "failed"
    return "doubt" if after_text else "later"


def _line(answer: SmtpReply) -> str:
    return f"{answer.code} {answer.text}"
