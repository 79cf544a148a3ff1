"""Real HTTP server on loopback that sends the test's answers and records the requests."""

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar


@dataclass(frozen=True)
class Asked:
    verb: str
    path: str
    headers: dict[str, str]  # Names are in lower case.
    body: bytes


@dataclass(frozen=True)
class Answer:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    drip: bool = False  # Send the body byte by byte, 10 ms apart.
    late: bool = False  # Wait five seconds before the answer.
    slow_head: bool = False  # Send a header byte by byte, 10 ms apart, without end.
    broken: bool = False  # Close the connection without an answer.


class Loopback:
    """HTTP server that answers each request with the result of `answer`."""

    def __init__(self, answer: Callable[[Asked], Answer], trust: ssl.SSLContext | None) -> None:
        self.answer, self.asked, self.connections = answer, list[Asked](), 0
        self.closing = threading.Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Serving", (Handler,), {"serving": self}))
        if trust:
            self.server.socket = trust.wrap_socket(self.server.socket, server_side=True)
        self.port = int(self.server.server_address[1])

    def count(self, path: str) -> int:
        return sum(each.path == path for each in self.asked)


@contextmanager
def loopback(answer: Callable[[Asked], Answer], trust: ssl.SSLContext | None = None) -> Iterator[Loopback]:
    serving = Loopback(answer, trust)
    thread = threading.Thread(target=serving.server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield serving
    finally:
        serving.closing.set()
        serving.server.shutdown()
        thread.join()
        serving.server.server_close()


class Handler(BaseHTTPRequestHandler):
    serving: ClassVar[Loopback]
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # Otherwise every second answer is delayed by 40 ms.

    def setup(self) -> None:
        self.serving.connections += 1
        super().setup()

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = Asked(self.command, self.path, headers, body)
        self.serving.asked.append(asked)
        answer = self.serving.answer(asked)
        if answer.broken:
            self.close_connection = True
        elif not self.serving.closing.wait(5 if answer.late else 0):
            self._send(answer)

    do_POST = do_GET  # noqa: N815 - the standard library's name

    def _send(self, answer: Answer) -> None:
        (self.send_response_only if "Date" in answer.headers else self.send_response)(answer.status)
        while answer.slow_head and not self.serving.closing.wait(0.01):
            self.flush_headers()
            self.wfile.write(b"x")
        for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        size = 1 if answer.drip else len(answer.body) or 1
        for start in range(0, len(answer.body), size):
            self.wfile.write(answer.body[start : start + size])
            if answer.drip and self.serving.closing.wait(0.01):
                return

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:
            self.close_connection = True  # The client disconnected, which some tests do on purpose.

    def log_message(self, *_: object) -> None:
        """Print nothing, because some tests check the output."""
