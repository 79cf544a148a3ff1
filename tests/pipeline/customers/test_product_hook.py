"""The product hook: calls a command or a URL; its errors name the setting and contain no personal data."""

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


class ProductServer(HTTPServer):
    """A product on loopback: records requests and sends a configured answer."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[tuple[str | None, Any]] = []
        self.status, self.answer, self.location = 200, b"PK\x03\x04", ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/privacy"


class _Handler(BaseHTTPRequestHandler):
    server: ProductServer

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((self.headers["Authorization"], json.loads(body)))
        self.send_response(self.server.status)
        if self.server.location:
            self.send_header("Location", self.server.location)
        self.send_header("Content-Length", str(len(self.server.answer)))
        self.end_headers()
        self.wfile.write(self.server.answer)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass


@pytest.fixture
def product() -> Iterator[ProductServer]:
    with ProductServer() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_command_reads_json_and_answers_on_stdout() -> None:
    script = "import sys, json; body = json.load(sys.stdin); print(body['action'], body['customer'])"
    assert ProductHook(command=f'{sys.executable} -c "{script}"').call("export", ADA) == b"export customer-0017\n"


def test_url_receives_json_with_token(product: ProductServer) -> None:
    assert ProductHook(url=product.url, token="s3cret").call("erase", ADA) == b"PK\x03\x04"
    assert product.requests == [("Bearer s3cret", {"action": "erase", **ADA})]


def test_failed_command_reports_error_without_personal_data() -> None:
    for command in (f'{sys.executable} -c "import sys; sys.exit(3)"', "/nowhere/at-all", "'unclosed"):
        with pytest.raises(ProductUnavailableError, match=r"SMT_PRODUCT_COMMAND") as found:
            ProductHook(command=command).call("export", ADA)
        assert "ada" not in str(found.value)


def test_refused_request_reports_status_without_personal_data(product: ProductServer) -> None:
    product.status, product.answer = 500, b"no such user ada@example.com"
    with pytest.raises(ProductUnavailableError, match="answered 500") as found:
        ProductHook(url=product.url).call("export", ADA)
    assert "ada" not in str(found.value)


def test_unreachable_url_is_reported(product: ProductServer) -> None:
    url = product.url
    product.server_close()
    with pytest.raises(ProductUnavailableError, match="cannot reach"):
        ProductHook(url=url).call("export", ADA)


def test_redirect_is_not_followed(product: ProductServer) -> None:
    product.status, product.location = 307, product.url + "/elsewhere"
    with pytest.raises(ProductUnavailableError, match="answered 307"):
        ProductHook(url=product.url).call("export", ADA)
    assert len(product.requests) == 1


@pytest.mark.parametrize("url", ["http://product.example.com/", "file:///etc/passwd", "ftp://127.0.0.1/", "product"])
def test_personal_data_is_not_sent_to_unencrypted_url(url: str) -> None:
    with pytest.raises(ProductUnavailableError, match="https://"):
        ProductHook(url=url).call("export", ADA)


def test_oversized_answer_is_rejected(product: ProductServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(product_hook, "MAX_ANSWER_BYTES", 1000)
    product.answer = b"x" * 1001
    with pytest.raises(ProductUnavailableError, match="more than"):
        ProductHook(url=product.url).call("export", ADA)
    with pytest.raises(ProductUnavailableError, match="more than"):
        ProductHook(command=f"{sys.executable} -c \"print('x' * 1001)\"").call("export", ADA)
