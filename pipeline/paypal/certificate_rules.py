"""Rules for the certificates that PayPal signs webhooks with: URL, subject, validity, key and chain.

The URL comes from a header that any sender can set, so it is checked before any request is made. A signature is
trusted because PayPal's own host served the certificate over TLS and the certificate is issued to PayPal. Revocation
is not checked: PayPal has signed with a revoked certificate before.
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

LIVE_SUBJECT = "messageverificationcerts.paypal.com"
# PayPal's simulator signs sandbox events with the live certificate, so the subject need not match the host. With the live
# API only PayPal's live host and name count.
SUBJECTS = frozenset({LIVE_SUBJECT, "messageverificationcerts.sandbox.paypal.com"})
SMALLEST_KEY = 2048  # bits

# One pattern for the whole URL: two parsers may disagree about the host, and an attacker can use that.
_URL = re.compile(
    r"https://api(-m)?(\.sandbox)?\.paypal\.com(:443)?/v1/notifications/certs/[A-Za-z0-9-]{1,128}", re.ASCII
)


@dataclass(frozen=True, slots=True)
class ParsedCertificate:
    """A parsed certificate that is not verified yet."""

    certificate: x509.Certificate
    others: tuple[x509.Certificate, ...]  # the other certificates of the same PEM text
    names: tuple[str, ...]  # common names of the subject
    key: object
    not_before: datetime
    not_after: datetime


@dataclass(frozen=True, slots=True)
class TrustAnchors:
    """The root and intermediate certificates that PayPal's certificate is verified against."""

    store: Store
    intermediates: tuple[x509.Certificate, ...]

    @classmethod
    def load(cls, path: Path) -> "TrustAnchors":
        """Load roots and intermediates from a PEM file. A self-issued certificate is a root. Raises SettingsError."""
        try:
            certificates = x509.load_pem_x509_certificates(path.read_bytes())
        except (OSError, ValueError) as error:
            raise SettingsError(f"cannot read the trust anchors in {path}: {error}; use a PEM file") from error
        roots = [each for each in certificates if each.issuer == each.subject]
        if not roots:
            raise SettingsError(f"the trust anchors in {path} contain no root; add the root certificate")
        return cls(Store(roots), tuple(each for each in certificates if each not in roots))


def require_certificate_url(url: str, *, live: bool = False) -> None:
    """Check that the URL is a certificate URL of PayPal's API, in PayPal's exact form. Raises SignatureError.

    With `live`, a URL of the sandbox is refused too.
    """
    match = _URL.fullmatch(url)
    if match and live and match[2]:
        raise SignatureError("certificate address", f"a URL of PayPal's sandbox, but the live API is configured: {url}")
    if not match:
        raise SignatureError("certificate address", f"not a URL of PayPal's certificates: {url[:120]!a}")


def parse_certificate(pem: bytes) -> ParsedCertificate:
    """Parse a PEM text; its first certificate is PayPal's. Raises SignatureError."""
    try:
        leaf, *others = x509.load_pem_x509_certificates(pem)
        names = tuple(str(name.value) for name in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME))
        return ParsedCertificate(
            leaf, tuple(others), names, leaf.public_key(), leaf.not_valid_before_utc, leaf.not_valid_after_utc
        )
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SignatureError("certificate", "not a readable PEM certificate") from error


def require_subject(leaf: ParsedCertificate, *, live: bool = False) -> str:
    """Return the certificate's common name. Raises SignatureError unless it is exactly one of PayPal's two names.

    With `live`, only the live one is accepted.
    """
    if len(leaf.names) != 1 or leaf.names[0] not in ({LIVE_SUBJECT} if live else SUBJECTS):
        raise SignatureError(
            "certificate subject", f"the certificate is not PayPal's; it is issued to {', '.join(leaf.names)!a}"
        )
    return leaf.names[0]


def require_valid_at(leaf: ParsedCertificate, at: datetime) -> None:
    """Check that the certificate is valid at that time. Raises SignatureError."""
    if not leaf.not_before <= at <= leaf.not_after:
        span = f"from {leaf.not_before:%Y-%m-%d} to {leaf.not_after:%Y-%m-%d}"
        raise SignatureError("certificate validity", f"the certificate is valid {span}, not on {at:%Y-%m-%d}")


def require_rsa_key(leaf: ParsedCertificate) -> RSAPublicKey:
    """Return the certificate's key. Raises SignatureError unless it is an RSA key of at least 2048 bits."""
    if not isinstance(leaf.key, RSAPublicKey):
        raise SignatureError("certificate key", "the certificate's key is not an RSA key")
    if leaf.key.key_size < SMALLEST_KEY:
        raise SignatureError("certificate key", f"the RSA key has {leaf.key.key_size} bits, fewer than {SMALLEST_KEY}")
    return leaf.key


def require_trusted_chain(leaf: ParsedCertificate, at: datetime, anchors: TrustAnchors) -> None:
    """Check that the certificate chains to a trust anchor at that time. Raises SignatureError.

    PayPal serves the certificate without its issuers, so the anchors supply the intermediates.
    """
    verifier = PolicyBuilder().store(anchors.store).time(at).build_server_verifier(x509.DNSName(leaf.names[0]))
    try:
        verifier.verify(leaf.certificate, [*leaf.others, *anchors.intermediates])
    except (VerificationError, ValueError) as error:
        reason = f"the certificate, issued by {issuer(leaf)}, chains to no trust anchor: {error}"
        raise SignatureError("certificate chain", reason) from error


def issuer(leaf: ParsedCertificate) -> str:
    """Return the issuer's name as readable ASCII text."""
    return ascii(leaf.certificate.issuer.rfc4514_string())[1:-1]


def require_paypal_certificate(
    leaf: ParsedCertificate, at: datetime, anchors: TrustAnchors | None, *, live: bool = False
) -> RSAPublicKey:
    """Return the key of PayPal's certificate. Raises SignatureError unless it passes every check at that time.

    Checks: one of PayPal's two names (with `live` only the live one), the validity, an RSA key of at least 2048 bits.
    With `anchors` also the chain (RFC 5280 section 6, as for a TLS server of that name).
    """
    require_subject(leaf, live=live)
    require_valid_at(leaf, at)
    key = require_rsa_key(leaf)
    if anchors:
        require_trusted_chain(leaf, at, anchors)
    return key
