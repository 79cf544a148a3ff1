"""How long, how large and how many: what a connection may take before it is closed.

A server that waits for whoever is slow is held up by some hundred connections that say nothing. So a request has to
come whole within REQUEST_SECONDS of its first byte, its size has an end, and where all places are taken, who has shown
no whole request for the longest time makes room for the next who comes: PayPal's come in one piece.
"""

from asyncio import TimerHandle, Transport
from collections.abc import Iterable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

REQUEST_SECONDS = 20.0  # the door itself gives up on a body after 15, and says so
LARGEST_HEAD = 32 * 1024  # bytes of request line and headers; PayPal's have 2 KiB
LARGEST_REQUEST = 2 * 1024 * 1024  # bytes of it all, as sent: a body in many small pieces takes several times its size
MOST_CONNECTIONS = 500

TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class _HeadTooLarge(Exception):
    """Stops the parser."""


class Patience(HttpToolsProtocol):
    """uvicorn's protocol, whose patience ends. `idle_since` is None while a whole request is being answered."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.idle_since: float | None = self.loop.time()
        self._timer: TimerHandle | None = None
        self._bytes, self._in_head, self._head_may_be_too_large = 0, True, False

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_timer()
        if len(self.connections) > MOST_CONNECTIONS:
            make_room(self.connections)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._bytes += len(data)
        self._head_may_be_too_large = self._bytes > LARGEST_HEAD
        super().data_received(data)
        if self._in_head and self._bytes > LARGEST_HEAD:
            self._refuse_head()
        elif self._bytes > LARGEST_REQUEST:
            self.transport.abort()
        elif self._timer is None and self.idle_since is not None:
            self._start_timer()

    def on_headers_complete(self) -> None:
        """A head that came whole, with what follows it, is measured only if all of that is too large for one."""
        if self._head_may_be_too_large and self._head() > LARGEST_HEAD:
            raise _HeadTooLarge
        self._in_head = False
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """The parser gave up: for nonsense, or for us."""
        if self._in_head and self._head_may_be_too_large and self._head() > LARGEST_HEAD:
            self._refuse_head()
        else:
            super().send_400_response(msg)

    def on_message_complete(self) -> None:
        self.idle_since, self._bytes, self._in_head = None, 0, True
        self._stop_timer()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """From here on uvicorn's own time-out for idle connections runs, until the next byte."""
        self.idle_since = self.loop.time()
        super().on_response_complete()

    def _head(self) -> int:
        """Bytes of the request line and headers so far, as near as it matters."""
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _refuse_head(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(TOO_LARGE)
            self.transport.close()

    def _start_timer(self) -> None:
        self._timer = self.loop.call_later(REQUEST_SECONDS, self.transport.abort)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def make_room(connections: Iterable[Any]) -> None:
    """Close the connection that has been without a whole request for the longest time, if any is."""
    idle = [each for each in connections if each.idle_since is not None]
    if idle:
        min(idle, key=lambda each: each.idle_since).transport.abort()
