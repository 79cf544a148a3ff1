"""Client for the SMTP relay: sends mails over a pool of connections and returns a result for each mail.

A mail's text is transmitted only after the relay has answered all commands before it. If the connection is lost before
the text, nothing was sent. If it is lost after the text, the relay may have queued the mail although its answer is
missing (RFC 1047); the outcome is `doubt`.
"""

import asyncio

import structlog
from aiosmtplib import SMTPException

from pipeline.dependencies import Observer, ignore
from pipeline.errors import OperatorError
from pipeline.mailer.smtp_connection import DeliveryResult, SmtpConnection, StillOwned, describe_error
from pipeline.mailer.smtp_message import SmtpMessage
from pipeline.network.smtp_url import parse_smtp_url

MOST_USES = 100  # mails per connection before it is replaced; relays close long connections themselves
log = structlog.get_logger(__name__)


class RelayUnreachableError(OperatorError):
    """The relay cannot be reached, or did not answer as an SMTP server."""


class Relay:
    """Sends mail through one relay over at most `connections` parallel connections, in one event loop."""

    def __init__(
        self,
        url: str,
        *,
        connections: int,
        timeout_seconds: float = 30,
        final_timeout_seconds: float = 600,
        observe: Observer = ignore,
    ) -> None:
        """Prepare the client; it connects when the first mail is sent. Raises SmtpConfigError for an invalid URL.

        `observe` gets whether the relay answered, after each mail and each probe.

        `final_timeout_seconds` is the wait for the answer to the mail's text. RFC 5321 section 4.5.3.2.6 requires ten
        minutes, because a shorter timeout causes duplicates.
        """
        self._route, self._observe = parse_smtp_url(url), observe
        self._timeout, self._final_timeout = timeout_seconds, final_timeout_seconds
        self.connections = connections
        self._slots = asyncio.Semaphore(connections)
        self._idle: list[SmtpConnection] = []
        self._closed = False

    async def send(
        self, sender: str, recipient: str, data: bytes, *, envelope_id: str, allowed: StillOwned | None = None
    ) -> DeliveryResult:
        """Send one mail, as finished bytes with CRLF line ends, to one recipient.

        `allowed` is called directly before the text is transmitted; if it returns false, the outcome is `later`.
        `envelope_id` becomes the ENVID of delivery reports (RFC 3461). Errors of the relay or the network are returned,
        not raised. If the call is cancelled, the connection is closed and the outcome is unknown.
        """
        try:
            message = SmtpMessage.of(sender, recipient, data, envelope_id)
        except ValueError as error:
            return DeliveryResult("failed", str(error), False)
        async with self._slots:
            reply = await self._deliver(message, allowed)
        if reply.outcome != "sent":
            log.info("mail_not_accepted", outcome=reply.outcome, reply=reply.text, envelope_id=envelope_id)
        return reply

    async def close(self) -> None:
        """Close all idle connections with QUIT. A connection in use is closed when its mail is done."""
        self._closed = True
        idle, self._idle = self._idle, []
        await asyncio.gather(*(connection.quit() for connection in idle))

    async def probe(self) -> str:
        """Connect and send NOOP. Return the relay's greeting and the extensions it offers.

        Raises RelayUnreachableError with the reason.
        """
        try:
            connection = await self._connect()
            try:
                found = await connection.probe()
            finally:
                await connection.quit()
        except (SMTPException, OSError) as error:
            self._observe(False)
            raise RelayUnreachableError(f"{self._route.host}:{self._route.port}: {describe_error(error)}") from error
        self._observe(True)
        return found

    async def _deliver(self, message: SmtpMessage, allowed: StillOwned | None) -> DeliveryResult:
        """Use an idle connection if there is one. If it is lost before the mail's text, use a new one."""
        if self._closed:
            return DeliveryResult("later", "not sent: the mailer is stopping", False)
        idle = await self._take_idle()
        if idle is not None:
            reply = await self._send_over(idle, message, allowed)
            if not idle.lost_before_text:
                return reply
        try:
            return await self._send_over(await self._connect(), message, allowed)
        except (SMTPException, OSError) as error:
            self._observe(False)
            return DeliveryResult("later", f"cannot connect to the relay: {describe_error(error)}", False)

    async def _send_over(
        self, connection: SmtpConnection, message: SmtpMessage, allowed: StillOwned | None
    ) -> DeliveryResult:
        try:
            reply = await connection.deliver(message, allowed)
        except BaseException:
            connection.abort()  # cancelled before the answer: the next answer would be assigned to the wrong mail
            raise
        self._observe(not connection.lost_before_text and reply.outcome != "doubt")
        if connection.alive and connection.uses < MOST_USES and not self._closed:
            self._idle.append(connection)
        else:
            await connection.quit()
        return reply

    async def _take_idle(self) -> SmtpConnection | None:
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
