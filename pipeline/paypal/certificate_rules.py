"""Rules for the certificates that PayPal signs webhooks with: address, subject, validity, key and chain.

The address comes from a header that anyone can write, so it is checked before a byte goes out. A certificate that
PayPal's own host served over TLS and that bears PayPal's name is what makes a signature a proof. Revocation is not
checked: PayPal has been seen to sign with a revoked certificate.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from pipeline.paypal.errors import SignatureError
from pipeline.settings import SettingsError

# PayPal's simulator signs sandbox events with the live certificate, so host and name are not tied to each other.
SUBJECTS = frozenset({"messageverificationcerts.paypal.com", "messageverificationcerts.sandbox.paypal.com"})
SMALLEST_KEY = 2048  # bits

# The whole address in one pattern: two parsers that disagree about a host are how such checks are fooled.
_ADDRESS = re.compile(
    r"https://api(-m)?(\.sandbox)?\.paypal\.com(:443)?/v1/notifications/certs/[A-Za-z0-9-]{1,128}", re.ASCII
)


@dataclass(frozen=True, slots=True)
class ParsedCertificate:
    """A certificate that was read and not yet judged."""

    certificate: x509.Certificate
    others: tuple[x509.Certificate, ...]  # served along with it
    names: tuple[str, ...]  # common names of its subject
    key: object
    not_before: datetime
    not_after: datetime


@dataclass(frozen=True, slots=True)
class TrustAnchors:
    """Whom we trust to vouch for PayPal's certificate."""

    store: Store
    intermediates: tuple[x509.Certificate, ...]

    @classmethod
    def load(cls, path: Path) -> "TrustAnchors":
        """Read a PEM file of roots and intermediates; what signed itself is a root. Raises SettingsError."""
        try:
            everyone = x509.load_pem_x509_certificates(path.read_bytes())
        except (OSError, ValueError) as error:
            raise SettingsError(f"the trust anchors in {path} cannot be read: {error}; give a PEM file") from error
        roots = [each for each in everyone if each.issuer == each.subject]
        if not roots:
            raise SettingsError(f"the trust anchors in {path} hold no root; add the one that vouches for the others")
        return cls(Store(roots), tuple(each for each in everyone if each not in roots))


def require_certificate_url(url: str) -> None:
    """Raises Refused unless it is a certificate's address on PayPal's API, spelled the one way PayPal spells it."""
    if not _ADDRESS.fullmatch(url):
        raise SignatureError("certificate address", f"not an address of PayPal's certificates: {url[:120]!a}")


def parse_certificate(pem: bytes) -> ParsedCertificate:
    """Take a PEM text apart. Raises Refused when it holds no certificate that can be read."""
    try:
        leaf, *others = x509.load_pem_x509_certificates(pem)
        names = tuple(str(name.value) for name in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME))
        return ParsedCertificate(
            leaf, tuple(others), names, leaf.public_key(), leaf.not_valid_before_utc, leaf.not_valid_after_utc
        )
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SignatureError("certificate", "not a certificate in PEM form that can be read") from error


def require_subject(leaf: ParsedCertificate) -> str:
    """The name in the certificate. Raises Refused unless it is exactly one of PayPal's two."""
    if len(leaf.names) != 1 or leaf.names[0] not in SUBJECTS:
        raise SignatureError(
            "certificate subject", f"the certificate is not PayPal's: issued to {', '.join(leaf.names)!a}"
        )
    return leaf.names[0]


def require_valid_at(leaf: ParsedCertificate, at: datetime) -> None:
    """Raises Refused when the certificate is not valid yet or no longer at that time."""
    if not leaf.not_before <= at <= leaf.not_after:
        span = f"from {leaf.not_before:%Y-%m-%d} to {leaf.not_after:%Y-%m-%d}"
        raise SignatureError("certificate validity", f"the certificate is valid {span}, not on {at:%Y-%m-%d}")


def require_rsa_key(leaf: ParsedCertificate) -> RSAPublicKey:
    """The key in the certificate. Raises Refused unless it is an RSA key of 2048 bits or more."""
    if not isinstance(leaf.key, RSAPublicKey):
        raise SignatureError("certificate key", "the certificate holds no RSA key")
    if leaf.key.key_size < SMALLEST_KEY:
        raise SignatureError("certificate key", f"the RSA key has {leaf.key.key_size} bits, fewer than {SMALLEST_KEY}")
    return leaf.key


def require_trusted_chain(leaf: ParsedCertificate, at: datetime, anchors: TrustAnchors) -> None:
    """Raises Refused when no anchor vouches for the certificate at that time. PayPal serves it without its issuers."""
    verifier = PolicyBuilder().store(anchors.store).time(at).build_server_verifier(x509.DNSName(leaf.names[0]))
    try:
        verifier.verify(leaf.certificate, [*leaf.others, *anchors.intermediates])
    except (VerificationError, ValueError) as error:
        reason = f"no trust anchor vouches for the certificate, issued by {issuer(leaf)}: {error}"
        raise SignatureError("certificate chain", reason) from error


def issuer(leaf: ParsedCertificate) -> str:
    """Who issued the certificate, for people."""
    return ascii(leaf.certificate.issuer.rfc4514_string())[1:-1]


def judge_leaf(leaf: ParsedCertificate, at: datetime, anchors: TrustAnchors | None) -> RSAPublicKey:
    """Return the key of PayPal's certificate. Raises Refused unless it passes every check at that time.

    It must bear one of PayPal's two names, be valid, and hold an RSA key of 2048 bits or more. With `anchors`, one of
    them must confirm it (RFC 5280 section 6, for a TLS server of that name).
    """
    require_subject(leaf)
    require_valid_at(leaf, at)
    key = require_rsa_key(leaf)
    if anchors:
        require_trusted_chain(leaf, at, anchors)
    return key
