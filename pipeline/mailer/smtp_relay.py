"""The way to the relay: SMTP over a few kept connections, and an honest answer for every mail. Only here: aiosmtplib.

The text of a mail goes out only when all commands before it were answered, so that it is known how far the dialogue
came: before the text, a lost connection means nothing was sent; after it, the relay may have queued the mail although its
answer is lost (RFC 1047), and the outcome is `doubt`.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, cast

import structlog
from aiosmtplib import SMTP, SMTPException, SMTPResponseException

from pipeline.email_address import BadEnvelope, ascii_address, needs_smtputf8, strip_controls
from pipeline.mailer.smtp_protocol import Answer, Wire, WireLost
from pipeline.network.smtp_url import Route, read_url
from pipeline.rendering.message_check import has_bare_line_end

MOST_USES = 100  # mails over one connection before it is renewed; relays end long ones themselves
IDLE_SECONDS = 30.0  # after this a kept connection is asked whether it lives before a mail is trusted to it
GOODBYE_SECONDS = 5.0  # how long a closing connection may take over its QUIT
LONGEST_REPLY = 400  # characters of the relay's answer that are kept
NAME_IN_EHLO = "[127.0.0.1]"  # RFC 5321 section 4.1.4; asking DNS for our own name would tell others we are here
GO_ON = {b"MAIL": (250,), b"RCPT": (250, 251), b"DATA": (354,)}  # RFC 5321 section 4.3.2

Outcome = Literal["sent", "later", "failed", "doubt"]
Allowed = Callable[[], Awaitable[bool]]  # whether a mail may still be sent
log = structlog.get_logger(__name__)


class RelayUnreachable(Exception):
    """The relay did not answer a probe as a relay should."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What became of one mail. `text` is the relay's code and answer without anybody's address.

    sent: the relay has taken it (250). later: it has not, try again. failed: it never will. doubt: the text of the mail
    went out and no answer came; `data_began` tells whether any of that text went out.
    """

    outcome: Outcome
    text: str
    data_began: bool


class Relay:
    """Sends mail through one relay over at most `connections` connections. For one event loop; many send at once."""

    def __init__(
        self, url: str, *, connections: int, timeout_seconds: float = 30, final_timeout_seconds: float = 600
    ) -> None:
        """`url` as for `read_url`. Raises its SmtpConfigError.

        The final timeout is for the answer after the mail's text: RFC 5321 section 4.5.3.2.6 asks for ten minutes,
        because giving up early makes duplicates.
        """
        self._route = read_url(url)
        self._timeout, self._final_timeout = timeout_seconds, final_timeout_seconds
        self.connections = connections
        self._slots = asyncio.Semaphore(connections)
        self._idle: list[_Connection] = []
        self._closed = False

    async def send(
        self, sender: str, recipient: str, data: bytes, *, envelope_id: str, allowed: Allowed | None = None
    ) -> Reply:
        """Hand over one mail, as finished bytes with CRLF line ends, to one recipient.

        `allowed` is asked at the last moment before the text goes out; if it says no, nothing is sent: `later`.

        `envelope_id` becomes the ENVID of delivery reports (RFC 3461). Never raises for what a relay or a network does;
        if cancelled, the connection is dropped and the outcome is unknown.
        """
        try:
            letter = _Letter.of(sender, recipient, data, envelope_id, allowed)
        except ValueError as error:
            return Reply("failed", str(error), False)
        async with self._slots:
            reply = await self._deliver(letter)
        if reply.outcome != "sent":
            log.info("mail_not_taken", outcome=reply.outcome, reply=reply.text, envelope_id=envelope_id)
        return reply

    async def close(self) -> None:
        """Say goodbye on all idle connections. A connection in use is closed when its mail is done."""
        self._closed = True
        idle, self._idle = self._idle, []
        await asyncio.gather(*(connection.quit() for connection in idle))

    async def probe(self) -> str:
        """Connect, greet and ask for a sign of life; returns the relay's greeting and what it offers.

        Raises RelayUnreachable with the reason.
        """
        try:
            connection = await self._connect()
            try:
                return await connection.introduce()
            finally:
                await connection.quit()
        except (SMTPException, OSError) as error:
            raise RelayUnreachable(f"{self._route.host}:{self._route.port}: {_said(error)}") from error

    async def _deliver(self, letter: "_Letter") -> Reply:
        """Over a kept connection if there is one; if that turns out dead before the mail's text, over a new one."""
        if self._closed:
            return Reply("later", "the relay was closed", False)
        kept = await self._kept()
        if kept is not None:
            reply = await self._over(kept, letter)
            if not kept.lost:
                return reply
        try:
            return await self._over(await self._connect(), letter)
        except (SMTPException, OSError) as error:
            return Reply("later", f"no connection: {_said(error)}", False)

    async def _over(self, connection: "_Connection", letter: "_Letter") -> Reply:
        try:
            reply = await connection.deliver(letter)
        except BaseException:
            connection.drop()  # cancelled in the midst: what it would answer next belongs to no one
            raise
        if connection.alive and connection.uses < MOST_USES and not self._closed:
            self._idle.append(connection)
        else:
            await connection.quit()
        return reply

    async def _kept(self) -> "_Connection | None":
        while self._idle:
            connection = self._idle.pop()
            try:
                if await connection.still_there():
                    return connection
            except BaseException:
                connection.drop()
                raise
        return None

    async def _connect(self) -> "_Connection":
        connection = _Connection(self._route, self._timeout, self._final_timeout)
        await connection.open()
        return connection


@dataclass(frozen=True, slots=True)
class _Letter:
    """One mail, checked and ready for the wire."""

    sender: str
    recipient: str
    content: bytes
    envelope_id: str
    allowed: Allowed | None

    @classmethod
    def of(cls, sender: str, recipient: str, data: bytes, envelope_id: str, allowed: Allowed | None) -> "_Letter":
        """Raises ValueError, whose text names no person."""
        plain = _written(sender, "the envelope sender is not a plain address") if sender else ""
        if needs_smtputf8(sender):
            raise ValueError("the envelope sender is not a plain address")
        written = _written(recipient, "the recipient's address is not one mail can be sent to")
        if has_bare_line_end(data):
            raise ValueError("the mail holds a bare CR or LF, which could pass for its end")
        return cls(plain, written, _stuffed(data), envelope_id, allowed)

    @property
    def international(self) -> bool:
        return needs_smtputf8(self.recipient)

    def commands(self, offered: dict[str, str]) -> Iterator[bytes]:
        """MAIL, RCPT and DATA, with the parameters the relay has offered: RFC 1870, 3461, 6531."""
        mail, rcpt = [f"FROM:<{self.sender}>"], [f"TO:<{self.recipient}>"]
        if "size" in offered:
            mail.append(f"SIZE={len(self.content)}")
        if self.international:
            mail += ["SMTPUTF8", "BODY=8BITMIME"]  # its headers hold UTF-8; RFC 6531 section 3.1 ties the two together
        if "dsn" in offered:
            mail += ["RET=HDRS", f"ENVID={_xtext(self.envelope_id)}"]  # headers only: a bounce carries no receipt
            rcpt.append("NOTIFY=FAILURE,DELAY")
            if not self.international:
                rcpt.append(f"ORCPT=rfc822;{_xtext(self.recipient)}")
        for command in (["MAIL", *mail], ["RCPT", *rcpt], ["DATA"]):
            yield " ".join(command).encode() + b"\r\n"

    def redact(self, text: str) -> str:
        """The relay's answer without anybody's address, as answers often repeat the recipient."""
        text = _ADDRESS.sub("address", strip_controls(text.encode("utf-8", "replace").decode()))
        if (local := self.recipient.rpartition("@")[0]).lower() in text.lower():
            text = re.sub(rf"(?<!\w){re.escape(local)}(?!\w)", "address", text, flags=re.IGNORECASE)
        return text[:LONGEST_REPLY]


class _Connection:
    """One connection to the relay and the dialogue on it."""

    def __init__(self, route: Route, timeout: float, final_timeout: float) -> None:
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
        self._wire: Wire | None = None  # once it is open
        self._last_used = 0.0
        self.uses = 0
        self.lost = False  # it ended before the text of the last mail: that mail has gone nowhere

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
                raise WireLost("Connection lost")
        except BaseException:
            self.drop()
            raise
        # From here on the dialogue is ours: aiosmtplib says one command at a time, and cannot tell how far it came.
        self._wire = Wire(cast(asyncio.Transport, self._smtp.transport))
        self._touch()

    async def still_there(self) -> bool:
        if self.alive and asyncio.get_running_loop().time() - self._last_used > IDLE_SECONDS:
            await self._start_over()
        return self.alive

    async def introduce(self) -> str:
        await self._ask(b"NOOP\r\n")
        offers = ", ".join(sorted(name.upper() for name in self._smtp.esmtp_extensions))
        secured = "with TLS" if self._smtp.get_transport_info("sslcontext") else "without TLS"
        return strip_controls(f"{self._greeting} ({secured}; offers {offers or 'nothing'})")

    async def deliver(self, letter: _Letter) -> Reply:
        """Say MAIL, RCPT, DATA and the text. Sets `lost` if the connection ended before the text."""
        if letter.international and not self._smtp.supports_extension("smtputf8"):
            return Reply("failed", "the recipient's address needs SMTPUTF8, which the relay does not offer", False)
        self.uses += 1
        try:
            if refusal := await self._announce(letter):
                return refusal
            if letter.allowed and not await letter.allowed():
                self.drop()  # there is no other way back once the relay waits for the text
                return Reply("later", "not sent: its mailer has been taken for dead", False)
            wire = self._text_begins(letter.content)
        except (SMTPException, OSError) as error:
            self.lost = True
            self.drop()
            return Reply("later", letter.redact(f"before the mail: {_said(error)}"), False)
        return await self._answer_to_text(letter, wire)

    async def _announce(self, letter: _Letter) -> Reply | None:
        """Say MAIL, RCPT and DATA. None if the relay waits for the text now. Raises WireLost."""
        for group in self._groups(letter):
            answers = await self._ask(*group)
            for command, answer in zip(group, answers, strict=False):
                if answer.code not in GO_ON[command[:4]]:
                    return await self._refused(letter, answer, answers)
            if len(answers) < len(group):
                raise WireLost("Connection lost")
        return None

    def _groups(self, letter: _Letter) -> list[list[bytes]]:
        """What is said at once: all of it to a relay that offers PIPELINING, which saves two round trips."""
        commands = list(letter.commands(self._smtp.esmtp_extensions))
        return [commands] if self._smtp.supports_extension("pipelining") else [[command] for command in commands]

    async def _ask(self, *commands: bytes) -> list[Answer]:
        """The answers to these commands; fewer if the connection is lost amid them. Raises WireLost if none came."""
        if self._wire is None:
            raise WireLost("Connection lost")
        self._wire.write(b"".join(commands), answers=len(commands))
        return await self._wire.read(self._timeout)

    def _text_begins(self, content: bytes) -> Wire:
        """From here on silence is doubt. Raises WireLost if the connection is gone: then nothing was written."""
        if self._wire is None:
            raise WireLost("Connection lost")
        self._wire.write(content, answers=1)
        return self._wire

    async def _answer_to_text(self, letter: _Letter, wire: Wire) -> Reply:
        try:
            [answer] = await wire.read(self._final_timeout)
        except OSError as error:
            self.drop()
            return Reply("doubt", letter.redact(f"no answer after the mail: {_said(error)}"), True)
        self._touch()
        if answer.code == 421:
            self.drop()
        return Reply(_outcome(answer.code, after_text=True), letter.redact(_line(answer)), True)

    async def _refused(self, letter: _Letter, answer: Answer, answers: list[Answer]) -> Reply:
        """A refusal before the text. 421 is the relay ending the connection, no word about the mail.

        A relay may refuse one command of a group and still want the text (RFC 2920 section 3.1): it gets none.
        """
        if answer.code == 421:
            self.lost = True
            self.drop()
        elif any(each.code in GO_ON[b"DATA"] for each in answers):
            self.drop()
        else:
            await self._start_over()
        return Reply(_outcome(answer.code, after_text=False), letter.redact(_line(answer)), False)

    async def _start_over(self) -> None:
        try:
            await self._ask(b"RSET\r\n")
            self._touch()
        except OSError:
            self.drop()

    async def quit(self) -> None:
        if self._wire is not None and self._wire.alive:
            with suppress(OSError):
                self._wire.write(b"QUIT\r\n", answers=1)
                await self._wire.read(GOODBYE_SECONDS)
        self.drop()

    def drop(self) -> None:
        if self._wire is not None:
            self._wire.close()
        self._smtp.close()

    def _touch(self) -> None:
        self._last_used = asyncio.get_running_loop().time()


def _outcome(code: int, *, after_text: bool) -> Outcome:
    """What a reply code says of the mail. A code that makes no sense after the text leaves doubt, before it none."""
    if 200 <= code < 300 and after_text:
        return "sent"
    if 400 <= code < 500:
        return "later"
    if 500 <= code < 600:
        return "failed"
    return "doubt" if after_text else "later"


def _line(answer: Answer) -> str:
    return f"{answer.code} {answer.text}"


def _said(error: Exception) -> str:
    """The relay's, the library's or the system's words, without addresses."""
    text = f"{error.code} {error.message}" if isinstance(error, SMTPResponseException) else str(error)
    text = text.encode("utf-8", "replace").decode() or type(error).__name__
    return _ADDRESS.sub("address", strip_controls(text))[:LONGEST_REPLY]


def _written(address: str, otherwise: str) -> str:
    """An address for the wire. Raises ValueError with these words."""
    try:
        return ascii_address(address)
    except BadEnvelope:
        raise ValueError(otherwise) from None


def _stuffed(data: bytes) -> bytes:
    """For the wire: a dot at the beginning of a line doubled, the final dot added (RFC 5321 section 4.5.2)."""
    data = data if data.endswith(b"\r\n") else data + b"\r\n"
    stuffed = data.replace(b"\r\n.", b"\r\n..")  # line ends are CRLF: `_Letter.of` has seen to it
    return (b"." if data.startswith(b".") else b"") + stuffed + b".\r\n"


def _xtext(text: str) -> str:
    """RFC 3461 section 4: what could end a parameter is written as +XX."""
    if _XCHARS.fullmatch(text):
        return text
    return "".join(c if "!" <= c <= "~" and c not in "+=" else "".join(f"+{o:02X}" for o in c.encode()) for c in text)


_XCHARS = re.compile(r"[!-*,-<>-~]*")
_ADDRESS = re.compile(r"[^\s<>()\"',;:]+@[^\s<>()\"',;:]+")
