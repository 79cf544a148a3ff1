"""The product is asked and told by a command or by an address; its failures say what to do, never whom it was about."""

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from pipeline.customers import product_hook
from pipeline.customers.product_hook import ProductHook, ProductUnavailableError

ADA = {"customer": "customer-0017", "email": "ada@example.com"}


class Told(HTTPServer):
    """A product on loopback: what it was told, and what it answers."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.said: list[tuple[str | None, Any]] = []
        self.status, self.answer, self.location = 200, b"PK\x03\x04", ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/privacy"


class _Handler(BaseHTTPRequestHandler):
    server: Told

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.said.append((self.headers["Authorization"], json.loads(body)))
        self.send_response(self.server.status)
        if self.server.location:
            self.send_header("Location", self.server.location)
        self.send_header("Content-Length", str(len(self.server.answer)))
        self.end_headers()
        self.wfile.write(self.server.answer)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass


@pytest.fixture
def told() -> Iterator[Told]:
    with Told() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_command_reads_one_json_object_and_answers_on_stdout() -> None:
    script = "import sys, json; said = json.load(sys.stdin); print(said['action'], said['customer'])"
    assert ProductHook(command=f'{sys.executable} -c "{script}"').call("export", ADA) == b"export customer-0017\n"


def test_an_address_is_posted_the_same_with_its_token(told: Told) -> None:
    assert ProductHook(url=told.url, token="s3cret").call("erase", ADA) == b"PK\x03\x04"
    assert told.said == [("Bearer s3cret", {"action": "erase", **ADA})]


def test_a_command_that_fails_says_how_and_names_nobody() -> None:
    for command in (f'{sys.executable} -c "import sys; sys.exit(3)"', "/nowhere/at-all", "'unclosed"):
        with pytest.raises(ProductUnavailableError, match=r"SMT_PRODUCT_COMMAND") as found:
            ProductHook(command=command).call("export", ADA)
        assert "ada" not in str(found.value)


def test_an_address_that_refuses_says_how_and_names_nobody(told: Told) -> None:
    told.status, told.answer = 500, b"no such user ada@example.com"
    with pytest.raises(ProductUnavailableError, match="answered 500") as found:
        ProductHook(url=told.url).call("export", ADA)
    assert "ada" not in str(found.value)


def test_an_address_that_is_away_says_so(told: Told) -> None:
    url = told.url
    told.server_close()
    with pytest.raises(ProductUnavailableError, match="gives no answer"):
        ProductHook(url=url).call("export", ADA)


def test_nothing_follows_the_product_elsewhere(told: Told) -> None:
    told.status, told.location = 307, told.url + "/elsewhere"
    with pytest.raises(ProductUnavailableError, match="answered 307"):
        ProductHook(url=told.url).call("export", ADA)
    assert len(told.said) == 1


@pytest.mark.parametrize("url", ["http://product.example.com/", "file:///etc/passwd", "ftp://127.0.0.1/", "product"])
def test_personal_data_goes_to_no_address_in_the_clear(url: str) -> None:
    with pytest.raises(ProductUnavailableError, match="https://"):
        ProductHook(url=url).call("export", ADA)


def test_an_answer_beyond_all_measure_is_refused(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(product_hook, "LARGEST", 1000)
    told.answer = b"x" * 1001
    with pytest.raises(ProductUnavailableError, match="more than"):
        ProductHook(url=told.url).call("export", ADA)
    with pytest.raises(ProductUnavailableError, match="more than"):
        ProductHook(command=f"{sys.executable} -c \"print('x' * 1001)\"").call("export", ADA)
