"""Connection limits of the running web role, over real sockets: slow, endless and many requests."""

import asyncio
import resource
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from http.client import HTTPResponse
from time import sleep

import httpx
import orjson
import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from pipeline.web import connection_limits
from pipeline.web.connection_limits import LARGEST_HEAD, LARGEST_REQUEST, LimitedProtocol, limit_connections
from tests.support.pipeline_under_test import PipelineUnderTest, happened, make_parts, sign
from tests.support.running_roles import running
from tests.support.subprocesses import free_port, until

PATH = "/webhooks/paypal"
BODY = orjson.dumps(happened())
HEAD = f"POST {PATH} HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture
def port(sqlite_pipeline: PipelineUnderTest) -> Iterator[int]:
    """The port of a running web role."""
    container = make_parts(sqlite_pipeline.url, sqlite_pipeline.folder, sqlite_pipeline.clock, web_port=free_port())
    with running({"web": container}):
        yield container.settings.web_port


@pytest.fixture
def short_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """A time limit that is short enough for a test and long enough for a busy machine."""
    monkeypatch.setattr(connection_limits, "REQUEST_SECONDS", 1.0)


@asynccontextmanager
async def serving(app: ASGIApp) -> AsyncIterator[int]:
    """Serve an application with connection limits and yield its port."""
    config = uvicorn.Config(
        limit_connections(app), port=free_port(), http=LimitedProtocol, ws="none", lifespan="off", log_config=None
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    yield config.port
    server.should_exit = True
    await task


def connect(port: int, data: bytes = b"") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    connection.sendall(data)
    return connection


def receive_all(connection: socket.socket) -> bytes:
    """Return everything that arrives until the server closes or resets the connection."""
    received = b""
    try:
        while more := connection.recv(65536):
            received += more
    except ConnectionError:
        pass
    return received


def status(connection: socket.socket) -> int:
    """Read one complete response and return its status."""
    answer = HTTPResponse(connection)
    answer.begin()
    answer.read()
    return answer.status


def is_open(connection: socket.socket) -> bool:
    """Return whether the server has not closed the connection."""
    connection.setblocking(False)
    try:
        return bool(connection.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


def send_until_closed(connection: socket.socket, piece: bytes, most: int) -> int:
    """Send `piece` repeatedly until the server closes the connection. Return the number of bytes sent."""
    for number in range(most // len(piece)):
        try:
            connection.sendall(piece)
        except ConnectionError:
            return number * len(piece)
    return most


def post(port: int) -> int:
    url = f"http://127.0.0.1:{port}{PATH}"
    return httpx.post(url, content=BODY, headers=sign(BODY), verify=False, trust_env=False, timeout=30).status_code


@pytest.mark.parametrize(
    "data",
    ["", "P", HEAD, HEAD + "X-Slow: a", HEAD + "Content-Length: 9\r\n\r\nhalf", "\r\n\r\n", HEAD + "X: y\r\n" * 9],
    ids=["nothing", "one character", "one line", "partial header", "partial body", "empty lines", "endless headers"],
)
def test_unfinished_request_is_closed_after_the_timeout(
    port: int, short_timeout: None, monkeypatch: pytest.MonkeyPatch, data: str
) -> None:
    with connect(port, data.encode()) as connection:
        assert receive_all(connection) == b""
    monkeypatch.setattr(connection_limits, "REQUEST_SECONDS", 60.0)
    assert post(port) == 200


def test_slow_data_does_not_extend_the_timeout(port: int, short_timeout: None) -> None:
    with connect(port, HEAD.encode()) as connection:
        connection.settimeout(0.1)
        for _ in range(200):
            try:
                connection.sendall(b"X: y\r\n")
                if connection.recv(1) == b"":
                    return
            except TimeoutError:
                continue
            except ConnectionError:
                return
    raise AssertionError("the connection is still open after 20 seconds of slow data")


def test_second_request_has_the_same_timeout(port: int, short_timeout: None) -> None:
    with connect(port, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n") as connection:
        assert status(connection) == 200
        connection.sendall(HEAD.encode())
        assert receive_all(connection) == b""


def test_timeout_restarts_after_each_response(port: int, short_timeout: None) -> None:
    with connect(port) as connection:
        for pause in (0.6, 0.6, 0):
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert status(connection) == 200
            sleep(pause)


@pytest.mark.parametrize("before", [0, 2], ids=["first", "third"])
def test_endless_headers_get_431(port: int, before: int) -> None:
    with connect(port) as connection:
        for _ in range(before):
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert status(connection) == 200
        connection.sendall(HEAD.encode() + b"X-Long: " + b"x" * LARGEST_HEAD)
        assert receive_all(connection).startswith(b"HTTP/1.1 431 ")
    assert post(port) == 200


def test_many_headers_get_431(port: int) -> None:
    with connect(port, HEAD.encode() + b"X: y\r\n" * (LARGEST_HEAD // 6 + 1)) as connection:
        assert receive_all(connection).startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize("before", [b"", b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"], ids=["first", "second"])
def test_complete_oversized_headers_get_431(port: int, before: bytes) -> None:
    large = b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * LARGEST_HEAD + b"\r\n\r\n"
    with connect(port, before + large) as connection:
        received = receive_all(connection)
    assert b"HTTP/1.1 431 " in received
    assert received.count(b"HTTP/1.1 200 ") <= bool(before)
    assert post(port) == 200


def test_large_headers_may_arrive_together_with_a_large_body(port: int) -> None:
    data = HEAD.encode() + b"X-Long: " + b"x" * (LARGEST_HEAD - 500) + b"\r\nContent-Length: 100000\r\n\r\n"
    with connect(port, data + b"x" * 100_000) as connection:
        assert status(connection) == 400


def test_endless_body_is_cut_off(port: int) -> None:
    """The server has answered 413 before that. It must not read the rest of the body without limit."""
    with connect(port, HEAD.encode() + b"Transfer-Encoding: chunked\r\n\r\n") as connection:
        assert (
            send_until_closed(connection, b"400\r\n" + b"x" * 1024 + b"\r\n", 50 * LARGEST_REQUEST)
            < 50 * LARGEST_REQUEST
        )
    assert post(port) == 200


def test_webhooks_get_through_despite_hundreds_of_slow_connections(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_limits, "MOST_CONNECTIONS", 100)
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 1000
    slow = [HEAD, HEAD + "X-Slow: a", HEAD + "Content-Length: 900\r\n\r\nhalf", ""]
    with ExitStack() as stack:
        opened = [stack.enter_context(connect(port, slow[number % 4].encode())) for number in range(300)]
        assert [post(port) for _ in range(20)] == [200] * 20
        until(lambda: sum(is_open(each) for each in opened) <= 100, 10, "200 slow connections are closed")


@pytest.mark.parametrize("data", ["GET / HTTP/1.1\r\nHost: x\r\n\r\n", HEAD + "Content-Length: 2\r\n\r\n{}"])
async def test_request_in_progress_is_not_closed_for_others(monkeypatch: pytest.MonkeyPatch, data: str) -> None:
    """Other connections reach the limit while this request is being answered."""
    monkeypatch.setattr(connection_limits, "MOST_CONNECTIONS", 2)
    answer = asyncio.Event()

    async def slow_app(scope: Scope, receive: Receive, send: Send) -> None:
        await Request(scope, receive).body()
        await answer.wait()
        await Response("done")(scope, receive, send)

    async with serving(slow_app) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(data.encode())
        await asyncio.sleep(0.2)
        others = [await asyncio.open_connection("127.0.0.1", port) for _ in range(4)]
        assert await asyncio.wait_for(others[0][0].read(), 10) == b""
        answer.set()
        assert (await asyncio.wait_for(reader.readline(), 10)).startswith(b"HTTP/1.1 200 ")
        for each in (writer, *(other for _, other in others)):
            each.close()
