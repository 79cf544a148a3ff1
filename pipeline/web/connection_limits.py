"""Limits per HTTP connection: request time, header size, total size, and number of open connections.

uvicorn has no such limits. Without them one connection can fill the memory with headers, and a thousand idle connections
can use up the process's file descriptors. Only public interfaces are used: a protocol that wraps uvicorn's own, and an
ASGI layer that reports the progress of each request.
"""

import asyncio
from contextvars import ContextVar
from typing import Any, ClassVar

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from pipeline.web.problem import problem

REQUEST_SECONDS = 60.0  # from the connection's start or the last response; uvicorn closes idle connections after 30
LARGEST_HEAD = 32 * 1024  # bytes of request line and headers; PayPal sends 2 KiB
LARGEST_REQUEST = 2 * 1024 * 1024  # bytes on the wire; a body in many small chunks needs several times its size
MOST_CONNECTIONS = 500  # below the usual limit of 1,024 open files

HEAD_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"

_current: ContextVar["LimitedProtocol"] = ContextVar("connection")  # inherited by uvicorn's task for the request


class LimitedProtocol(asyncio.Protocol):
    """Passes one connection on to uvicorn and closes it if it exceeds a limit."""

    connections: ClassVar[set["LimitedProtocol"]] = set()
    waiting: ClassVar[
        dict["LimitedProtocol", float]
    ] = {}  # connections without a complete request, and the start of their wait; oldest first

    def __init__(self, **options: Any) -> None:
        self._http: asyncio.Protocol = HttpToolsProtocol(**options)
        self._received = 0  # bytes of the current request
        self._has_head = False  # whether the current request's headers are complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport, self._loop = transport, asyncio.get_running_loop()
        self.connections.add(self)
        if len(self.connections) > MOST_CONNECTIONS and self.waiting:
            next(iter(self.waiting)).abort()
        self.waiting[self] = self._loop.time()
        self._timer = self._loop.call_later(REQUEST_SECONDS, self._check_time)
        self._http.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.waiting.pop(self, None)
        self.connections.discard(self)
        self._timer.cancel()
        self._http.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        token = _current.set(self)
        try:
            self._http.data_received(data)
        finally:
            _current.reset(token)
        if self._received > LARGEST_HEAD:
            self._loop.call_soon(self._check_size)  # later, because the headers may have just been completed

    def eof_received(self) -> bool | None:
        return self._http.eof_received()

    def pause_writing(self) -> None:
        self._http.pause_writing()

    def resume_writing(self) -> None:
        self._http.resume_writing()

    def abort(self) -> None:
        """Close the connection immediately."""
        self.waiting.pop(self, None)
        self._transport.abort()

    def head_received(self) -> None:
        self._has_head = True

    def request_received(self) -> None:
        """Record that the request is complete. Its connection is not closed in favour of others while it is answered."""
        self.waiting.pop(self, None)

    def request_answered(self) -> None:
        """Wait for the next request. If this one was answered early, the limits apply to the rest of it."""
        if self in self.connections and self not in self.waiting:
            self._received, self._has_head = 0, False
            self.waiting[self] = self._loop.time()

    def _check_time(self) -> None:
        """Close the connection if its time is over, otherwise check again at that time. Needs no timer per request."""
        now = self._loop.time()
        deadline = self.waiting.get(self, now) + REQUEST_SECONDS
        if deadline <= now:
            self.abort()
        else:
            self._timer = self._loop.call_at(deadline, self._check_time)

    def _check_size(self) -> None:
        if not self._has_head and self._received > LARGEST_HEAD and not self._transport.is_closing():
            self._transport.write(HEAD_TOO_LARGE)
            self._transport.close()
        elif self._received > LARGEST_REQUEST:
            self.abort()


def limit_connections(app: ASGIApp) -> ASGIApp:
    """Wrap the application so that it reports the progress of each request to its LimitedProtocol."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        connection = _current.get()

        async def receive_and_report() -> Message:
            message = await receive()
            if not message.get("more_body", False):
                connection.request_received()
            return message

        connection.head_received()
        if scope["method"] in ("GET", "HEAD"):  # no endpoint reads the body of these
            connection.request_received()
        try:
            if _head_size(scope) > LARGEST_HEAD:
                detail = f"The headers are larger than {LARGEST_HEAD // 1024} KiB."
                await problem(431, detail, headers={"Connection": "close"})(scope, receive, send)
            else:
                await app(scope, receive_and_report, send)
        finally:
            connection.request_answered()

    return answer


def _head_size(scope: Scope) -> int:
    """Return the size of the headers in bytes, including colon, space and line end of each."""
    return sum(len(name) + len(value) + 4 for name, value in scope["headers"])
