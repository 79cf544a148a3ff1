"""Sign webhooks as PayPal does, with keys and certificates of a local certificate authority.

The message is `transmission id|time|webhook id|CRC-32 of the body in decimal`, signed with RSA, PKCS#1 v1.5 and SHA-256
(https://developer.paypal.com/api/rest/webhooks/rest/). The leaf certificate resembles PayPal's: organisation, common
name, SAN and key usage.
"""

import base64
import fcntl
import os
import re
import uuid
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pipeline import files

HOST = "messageverificationcerts.sandbox.paypal.com"
CERTS = "https://api.sandbox.paypal.com/v1/notifications/certs/"
FILE = "signer.pem"

# Certificates are valid longer than requested on both sides, so that later runs can use the same keys.
SLACK = timedelta(days=90)
_UUID_EPOCH = datetime(1582, 10, 15, tzinfo=UTC)  # RFC 9562 section 5.1
_BLOCK = re.compile(rb"-----BEGIN [A-Z ]+-----.+?-----END [A-Z ]+-----\n", re.DOTALL)


class Signer:
    """Keys and certificates of the simulated PayPal, valid at least from `since` to `until`.

    They are created once and stored in `folder` (mode 0600), so that other processes use the same ones. Without a folder
    they are kept in memory. If the stored certificates do not cover the range, new ones with a new `cert_url` are made.
    """

    def __init__(self, folder: Path | None = None, *, since: datetime, until: datetime) -> None:
        keys = _create(since, until) if folder is None else _load_or_create(folder, since, until)
        self._key = keys.leaf_key
        self.leaf_pem = _certificate_pem(keys.leaf)
        self.root_pem = _certificate_pem(keys.root)
        digest = keys.leaf.fingerprint(hashes.SHA256()).hex()
        self.cert_url = f"{CERTS}CERT-{digest[:8]}-{digest[8:16]}-{digest[16:24]}"

    def sign(self, body: bytes, webhook_id: str, at: datetime) -> dict[str, str]:
        """Return the headers of one transmission of `body` at `at`. Each call makes a new transmission id."""
        transmission, time = _transmission_id(at), at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        message = f"{transmission}|{time}|{webhook_id}|{zlib.crc32(body)}".encode("ascii")
        signature = self._key.sign(message, padding.PKCS1v15(), hashes.SHA256())
        return {
            "PAYPAL-TRANSMISSION-ID": transmission,
            "PAYPAL-TRANSMISSION-TIME": time,
            "PAYPAL-TRANSMISSION-SIG": base64.b64encode(signature).decode("ascii"),
            "PAYPAL-CERT-URL": self.cert_url,
            "PAYPAL-AUTH-ALGO": "SHA256withRSA",
            "PAYPAL-AUTH-VERSION": "v2",
            "CORRELATION-ID": transmission.replace("-", "")[:13],
            "Content-Type": "application/json",
            "User-Agent": "PayPal/AUHD-214.0-58391792",
            "Accept": "*/*",
        }


@dataclass(frozen=True, slots=True)
class _Keys:
    root: x509.Certificate
    leaf: x509.Certificate
    leaf_key: rsa.RSAPrivateKey

    def covers(self, since: datetime, until: datetime) -> bool:
        return self.leaf.not_valid_before_utc <= since and until <= self.leaf.not_valid_after_utc


def _load_or_create(folder: Path, since: datetime, until: datetime) -> _Keys:
    """Return the keys in the folder, or new ones if they do not cover the range. A lock serialises their creation."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / "signer.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (folder / FILE).exists():
            stored = _load((folder / FILE).read_bytes())
            if stored.covers(since, until):
                return stored
        created = _create(since, until)
        files.write_atomically(folder / FILE, _dump(created))
        return created


def _create(since: datetime, until: datetime) -> _Keys:
    """Create a root certificate and one leaf certificate. The root's key is discarded."""
    root_key, leaf_key = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))
    validity = since - SLACK, until + SLACK
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "smt-billing simulator")])
    root = _sign_root(_builder(issuer, issuer, root_key.public_key(), validity), root_key)
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "US"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "PayPal, Inc."),
            x509.NameAttribute(NameOID.COMMON_NAME, HOST),
        ]
    )
    leaf = _sign_leaf(_builder(subject, issuer, leaf_key.public_key(), validity), root_key)
    return _Keys(root, leaf, leaf_key)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: rsa.RSAPublicKey, validity: tuple[datetime, datetime]
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(validity[0]).not_valid_after(validity[1])
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)


def _sign_root(builder: x509.CertificateBuilder, key: rsa.RSAPrivateKey) -> x509.Certificate:
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    return builder.add_extension(_usage(authority=True), critical=True).sign(key, hashes.SHA256())


def _sign_leaf(builder: x509.CertificateBuilder, root_key: rsa.RSAPrivateKey) -> x509.Certificate:
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key())
    uses = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(identifier, critical=False).add_extension(uses, critical=False)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
    return builder.add_extension(_usage(authority=False), critical=True).sign(root_key, hashes.SHA256())


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=not authority,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _dump(keys: _Keys) -> bytes:
    plain = serialization.NoEncryption()
    key = keys.leaf_key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    return key + _certificate_pem(keys.leaf) + _certificate_pem(keys.root)


def _load(data: bytes) -> _Keys:
    key, leaf, root = _BLOCK.findall(data)
    private = cast(rsa.RSAPrivateKey, serialization.load_pem_private_key(key, password=None))
    return _Keys(x509.load_pem_x509_certificate(root), x509.load_pem_x509_certificate(leaf), private)


def _certificate_pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _transmission_id(at: datetime) -> str:
    """Return a UUID of version 1 like PayPal's: the time of the transmission, and random bits that make it unique."""
    ticks = (at - _UUID_EPOCH) // timedelta(microseconds=1) * 10
    rest = int.from_bytes(os.urandom(8), "big")
    high, low = (ticks >> 48) & 0xFFF | 0x1000, ticks & 0xFFFFFFFF
    fields = (low, (ticks >> 32) & 0xFFFF, high, 0x80 | rest & 0x3F, (rest >> 8) & 0xFF, rest >> 16)
    return str(uuid.UUID(fields=fields))
