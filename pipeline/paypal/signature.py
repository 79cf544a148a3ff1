"""Verify the signature of a webhook delivery, and parse its headers.

PayPal signs the ASCII text `transmission id|transmission time|webhook id|CRC-32 of the raw body in decimal` with RSA,
PKCS#1 v1.5 and SHA-256 (https://developer.paypal.com/api/rest/webhooks/rest/). No header contains the
webhook id: it identifies our webhook endpoint at PayPal, so a delivery that was signed for another endpoint fails here.
"""

import base64
import binascii
import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256

from pipeline.clock import parse_time
from pipeline.paypal.errors import MalformedDeliveryError, SignatureError, SimulatedEventError
from pipeline.settings import SIMULATOR

ALGORITHM = "SHA256withRSA"  # PayPal's algorithm since 2015; the earlier SHA1withRSA is no longer secure

ID, TIME, SIGNATURE, CERT_URL, AUTH_ALGO = HEADERS = (
    "paypal-transmission-id",
    "paypal-transmission-time",
    "paypal-transmission-sig",
    "paypal-cert-url",
    "paypal-auth-algo",
)
# Maximum lengths from PayPal's verify-webhook-signature schema; the signature's is base64 of 8192 bits.
_LONGEST = {ID: 50, TIME: 64, SIGNATURE: 1368, CERT_URL: 500, AUTH_ALGO: 100}
_SIGNATURE_BYTES = range(256, 1025)
# Printable ASCII without space and `|`: the bar separates the parts of the signed message, so no part may contain it.
_SHAPES = {name: re.compile(rf"[!-{{}}~]{{1,{longest}}}", re.ASCII) for name, longest in _LONGEST.items()}

MAX_AHEAD = timedelta(hours=1)  # for a clock that is wrong, at PayPal's or here

_PADDING, _HASH = PKCS1v15(), SHA256()  # stateless, so created once


@dataclass(frozen=True, slots=True)
class Transmission:
    """PayPal's headers of one delivery. Do not trust them before `verify` has returned."""

    id: str
    time: str  # PayPal's literal text, because exactly this text is signed
    signature: bytes
    cert_url: str
    algorithm: str

    @classmethod
    def read(cls, headers: Iterable[tuple[str, str]]) -> "Transmission":
        """Read PayPal's five headers; names are case-insensitive. Raises MalformedDeliveryError."""
        found: dict[str, str] = {}
        for name, value in headers:
            if (lower := name.lower()) in _LONGEST:
                if lower in found:
                    raise MalformedDeliveryError(f"duplicate header {lower}; PayPal sends it once")
                found[lower] = value
        for name, shape in _SHAPES.items():
            if not shape.fullmatch(found.get(name, "")):
                raise MalformedDeliveryError(f"the header {name} {_describe_fault(found.get(name), _LONGEST[name])}")
        return cls(found[ID], found[TIME], _read_signature(found[SIGNATURE]), found[CERT_URL], found[AUTH_ALGO])


def verify(transmission: Transmission, body: bytes, webhook_ids: Sequence[str], key: RSAPublicKey) -> str:
    """Return the one of our webhook ids that this delivery was signed for.

    `body` is the raw body, unchanged. Raises SignatureError if the algorithm is not PayPal's, no webhook id is set, or
    the signature matches none of them; SimulatedEventError if PayPal's simulator sent it.
    """
    require_algorithm(transmission)
    if not webhook_ids:
        raise SignatureError(
            "webhook id", "no webhook id is set, so the signature cannot be verified; set SMT_PAYPAL_WEBHOOK_ID"
        )
    for webhook_id in webhook_ids:
        if _signs(transmission, body, webhook_id, key):
            return webhook_id
    if _signs(transmission, body, SIMULATOR, key):
        raise SimulatedEventError
    raise SignatureError(
        "signature", "the signature does not match: body or headers were changed, or the webhook id is not ours"
    )


def _signs(transmission: Transmission, body: bytes, webhook_id: str, key: RSAPublicKey) -> bool:
    message = f"{transmission.id}|{transmission.time}|{webhook_id}|{zlib.crc32(body)}".encode()
    try:
        key.verify(transmission.signature, message, _PADDING, _HASH)
    except InvalidSignature:
        return False
    return True


def require_algorithm(transmission: Transmission) -> None:
    """Check that the algorithm is SHA256withRSA. Raises SignatureError.

    The header is not signed, so it must not select the algorithm.
    """
    if transmission.algorithm != ALGORITHM:
        raise SignatureError("algorithm", f"signed with {transmission.algorithm}; only {ALGORITHM} is accepted")


def require_recent(transmission: Transmission, now: datetime, max_age: timedelta) -> None:
    """Check that PayPal sent the delivery within `max_age`, so that a captured one cannot be replayed later.

    Call it after `verify`: the time is signed. Raises SignatureError, also for a time that cannot be read.
    """
    sent_at = parse_time(transmission.time)
    if sent_at is None:
        raise SignatureError("transmission time", f"{TIME} is not a time")
    if sent_at > now + MAX_AHEAD:
        raise SignatureError(
            "transmission time", f"sent at {transmission.time}, which is in the future; check the clock"
        )
    if sent_at < now - max_age:
        limit = f"more than {max_age.days} days ago (SMT_PAYPAL_MAX_AGE_DAYS); resend it in PayPal's dashboard"
        raise SignatureError("transmission time", f"sent at {transmission.time}, {limit}")


def _describe_fault(value: str | None, longest: int) -> str:
    """Return why a header's value is invalid."""
    if not value:
        return "is missing; only PayPal may post here"
    if len(value) > longest:
        return f"is longer than {longest} characters"
    return "contains a character that PayPal never sends"


def _read_signature(text: str) -> bytes:
    try:
        signature = binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error as error:
        raise MalformedDeliveryError(f"the header {SIGNATURE} is not base64") from error
    # Several base64 texts decode to the same bytes; accept only the canonical one.
    if base64.b64encode(signature).decode("ascii") != text or len(signature) not in _SIGNATURE_BYTES:
        raise MalformedDeliveryError(
            f"the header {SIGNATURE} is not a signature of 256 to 1024 bytes in canonical base64"
        )
    return signature
