"""Send mail to the relay over a few kept connections, and return an honest result for each mail.

The text of a mail goes out only when all commands before it were answered, so that it is known how far the dialogue
came: before the text, a lost connection means nothing was sent; after it, the relay may have queued the mail although its
answer is lost (RFC 1047), and the outcome is `doubt`.
"""

import asyncio

import structlog
from aiosmtplib import SMTPException

from pipeline.mailer.smtp_connection import DeliveryResult, SmtpConnection, StillOwned, describe_error
from pipeline.mailer.smtp_message import SmtpMessage
from pipeline.network.smtp_url import parse_smtp_url

MOST_USES = 100  # mails over one connection before it is renewed; relays end long ones themselves
log = structlog.get_logger(__name__)


class RelayUnreachableError(Exception):
    """The relay did not answer a probe as a relay should."""


class Relay:
    """Sends mail through one relay over at most `connections` connections. For one event loop; many send at once."""

    def __init__(
        self, url: str, *, connections: int, timeout_seconds: float = 30, final_timeout_seconds: float = 600
    ) -> None:
        """`url` as for `parse_smtp_url`. Raises its SmtpConfigError.

        The final timeout is for the answer after the mail's text: RFC 5321 section 4.5.3.2.6 asks for ten minutes,
        because giving up early makes duplicates.
        """
        self._route = parse_smtp_url(url)
        self._timeout, self._final_timeout = timeout_seconds, final_timeout_seconds
        self.connections = connections
        self._slots = asyncio.Semaphore(connections)
        self._idle: list[SmtpConnection] = []
        self._closed = False

    async def send(
        self, sender: str, recipient: str, data: bytes, *, envelope_id: str, allowed: StillOwned | None = None
    ) -> DeliveryResult:
        """Hand over one mail, as finished bytes with CRLF line ends, to one recipient.

        `allowed` is asked at the last moment before the text goes out; if it says no, nothing is sent: `later`.

        `envelope_id` becomes the ENVID of delivery reports (RFC 3461). Never raises for what a relay or a network does;
        if cancelled, the connection is dropped and the outcome is unknown.
        """
        try:
            message = SmtpMessage.of(sender, recipient, data, envelope_id)
        except ValueError as error:
            return DeliveryResult("failed", str(error), False)
        async with self._slots:
            reply = await self._deliver(message, allowed)
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
                return await connection.probe()
            finally:
                await connection.quit()
        except (SMTPException, OSError) as error:
            raise RelayUnreachableError(f"{self._route.host}:{self._route.port}: {describe_error(error)}") from error

    async def _deliver(self, message: SmtpMessage, allowed: StillOwned | None) -> DeliveryResult:
        """Over a kept connection if there is one; if that turns out dead before the mail's text, over a new one."""
        if self._closed:
            return DeliveryResult("later", "the relay was closed", False)
        kept = await self._kept()
        if kept is not None:
            reply = await self._over(kept, message, allowed)
            if not kept.lost_before_text:
                return reply
        try:
            return await self._over(await self._connect(), message, allowed)
        except (SMTPException, OSError) as error:
            return DeliveryResult("later", f"no connection: {describe_error(error)}", False)

    async def _over(
        self, connection: SmtpConnection, message: SmtpMessage, allowed: StillOwned | None
    ) -> DeliveryResult:
        try:
            reply = await connection.deliver(message, allowed)
        except BaseException:
            connection.abort()  # cancelled in the midst: what it would answer next belongs to no one
            raise
        if connection.alive and connection.uses < MOST_USES and not self._closed:
            self._idle.append(connection)
        else:
            await connection.quit()
        return reply

    async def _kept(self) -> SmtpConnection | None:
        while self._idle:
            connection = self._idle.pop()
            try:
                if await connection.is_usable():
                    return connection
            except BaseException:
                connection.abort()
                raise
        return None

    async def _connect(self) -> SmtpConnection:
        connection = SmtpConnection(self._route, self._timeout, self._final_timeout)
        await connection.open()
        return connection
