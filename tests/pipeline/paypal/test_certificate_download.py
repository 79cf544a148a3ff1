"""Download of a certificate from a TLS server on loopback."""

import ssl
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from pipeline.clock import SystemClock
from pipeline.paypal import certificates
from pipeline.paypal.certificates import fetch_certificate
from pipeline.paypal.errors import PaypalUnavailableError
from tests.support.certificate_authority import YEAR, issue, paypal
from tests.support.loopback_http import Answer, Loopback, loopback

PATH = "/v1/notifications/certs/CERT-360caa42"


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """TLS contexts of a server on localhost and of a client that trusts it. TLS uses the system clock."""
    start = SystemClock().now() - YEAR / 2
    authority = issue("Example TLS Root", key=ec.generate_private_key(ec.SECP256R1()), authority=True, start=start)
    certificate = issue("localhost", key=ec.generate_private_key(ec.SECP256R1()), by=authority, start=start)
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    path.write_bytes(certificate.pem + certificate.key_pem)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(path)
    return server, ssl.create_default_context(cadata=authority.pem.decode())


Serve = Callable[[Answer], AbstractContextManager[tuple[Loopback, Callable[[], bytes]]]]


@pytest.fixture
def serve(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> Serve:
    """Return a context manager that serves one answer and yields the server and a function that downloads from it."""

    @contextmanager
    def serving(answer: Answer) -> Iterator[tuple[Loopback, Callable[[], bytes]]]:
        with loopback(lambda _: answer, tls[0]) as server:
            yield server, lambda: fetch_certificate(f"https://localhost:{server.port}{PATH}", trust=tls[1])

    return serving


def test_certificate_is_downloaded_over_tls(serve: Serve) -> None:
    with serve(Answer(body=paypal().pem)) as (server, fetch):
        assert fetch() == paypal().pem
    assert [(each.verb, each.path) for each in server.asked] == [("GET", PATH)]
    assert not {"authorization", "cookie"} & set(server.asked[0].headers)


def test_environment_proxies_and_passwords_are_ignored(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".netrc").write_text("machine localhost login someone password secret")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with serve(Answer(body=paypal().pem)) as (server, fetch):
        assert fetch() == paypal().pem
    assert "authorization" not in server.asked[0].headers


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirect_is_not_followed(status: int, serve: Serve) -> None:
    answer = Answer(status, paypal().pem, {"Location": "/elsewhere"})
    with serve(answer) as (server, fetch), pytest.raises(PaypalUnavailableError, match=str(status)):
        fetch()
    assert [each.path for each in server.asked] == [PATH]


@pytest.mark.parametrize(
    "answer",
    [
        Answer(204),
        Answer(403, paypal().pem),
        Answer(404, paypal().pem),
        Answer(500, paypal().pem),
        Answer(body=b""),
        Answer(body=b"<html>Sorry</html>"),
        Answer(body=paypal().pem[:400]),
        Answer(body=paypal().pem + b" " * 65536),
        Answer(body=paypal().pem, drip=True),
        Answer(body=paypal().pem, late=True),
    ],
)
def test_unusable_answer_is_retried_later(answer: Answer, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates, "FETCH_SECONDS", 0.3)
    with serve(answer) as (_, fetch), pytest.raises(PaypalUnavailableError, match="try again"):
        fetch()


def test_server_with_untrusted_certificate_is_refused(serve: Serve) -> None:
    with serve(Answer(body=paypal().pem)) as (server, fetch):
        with pytest.raises(PaypalUnavailableError, match="its TLS certificate is not valid: "):
            fetch_certificate(f"https://localhost:{server.port}{PATH}")
        assert fetch()
    assert len(server.asked) == 1


def test_unreachable_or_plain_http_server_is_retried_later(
    tls: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    with loopback(lambda _: Answer(body=paypal().pem)) as server:
        url = f"https://localhost:{server.port}{PATH}"
        with pytest.raises(PaypalUnavailableError):
            fetch_certificate(url, trust=tls[1])
    with pytest.raises(PaypalUnavailableError, match="connection refused"):
        fetch_certificate(url, trust=tls[1])
