"""Slow, endless and many: what holds up a server that waits. The web role as it runs, over real sockets."""

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
from tests.support.pipeline_under_test import River, happened, make_parts, sign
from tests.support.running_roles import running
from tests.support.subprocesses import free_port, until

PATH = "/webhooks/paypal"
BODY = orjson.dumps(happened())
HEAD = f"POST {PATH} HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture
def port(brook: River) -> Iterator[int]:
    """Where the web role listens."""
    parts = make_parts(brook.url, brook.folder, brook.clock, web_port=free_port())
    with running({"web": parts}):
        yield parts.settings.web_port


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A time limit that a test can wait for, and a busy machine can keep."""
    monkeypatch.setattr(connection_limits, "REQUEST_SECONDS", 1.0)


@asynccontextmanager
async def serving(app: ASGIApp) -> AsyncIterator[int]:
    """An application behind the limits, and its port."""
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


def knock(port: int, words: bytes = b"") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    connection.sendall(words)
    return connection


def rest(connection: socket.socket) -> bytes:
    """What comes until the other side closes, however it does."""
    said = b""
    try:
        while more := connection.recv(65536):
            said += more
    except ConnectionError:
        pass
    return said


def status(connection: socket.socket) -> int:
    """What one whole answer says, which may come in pieces."""
    answer = HTTPResponse(connection)
    answer.begin()
    answer.read()
    return answer.status


def is_open(connection: socket.socket) -> bool:
    """Whether the other side has not closed it."""
    connection.setblocking(False)
    try:
        return bool(connection.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


def sent(connection: socket.socket, piece: bytes, most: int) -> int:
    """Send this again and again until the other side has had enough; how many bytes went out."""
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
    "words",
    ["", "P", HEAD, HEAD + "X-Slow: a", HEAD + "Content-Length: 9\r\n\r\nhalf", "\r\n\r\n", HEAD + "X: y\r\n" * 9],
    ids=["nothing", "a letter", "a line", "half a header", "half a body", "empty lines", "no end of headers"],
)
def test_who_does_not_finish_a_request_is_let_go(
    port: int, impatient: None, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    with knock(port, words.encode()) as connection:
        assert rest(connection) == b""
    monkeypatch.setattr(connection_limits, "REQUEST_SECONDS", 60.0)
    assert post(port) == 200


def test_a_drop_now_and_then_buys_no_time(port: int, impatient: None) -> None:
    with knock(port, HEAD.encode()) as connection:
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
    raise AssertionError("twenty seconds of drops, and the connection is still open")


def test_a_second_request_on_the_same_connection_is_given_no_more_time(port: int, impatient: None) -> None:
    with knock(port, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n") as connection:
        assert status(connection) == 200
        connection.sendall(HEAD.encode())
        assert rest(connection) == b""


def test_each_answer_gives_the_next_request_its_full_time(port: int, impatient: None) -> None:
    with knock(port) as connection:
        for pause in (0.6, 0.6, 0):
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert status(connection) == 200
            sleep(pause)


@pytest.mark.parametrize("before", [0, 2], ids=["first", "third"])
def test_headers_without_end_are_431(port: int, before: int) -> None:
    with knock(port) as connection:
        for _ in range(before):
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert status(connection) == 200
        connection.sendall(HEAD.encode() + b"X-Long: " + b"x" * LARGEST_HEAD)
        assert rest(connection).startswith(b"HTTP/1.1 431 ")
    assert post(port) == 200


def test_many_headers_are_431(port: int) -> None:
    with knock(port, HEAD.encode() + b"X: y\r\n" * (LARGEST_HEAD // 6 + 1)) as connection:
        assert rest(connection).startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize("before", [b"", b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"], ids=["first", "second"])
def test_a_head_that_is_too_large_is_431_also_in_one_piece_with_its_end(port: int, before: bytes) -> None:
    large = b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * LARGEST_HEAD + b"\r\n\r\n"
    with knock(port, before + large) as connection:
        said = rest(connection)
    assert b"HTTP/1.1 431 " in said
    assert said.count(b"HTTP/1.1 200 ") <= bool(before)
    assert post(port) == 200


def test_a_head_below_the_limit_may_come_in_one_piece_with_a_large_body(port: int) -> None:
    words = HEAD.encode() + b"X-Long: " + b"x" * (LARGEST_HEAD - 500) + b"\r\nContent-Length: 100000\r\n\r\n"
    with knock(port, words + b"x" * 100_000) as connection:
        assert status(connection) == 400


def test_a_body_goes_on_for_so_long_only(port: int) -> None:
    """The door has answered 413 long before; what is sent all the same is not taken in for ever."""
    with knock(port, HEAD.encode() + b"Transfer-Encoding: chunked\r\n\r\n") as connection:
        assert sent(connection, b"400\r\n" + b"x" * 1024 + b"\r\n", 50 * LARGEST_REQUEST) < 50 * LARGEST_REQUEST
    assert post(port) == 200


def test_hundreds_of_slow_connections_keep_no_webhook_out(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_limits, "MOST_CONNECTIONS", 100)
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 1000
    slow = [HEAD, HEAD + "X-Slow: a", HEAD + "Content-Length: 900\r\n\r\nhalf", ""]
    with ExitStack() as stack:
        opened = [stack.enter_context(knock(port, slow[number % 4].encode())) for number in range(300)]
        assert [post(port) for _ in range(20)] == [200] * 20
        until(lambda: sum(is_open(each) for each in opened) <= 100, 10, "two hundred of the slow ones made room")


@pytest.mark.parametrize("words", ["GET / HTTP/1.1\r\nHost: x\r\n\r\n", HEAD + "Content-Length: 2\r\n\r\n{}"])
async def test_a_request_that_is_being_answered_makes_no_room(monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    """While it takes its time, others come and fill all places."""
    monkeypatch.setattr(connection_limits, "MOST_CONNECTIONS", 2)
    answer = asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await Request(scope, receive).body()
        await answer.wait()
        await Response("done")(scope, receive, send)

    async with serving(slow) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(words.encode())
        await asyncio.sleep(0.2)
        others = [await asyncio.open_connection("127.0.0.1", port) for _ in range(4)]
        assert await asyncio.wait_for(others[0][0].read(), 10) == b""
        answer.set()
        assert (await asyncio.wait_for(reader.readline(), 10)).startswith(b"HTTP/1.1 200 ")
        for each in (writer, *(other for _, other in others)):
            each.close()
