"""One SMTP connection: opened by aiosmtplib, then spoken over by our own dialogue (`smtp_protocol`).

aiosmtplib sends one command at a time and cannot tell whether the text of a mail began to go out. Our dialogue sends
MAIL, RCPT and DATA together where the relay offers PIPELINING, and knows that boundary exactly.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, cast

from aiosmtplib import SMTP, SMTPException, SMTPResponseException

from pipeline.email_address import strip_controls
from pipeline.mailer.smtp_message import LONGEST_REPLY, SmtpMessage, without_addresses
from pipeline.mailer.smtp_protocol import SmtpConnectionLostError, SmtpDialogue, SmtpReply
from pipeline.network.smtp_url import SmtpUrl

IDLE_SECONDS = 30.0  # after this a kept connection is asked whether it lives before a mail is trusted to it
GOODBYE_SECONDS = 5.0  # how long a closing connection may take over its QUIT
NAME_IN_EHLO = "[127.0.0.1]"  # RFC 5321 section 4.1.4; asking DNS for our own name would tell others we are here
GO_ON = {b"MAIL": (250,), b"RCPT": (250, 251), b"DATA": (354,)}  # RFC 5321 section 4.3.2

Outcome = Literal["sent", "later", "failed", "doubt"]
StillOwned = Callable[[], Awaitable[bool]]  # whether a mail may still be sent


@dataclass(frozen=True, slots=True)
class DeliveryResult:
    """What became of one mail. `text` is the relay's code and answer without anybody's address.

    sent: the relay has taken it (250). later: it has not, try again. failed: it never will. doubt: the text of the mail
    went out and no answer came; `data_began` tells whether any of that text went out.
    """

    outcome: Outcome
    text: str
    data_began: bool


class SmtpConnection:
    """One connection to the relay and the dialogue on it."""

    def __init__(self, route: SmtpUrl, timeout: float, final_timeout: float) -> None:
        self._smtp = SMTP(
            hostname=route.host,
            port=route.port,
            username=route.username,
            password=route.password,
            local_hostname=NAME_IN_EHLO,
            timeout=timeout,
            use_tls=route.use_tls,
            start_tls=route.start_tls,
        )
        self._timeout, self._final_timeout = timeout, final_timeout
        self._greeting = ""
        self._wire: SmtpDialogue | None = None  # once it is open
        self._last_used = 0.0
        self.uses = 0
        self.lost_before_text = False  # it ended before the text of the last mail: that mail has gone nowhere

    @property
    def alive(self) -> bool:
        return self._wire is not None and self._wire.alive

    async def open(self) -> None:
        """Connect, and log in if asked to. Raises SMTPException or OSError."""
        self._greeting = (await self._smtp.connect()).message
        try:
            if self._smtp.is_ehlo_or_helo_needed:
                await self._smtp.ehlo()
            if not self._smtp.is_connected:
                raise SmtpConnectionLostError("Connection lost")
        except BaseException:
            self.abort()
            raise
        # From here on the dialogue is ours: aiosmtplib says one command at a time, and cannot tell how far it came.
        self._wire = SmtpDialogue(cast(asyncio.Transport, self._smtp.transport))
        self._touch()

    async def is_usable(self) -> bool:
        if self.alive and asyncio.get_running_loop().time() - self._last_used > IDLE_SECONDS:
            await self._reset()
        return self.alive

    async def probe(self) -> str:
        await self._ask(b"NOOP\r\n")
        offers = ", ".join(sorted(name.upper() for name in self._smtp.esmtp_extensions))
        secured = "with TLS" if self._smtp.get_transport_info("sslcontext") else "without TLS"
        return strip_controls(f"{self._greeting} ({secured}; offers {offers or 'nothing'})")

    async def deliver(self, message: SmtpMessage, allowed: StillOwned | None) -> DeliveryResult:
        """Say MAIL, RCPT, DATA and the text. Sets `lost` if the connection ended before the text."""
        if message.international and not self._smtp.supports_extension("smtputf8"):
            return DeliveryResult(
                "failed", "the recipient's address needs SMTPUTF8, which the relay does not offer", False
            )
        self.uses += 1
        try:
            if refusal := await self._announce(message):
                return refusal
            if allowed and not await allowed():
                self.abort()  # there is no other way back once the relay waits for the text
                return DeliveryResult("later", "not sent: its mailer has been taken for dead", False)
            wire = self._text_begins(message.content)
        except (SMTPException, OSError) as error:
            self.lost_before_text = True
            self.abort()
            return DeliveryResult("later", message.redact(f"before the mail: {describe_error(error)}"), False)
        return await self._answer_to_text(message, wire)

    async def _announce(self, message: SmtpMessage) -> DeliveryResult | None:
        """Say MAIL, RCPT and DATA. None if the relay waits for the text now. Raises WireLost."""
        for group in self._groups(message):
            answers = await self._ask(*group)
            for command, answer in zip(group, answers, strict=False):
                if answer.code not in GO_ON[command[:4]]:
                    return await self._refused(message, answer, answers)
            if len(answers) < len(group):
                raise SmtpConnectionLostError("Connection lost")
        return None

    def _groups(self, message: SmtpMessage) -> list[list[bytes]]:
        """What is said at once: all of it to a relay that offers PIPELINING, which saves two round trips."""
        commands = list(message.commands(self._smtp.esmtp_extensions))
        return [commands] if self._smtp.supports_extension("pipelining") else [[command] for command in commands]

    async def _ask(self, *commands: bytes) -> list[SmtpReply]:
        """The answers to these commands; fewer if the connection is lost amid them. Raises WireLost if none came."""
        if self._wire is None:
            raise SmtpConnectionLostError("Connection lost")
        self._wire.write(b"".join(commands), answers=len(commands))
        return await self._wire.read(self._timeout)

    def _text_begins(self, content: bytes) -> SmtpDialogue:
        """From here on silence is doubt. Raises WireLost if the connection is gone: then nothing was written."""
        if self._wire is None:
            raise SmtpConnectionLostError("Connection lost")
        self._wire.write(content, answers=1)
        return self._wire

    async def _answer_to_text(self, message: SmtpMessage, wire: SmtpDialogue) -> DeliveryResult:
        try:
            [answer] = await wire.read(self._final_timeout)
        except OSError as error:
            self.abort()
            return DeliveryResult("doubt", message.redact(f"no answer after the mail: {describe_error(error)}"), True)
        self._touch()
        if answer.code == 421:
            self.abort()
        return DeliveryResult(_outcome(answer.code, after_text=True), message.redact(_line(answer)), True)

    async def _refused(self, message: SmtpMessage, answer: SmtpReply, answers: list[SmtpReply]) -> DeliveryResult:
        """A refusal before the text. 421 is the relay ending the connection, no word about the mail.

        A relay may refuse one command of a group and still want the text (RFC 2920 section 3.1): it gets none.
        """
        if answer.code == 421:
            self.lost_before_text = True
            self.abort()
        elif any(each.code in GO_ON[b"DATA"] for each in answers):
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
        if self._wire is not None and self._wire.alive:
            with suppress(OSError):
                self._wire.write(b"QUIT\r\n", answers=1)
                await self._wire.read(GOODBYE_SECONDS)
        self.abort()

    def abort(self) -> None:
        if self._wire is not None:
            self._wire.close()
        self._smtp.close()

    def _touch(self) -> None:
        self._last_used = asyncio.get_running_loop().time()


def describe_error(error: Exception) -> str:
    """The relay's, the library's or the system's words, without addresses."""
    text = f"{error.code} {error.message}" if isinstance(error, SMTPResponseException) else str(error)
    return without_addresses(text or type(error).__name__)[:LONGEST_REPLY]


def _outcome(code: int, *, after_text: bool) -> Outcome:
    """What a reply code says of the mail. A code that makes no sense after the text leaves doubt, before it none."""
    if 200 <= code < 300 and after_text:
        return "sent"
    if 400 <= code < 500:
        return "later"
    if 500 <= code < 600:
        return "failed"
    return "doubt" if after_text else "later"


def _line(answer: SmtpReply) -> str:
    return f"{answer.code} {answer.text}"
