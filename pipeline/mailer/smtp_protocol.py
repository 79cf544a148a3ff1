"""The lines of an SMTP dialogue: commands go out, several at once where the relay takes that, and answers come in.

It takes a connection over once that is greeted, secured and logged in. RFC 5321 section 4.2, RFC 2920.
"""

import asyncio
from typing import NamedTuple

LONGEST_ANSWER = 32_768  # octets of all lines; no answer comes anywhere near it


class SmtpConnectionLostError(ConnectionError):
    """The connection ended, fell silent, or said what is no SMTP."""


class SmtpReply(NamedTuple):
    """What the relay answered: the code, and the text of all lines."""

    code: int
    text: str


class SmtpDialogue(asyncio.Protocol):
    """One connection. Whoever has written waits for the answers before anybody writes again."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._unread = b""
        self._lines: list[str] = []  # of an answer that is not complete
        self._answers: list[SmtpReply] = []
        self._wanted = 0
        self._complete = asyncio.get_running_loop().create_future()
        self._lost = ""
        transport.set_protocol(self)

    @property
    def alive(self) -> bool:
        return not self._lost and not self._transport.is_closing()

    def write(self, octets: bytes, *, answers: int) -> None:
        """Send these octets, to be answered so many times. Raises WireLost if it is gone: then nothing was written."""
        if not self.alive:
            raise SmtpConnectionLostError(self._lost or "Connection lost")
        self._answers, self._wanted = [], answers
        self._complete = asyncio.get_running_loop().create_future()
        self._transport.write(octets)

    async def read(self, seconds: float) -> list[SmtpReply]:
        """The answers, fewer than are wanted if it was lost amid them. Raises WireLost if none came.

        If cancelled, what it says next belongs to no one: drop it.
        """
        try:
            async with asyncio.timeout(seconds):
                await self._complete
        except TimeoutError:
            self._end("Timed out waiting for server response")
        finally:
            self._wanted = 0
        if not self._answers:
            raise SmtpConnectionLostError(self._lost)
        return self._answers

    def close(self) -> None:
        self._end("Connection closed")

    def data_received(self, data: bytes) -> None:
        """Lines may come in pieces, and several at once."""
        *lines, self._unread = (self._unread + data).split(b"\n")
        if len(self._unread) > LONGEST_ANSWER:
            self._end("Response too long")
        for line in lines:
            if self._lost:
                return  # what follows on nonsense is none the better
            self._line(line)

    def _line(self, line: bytes) -> None:
        self._lines.append(line[4:].decode("utf-8", "replace").strip())
        if not line[:3].isdigit() or len(self._lines) * len(line) > LONGEST_ANSWER:
            self._end("Malformed response")
        elif line[3:4] != b"-":
            self._take(SmtpReply(int(line[:3]), "\n".join(self._lines)))
            self._lines = []

    def _take(self, answer: SmtpReply) -> None:
        if len(self._answers) >= self._wanted:  # said unasked, as 421 before it hangs up
            self._end(f"{answer.code} {answer.text}")
            return
        self._answers.append(answer)
        if len(self._answers) == self._wanted:
            self._wake()

    def eof_received(self) -> None:
        self._end("Unexpected EOF received")

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(str(exc or "Connection lost"))

    def _end(self, reason: str) -> None:
        self._lost = self._lost or reason
        self._transport.close()
        self._wake()

    def _wake(self) -> None:
        if not self._complete.done():
            self._complete.set_result(None)
