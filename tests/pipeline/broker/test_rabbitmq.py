"""RabbitMQ's URL: invalid URLs are refused, passwords are never shown, and TLS checks the certificate."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pipeline.broker import Broker, BrokerUnavailableError
from pipeline.settings import SettingsError
from tests.support.broker_fixtures import HUNDRED, Wire, put, take_until


def test_check_returns_product_and_address(rabbit: Broker, broker_url: str) -> None:
    assert rabbit.check().startswith("RabbitMQ ")
    assert rabbit.check().endswith(f" at 127.0.0.1:{urlsplit(broker_url).port}")


SECRET = "hunter/2"


@pytest.mark.parametrize("place", ["127.0.0.1:1", "127.0.0.1:{port}", "127.0.0.1:{port}/nowhere"])
def test_password_is_in_no_message(broker_url: str, place: str) -> None:
    url = f"amqp://guest:hunter%2F2@{place.format(port=urlsplit(broker_url).port)}"
    with pytest.raises(BrokerUnavailableError) as raised:
        Broker(url).check()
    for text in (str(raised.value), repr(raised.value), repr(Broker(url)), repr(vars(raised.value))):
        assert "hunter" not in text


def test_wrong_password_is_reported(broker_url: str) -> None:
    url = broker_url.replace("guest:guest@", "guest:wrong@")
    with pytest.raises(BrokerUnavailableError, match="Check user, password"):
        Broker(url).check()


@pytest.mark.parametrize(
    "url",
    [
        f"amqp://guest:{SECRET}@127.0.0.1",
        "amqp://guest:2/hunter@127.0.0.1",
        "amqp://guest:2#hunter@127.0.0.1",
        "amqp://guest:2?hunter@127.0.0.1",
        "amqp://guest:hunter@[127.0.0.1",
        "redis://:hunter@127.0.0.1",
        "amqps://guest:hunter@127.0.0.1?verify=hunter",
        "hunter",
        "",
    ],
)
def test_invalid_url_is_refused_without_quoting_it(url: str) -> None:
    with pytest.raises(SettingsError, match="SMT_BROKER_URL") as raised:
        Broker(url)
    assert "hunter" not in str(raised.value)
    assert raised.value.__suppress_context__ or raised.value.__context__ is None


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[ssl.SSLContext, Path]:
    """Return the TLS context of a server for `localhost`, and the CA file that clients trust."""
    key, name = (
        ec.generate_private_key(ec.SECP256R1()),
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "broker")]),
    )
    start = datetime(2020, 1, 1, tzinfo=UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=36500))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path, encoding = tmp_path / "broker.pem", serialization.Encoding.PEM
    path.write_bytes(certificate.public_bytes(encoding))
    secret = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "broker.key").write_bytes(secret)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path, tmp_path / "broker.key")
    return context, path


@pytest.mark.parametrize(
    ("host", "trusted", "accepted"),
    [("localhost", True, True), ("localhost", False, False), ("127.0.0.1", True, False)],
)
def test_tls_checks_issuer_and_host_name(
    rabbit: Broker,
    broker_url: str,
    queue_prefix: str,
    certificate: tuple[ssl.SSLContext, Path],
    host: str,
    trusted: bool,
    accepted: bool,
) -> None:
    context, path = certificate
    with Wire(broker_url, tls=context) as wire:
        query = f"?cacertfile={path}" if trusted else ""
        broker = Broker(f"amqps://guest:guest@{host}:{wire.port}/{query}", queue_prefix)
        if not accepted:
            with pytest.raises(BrokerUnavailableError, match="certificate"):
                broker.check()
            return
        put(broker, HUNDRED)
        with broker.consumer("events") as consumer:
            assert take_until(consumer, 100) == HUNDRED
