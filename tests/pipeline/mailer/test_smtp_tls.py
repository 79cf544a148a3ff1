"""TLS and login at the relay: nothing is sent to a relay whose certificate is not valid."""

import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import AuthResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.support.misbehaving_relay import MakeRelay, MisbehavingRelay, Serve, send


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    """A self-signed certificate for 127.0.0.1, and a TLS server context that uses it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    built = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2020, 1, 1, tzinfo=UTC) + timedelta(days=36500))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    (folder / "cert.pem").write_bytes(built.public_bytes(Encoding.PEM))
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return folder / "cert.pem", context


async def test_relay_with_untrusted_certificate_gets_no_mail(
    serve: Serve, relay_to: MakeRelay, certificate: tuple[Path, ssl.SSLContext]
) -> None:
    fake_relay = MisbehavingRelay()
    starttls = (await serve(fake_relay, tls_context=certificate[1])).replace("smtp://", "smtp+starttls://")
    implicit = (await serve(fake_relay, over=certificate[1])).replace("smtp://", "smtps://")
    for url in (starttls, implicit):
        reply = await send(relay_to(url))
        assert (reply.outcome, reply.data_began) == ("later", False)
        assert "certificate" in reply.text.lower()
    assert fake_relay.received == []


async def test_relay_without_starttls_gets_no_mail(serve: Serve, relay_to: MakeRelay) -> None:
    fake_relay = MisbehavingRelay()
    reply = await send(relay_to((await serve(fake_relay)).replace("smtp://", "smtp+starttls://")))
    assert reply.outcome == "later"
    assert fake_relay.received == []


async def test_trusted_relay_gets_password_and_mail_over_tls(
    serve: Serve, relay_to: MakeRelay, certificate: tuple[Path, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))

    def check(server: object, session: object, envelope: object, mechanism: str, data: Any) -> AuthResult:
        return AuthResult(success=(data.login, data.password) == (b"billing", b"s:p@ss"), handled=False)

    fake_relay = MisbehavingRelay()
    url = await serve(fake_relay, tls_context=certificate[1], auth_required=True, authenticator=check)
    relay = relay_to(url.replace("smtp://", "smtp+starttls://billing:s%3Ap%40ss@"))
    assert (await send(relay)).outcome == "sent"
    assert "with TLS" in await relay.probe()
    wrong = await send(relay_to(url.replace("smtp://", "smtp+starttls://billing:wrong@")))
    assert wrong.outcome == "later"
    assert "535" in wrong.text
    implicit = (await serve(fake_relay, over=certificate[1])).replace("smtp://", "smtps://")
    assert (await send(relay_to(implicit))).outcome == "sent"
