"""Line protocol of SMTP: writes commands, also several at once, and parses the answers (RFC 5321 section 4.2, RFC 2920).

It takes over a connection after the greeting, TLS and the login.
"""

import asyncio
from typing import NamedTuple

LONGEST_ANSWER = 32_768  # octets of all lines; real answers are far shorter


class SmtpConnectionLostError(ConnectionError):
    """The connection was closed, timed out, or received something that is not SMTP."""


class SmtpReply(NamedTuple):
    """One answer of the relay: the code, and the text of all lines."""

    code: int
    text: str


class SmtpDialogue(asyncio.Protocol):
    """The commands and answers of one connection. Each `write` is followed by a `read` before the next `write`."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._buffer = b""
        self._lines: list[str] = []  # the lines of an incomplete answer
        self._answers: list[SmtpReply] = []
        self._expected = 0
        self._complete = asyncio.get_running_loop().create_future()
        self._lost = ""
        transport.set_protocol(self)

    @property
    def alive(self) -> bool:
        """Whether the connection is open, as far as is known."""
        return not self._lost and not self._transport.is_closing()

    def write(self, octets: bytes, *, answers: int) -> None:
        """Send these octets and expect this number of answers.

        Raises SmtpConnectionLostError if the connection is closed; then nothing was written.
        """
        if not self.alive:
            raise SmtpConnectionLostError(self._lost or "Connection lost")
        self._answers, self._expected = [], answers
        self._complete = asyncio.get_running_loop().create_future()
        self._transport.write(octets)

    async def read(self, seconds: float) -> list[SmtpReply]:
        """Return the answers; fewer than expected if the connection was lost in between.

        Raises SmtpConnectionLostError if no answer arrived. If the call is cancelled, close the connection: its next
        answer cannot be assigned to a command.
        """
        try:
            async with asyncio.timeout(seconds):
                await self._complete
        except TimeoutError:
            self._end("Timed out waiting for server response")
        finally:
            self._expected = 0
        if not self._answers:
            raise SmtpConnectionLostError(self._lost)
        return self._answers

    def close(self) -> None:
        """Close the connection."""
        self._end("Connection closed")

    def data_received(self, data: bytes) -> None:
        """Parse received bytes. They may contain parts of a line or several lines."""
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        if len(self._buffer) > LONGEST_ANSWER:
            self._end("Response too long")
        for line in lines:
            if self._lost:
                return  # ignore everything after an invalid line
            self._parse_line(line)

    def _parse_line(self, line: bytes) -> None:
        self._lines.append(line[4:].decode("utf-8", "replace").strip())
        if not line[:3].isdigit() or len(self._lines) * len(line) > LONGEST_ANSWER:
            self._end("Malformed response")
        elif line[3:4] != b"-":
            self._add_answer(SmtpReply(int(line[:3]), "\n".join(self._lines)))
            self._lines = []

    def _add_answer(self, answer: SmtpReply) -> None:
        if len(self._answers) >= self._expected:  # unsolicited, for example 421 before the relay closes the connection
            self._end(f"{answer.code} {answer.text}")
            return
        self._answers.append(answer)
        if len(self._answers) == self._expected:
            self._finish()

    def eof_received(self) -> None:
        """Record that the relay closed the connection."""
        self._end("Unexpected EOF received")

    def connection_lost(self, exc: Exception | None) -> None:
        """Record that the connection was lost."""
        self._end(str(exc or "Connection lost"))

    def _end(self, reason: str) -> None:
        self._lost = self._lost or reason
        self._transport.close()
        self._finish()

    def _finish(self) -> None:
        if not self._complete.done():
            self._complete.set_result(None)
