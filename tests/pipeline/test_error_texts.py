"""What persons read about an error names no Python class and quotes no library."""

import http.client
import re
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from pipeline.customers.product_hook import ProductUnavailableError
from pipeline.error_texts import describe
from pipeline.errors import OperatorError
from pipeline.mailer.smtp_relay import RelayUnreachableError
from pipeline.paypal.errors import PaypalNotFoundError

PIPELINE = Path(__file__).parents[2] / "pipeline"
LOG = re.compile(r"log\.(debug|info|warning|error)\(|_warn\(|kind = |reason = f\"internal error: ")


def raised(action: Callable[[], object]) -> BaseException:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - any error
        action()
    return caught.value


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_refused_connection_through_libraries_is_named_in_plain_words() -> None:
    port = closed_port()
    for refused in (
        raised(lambda: requests.get(f"http://127.0.0.1:{port}/secret?token=1", timeout=5)),
        raised(lambda: socket.create_connection(("127.0.0.1", port))),
    ):
        assert describe(refused) == "connection refused"


def test_silent_server_gives_no_answer_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        assert describe(raised(lambda: requests.get(url, timeout=0.2))) == "no answer in time"


def hang_up(server: socket.socket) -> None:
    server.accept()[0].close()


def test_server_that_hangs_up_sends_an_incomplete_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=hang_up, args=(server,))
        thread.start()
        error = raised(lambda: requests.get(f"http://127.0.0.1:{server.getsockname()[1]}/", timeout=5))
        thread.join()
    assert describe(error) in ("the answer is incomplete or not HTTP", "connection reset by peer")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OperatorError("The disk is full."), "The disk is full."),
        (RelayUnreachableError("192.0.2.1:25: no answer"), "192.0.2.1:25: no answer"),
        (ProductUnavailableError("SMT_PRODUCT_URL answered 500"), "SMT_PRODUCT_URL answered 500"),
        (PaypalNotFoundError("PayPal knows no sale 1"), "PayPal knows no sale 1"),
        (FileNotFoundError(2, "No such file or directory", "/home/ada"), "no such file or directory"),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER]"), "the TLS connection failed"),
        (http.client.BadStatusLine("ada@example.com"), "the answer is incomplete or not HTTP"),
        (subprocess.TimeoutExpired(["secret"], 1), "no answer in time"),
        (ConnectionError("ada@example.com"), "the connection failed"),
        (ValueError("ada@example.com"), "internal error at an unknown place"),
    ],
)
def test_words(error: Exception, words: str) -> None:
    assert describe(error) == words


def test_error_of_the_program_itself_is_named_by_its_place() -> None:
    assert re.fullmatch(rf"internal error at {__name__}:\d+", describe(raised(lambda: int("ada@example.com"))))


def test_no_text_for_persons_is_made_of_a_class_name() -> None:
    """Only lines of the log may name a class."""
    found = [
        f"{path.relative_to(PIPELINE)}:{number}"
        for path in PIPELINE.rglob("*.py")
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if "type(error).__name__" in line and not LOG.search(line)
    ]
    assert found == []
