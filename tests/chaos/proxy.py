"""TCP proxy on loopback between a client and a server. It misbehaves on demand, at any time.

with Proxy(postfix.port) as proxy:
    ...  # connect to proxy.port
    proxy.fault = Fault("swallow", seconds=1)
    ...
    proxy.fault = PASS
"""

import asyncio
import threading
from dataclasses import dataclass
from typing import Literal, Self

import uvloop

from tests.support.subprocesses import free_port

# pass: forward everything.
# delay: forward each chunk `seconds` late.
# cut: reset both sides after `after` bytes, counted in both directions.
# half_close: end the client's stream after `after` bytes; the server can still answer.
# before_dot: reset before the dot that ends a mail reaches the server.
# swallow: forward that dot, drop the server's answer, and reset `seconds` later.
# blackhole: forward nothing, without an error.
Kind = Literal["pass", "delay", "cut", "half_close", "before_dot", "swallow", "blackhole"]
DOT = b"\r\n.\r\n"  # RFC 5321 section 4.1.1.4
CHUNK = 65_536


@dataclass(frozen=True)
class Fault:
    """What the proxy does to each connection, including open ones."""

    kind: Kind
    after: int = 0  # bytes
    seconds: float = 0.0


PASS = Fault("pass")


class Proxy:
    """Forwards connections to a loopback port from a separate thread. A context manager.

    `latency` is the delay of each chunk in each direction, in seconds. It is always added, because faults hit slower
    exchanges more often.
    """

    def __init__(self, to: int, latency: float = 0.0) -> None:
        self.port, self._to, self.latency = free_port(), to, latency
        self.hit = 0  # Number of connections that a fault ended.
        self._fault = PASS
        self._links: set[_Link] = set()
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=f"proxy to {to}", daemon=True)
        self._ready = threading.Event()

    @property
    def fault(self) -> Fault:
        return self._fault

    @fault.setter
    def fault(self, fault: Fault) -> None:
        self._loop.call_soon_threadsafe(self._switch, fault)

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._ready.wait(10):
            raise RuntimeError(f"the proxy does not listen on port {self.port}")
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _switch(self, fault: Fault) -> None:
        self._fault = fault
        for link in list(self._links):
            link.passed = 0
            if link.blocked:
                link.reset()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", self.port))
        self._ready.set()
        self._loop.run_forever()
        server.close()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._to)
        except OSError:
            writer.transport.abort()
            return
        link = _Link(self, writer, back)
        self._links.add(link)
        try:
            await asyncio.gather(link.pump(reader, back, up=True), link.pump(there, writer, up=False))
        except (OSError, _Cut):
            self.hit += self._fault is not PASS
        finally:
            self._links.discard(link)
            link.reset()


class _Cut(Exception):
    """Raised to end this connection."""


class _Link:
    """One connection through the proxy."""

    def __init__(self, proxy: Proxy, ours: asyncio.StreamWriter, theirs: asyncio.StreamWriter) -> None:
        self._proxy, self._ours, self._theirs = proxy, ours, theirs
        self._tail = b""  # The last bytes to the server, because the dot can be split over chunks.
        self.passed = 0  # Bytes since the fault began.
        self.blocked = False  # Whether nothing more is forwarded.
        self._swallowed = False

    async def pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, up: bool) -> None:
        while chunk := await source.read(CHUNK):
            if sink.is_closing():  # The other side has closed the connection.
                raise _Cut
            await self._forward(chunk, sink, up=up)
        if not sink.is_closing():
            sink.write_eof()

    def reset(self) -> None:
        for writer in (self._ours, self._theirs):
            writer.transport.abort()

    async def _forward(self, chunk: bytes, sink: asyncio.StreamWriter, *, up: bool) -> None:
        fault = self._proxy.fault
        if late := self._proxy.latency + (fault.seconds if fault.kind == "delay" else 0.0):
            await asyncio.sleep(late)
            fault = self._proxy.fault
        if fault.kind == "blackhole":
            self.blocked = True
        if self.blocked or (self._swallowed and not up):
            return
        if fault.kind == "cut" and self.passed + len(chunk) > fault.after:
            sink.write(chunk[: max(fault.after - self.passed, 0)])
            raise _Cut
        if fault.kind == "half_close" and up and self.passed + len(chunk) > fault.after:
            sink.write(chunk[: max(fault.after - self.passed, 0)])
            sink.write_eof()
            self.blocked = True
            asyncio.get_running_loop().call_later(max(fault.seconds, 0.2), self.reset)
            return
        self.passed += len(chunk)
        if up:
            chunk = self._watch_for_the_dot(chunk, fault)
        sink.write(chunk)
        await sink.drain()
        if up and fault.kind == "before_dot" and self._tail == DOT:
            raise _Cut

    def _watch_for_the_dot(self, chunk: bytes, fault: Fault) -> bytes:
        """Return the part of this chunk that is forwarded."""
        seen, self._tail = self._tail + chunk, (self._tail + chunk)[-len(DOT) :]
        if DOT not in seen:
            return chunk
        if fault.kind == "before_dot":
            self._tail = DOT
            return chunk[: max(seen.index(DOT) + 2 - (len(seen) - len(chunk)), 0)]
        if fault.kind == "swallow":
            self._swallowed = True
            asyncio.get_running_loop().call_later(fault.seconds, self.reset)
        return chunk
