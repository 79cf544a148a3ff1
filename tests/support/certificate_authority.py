"""Test certificate authority, and a simulated PayPal that signs deliveries with its certificates."""

import base64
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
YEAR = timedelta(days=365)
LIVE = "messageverificationcerts.paypal.com"
SANDBOX = "messageverificationcerts.sandbox.paypal.com"
URL = "https://api.paypal.com/v1/notifications/certs/CERT-360caa42-fca2a594-1d93a270"
WEBHOOK_ID = "8PT597110X687430L"
BODY = '{"id":"WH-1","event_type":"PAYMENT.SALE.COMPLETED","summary":"€ 20"}'.encode()

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


@dataclass(frozen=True)
class Issued:
    certificate: x509.Certificate
    key: Key

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@cache
def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    """Return an RSA key. It is cached for the whole run, because generating one is slow."""
    return rsa.generate_private_key(65537, bits)


@cache
def root(name: str = "Example Root") -> Issued:
    return issue(name, key=_curve_key(), authority=True, by=None)


@cache
def intermediate() -> Issued:
    return issue("Example Intermediate", key=_curve_key(), authority=True, by=root())


@cache
def paypal() -> Issued:
    """Return PayPal's valid signing certificate."""
    return issue(LIVE)


def issue(
    *names: str,
    key: Key | None = None,
    by: Issued | None = None,
    start: datetime = NOW - YEAR / 2,
    authority: bool = False,
    usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH,
) -> Issued:
    """Issue a certificate for one year with these common names. By default the intermediate signs it; a CA's is self-signed."""
    key = key or rsa_key()
    by = by or (None if authority else intermediate())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in names])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by.certificate.subject if by else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + YEAR)
        .add_extension(x509.BasicConstraints(authority, None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_usage(authority), critical=True)
    )
    if by:
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(by.key.public_key()), critical=False
        )
    if not authority:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), False)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    return Issued(builder.sign((by.key if by else key), SHA256()), key)


def deliver(
    body: bytes = BODY, *, webhook_id: str = WEBHOOK_ID, key: rsa.RSAPrivateKey | None = None
) -> dict[str, str]:
    """Return the headers that PayPal would send with this body."""
    transmission, time = "d938e770-8046-11e6-8103-6b62a8a99ac4", "2026-03-01T12:00:00Z"
    message = f"{transmission}|{time}|{webhook_id}|{zlib.crc32(body)}".encode("ascii")
    signature = (key or rsa_key()).sign(message, padding.PKCS1v15(), SHA256())
    return {
        "Content-Type": "application/json",
        "Paypal-Transmission-Id": transmission,
        "Paypal-Transmission-Time": time,
        "Paypal-Transmission-Sig": base64.b64encode(signature).decode("ascii"),
        "Paypal-Cert-Url": URL,
        "Paypal-Auth-Algo": "SHA256withRSA",
        "Paypal-Auth-Version": "v2",
    }


def _curve_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _usage(authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=not authority,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )
