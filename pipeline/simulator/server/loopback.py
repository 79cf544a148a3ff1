"""Serve an ASGI application on a port of the loopback interface, with uvicorn in a thread."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp


class LoopbackServer(uvicorn.Server):
    """Uvicorn server that ends at once, where uvicorn itself waits up to 0.2 seconds. Open requests are aborted."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off"))
        self.is_listening: Future[None] = Future()

    def end(self) -> None:
        """End the server. May be called from another thread."""
        self._loop.call_soon_threadsafe(self._ended.set)

    async def main_loop(self) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        await self.on_tick(0)  # sets the headers that uvicorn adds to each response
        self.is_listening.set_result(None)
        await self._ended.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.transport.abort()


@contextmanager
def serve(app: ASGIApp, port: int = 0) -> Iterator[str]:
    """Serve the application during the block. Yield its base URL, `http://127.0.0.1:port`. Port 0 picks a free one."""
    listener = socket.create_server(("127.0.0.1", port))
    server = LoopbackServer(app)
    thread = threading.Thread(target=_run, args=(server, listener), name="loopback", daemon=True)
    thread.start()
    server.is_listening.result()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.end()
        thread.join()
        listener.close()


def _run(server: LoopbackServer, listener: socket.socket) -> None:
    try:
        server.run(sockets=[listener])
    finally:
        if not server.is_listening.done():
            server.is_listening.set_exception(
                RuntimeError("the server stopped before it accepted requests; see its log")
            )
