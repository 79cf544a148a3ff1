"""A deadline for a whole HTTP exchange, and a limit for its answer.

The time-outs of `requests` concern single reads of the socket: a server that sends a byte now and then holds a call for
ever. Here a timer shuts the connection down, whatever it waits for.
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from pipeline.errors import OperatorError

EXCHANGE_SECONDS = 30.0
MOST_BYTES = 1024 * 1024  # of an answer after decompression
CHUNK = 64 * 1024  # bytes that are read and decompressed at once

_exchange = threading.local()


class AnswerTooLargeError(requests.RequestException, OperatorError):
    """The answer has more bytes than MOST_BYTES."""


class _WatchedHTTP(HTTPConnection):
    def request(self, *args: Any, **kwargs: Any) -> None:
        _exchange.connection = self
        super().request(*args, **kwargs)


class _WatchedHTTPS(HTTPSConnection):
    def request(self, *args: Any, **kwargs: Any) -> None:
        _exchange.connection = self
        super().request(*args, **kwargs)


class _HTTPPool(HTTPConnectionPool):
    ConnectionCls = _WatchedHTTP


class _HTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _WatchedHTTPS


class WatchedAdapter(HTTPAdapter):
    """Adapter whose connections `deadline` can shut down."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Create the connection pools with watched connections."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Shut down the connection of this thread's request after `seconds`. Its next read or write then fails."""
    _exchange.connection = None
    is_over = threading.Event()
    state = _exchange.__dict__  # of this thread; the timer runs in another
    timer = threading.Timer(seconds, _shut_down, (state, is_over))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        is_over.set()
        timer.cancel()
        _exchange.connection = None


def _shut_down(state: dict[str, Any], is_over: threading.Event) -> None:
    connection = state.get("connection")
    found = getattr(connection, "sock", None)
    if found is not None and not is_over.is_set():
        with suppress(OSError):
            found.shutdown(socket.SHUT_RDWR)


def read_body(answer: requests.Response, most: int = MOST_BYTES) -> bytes:
    """Return the body, decompressed. Raises AnswerTooLargeError, and `requests.RequestException` if it breaks off."""
    parts, size = [], 0
    try:
        while part := answer.raw.read1(CHUNK, decode_content=True):
            size += len(part)
            if size > most:
                raise AnswerTooLargeError(f"the answer is larger than {most // 1024:,} KiB")
            parts.append(part)
    except AnswerTooLargeError:
        answer.close()
        raise
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise requests.ConnectionError("the answer broke off") from error
    answer.raw.release_conn()
    return b"".join(parts)
