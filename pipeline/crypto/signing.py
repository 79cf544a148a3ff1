"""Signatures on exports, reports and backups (Ed25519, RFC 8032).

The private key is a data key, so it is wrapped with the master key like all others.
"""

import base64

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pipeline.crypto.keyring import Keyring

PublicKey = Ed25519PublicKey
SIGNING = "smt:signing"  # key id of the signing key


class Signer:
    """Signs with the key of this installation."""

    def __init__(self, keyring: Keyring) -> None:
        self._secret = Ed25519PrivateKey.from_private_bytes(keyring.system_key(SIGNING).secret)

    def sign(self, data: bytes) -> bytes:
        """Return the signature, 64 bytes."""
        return self._secret.sign(data)

    @property
    def public(self) -> Ed25519PublicKey:
        return self._secret.public_key()

    @property
    def public_pem(self) -> bytes:
        """The public key in the format of `openssl pkeyutl -verify -pubin -inkey FILE`."""
        return self.public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def encode_public(public: Ed25519PublicKey) -> str:
    """Return the public key in base64, 44 characters."""
    return base64.b64encode(public.public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()


def decode_public(text: str) -> Ed25519PublicKey:
    """Return the public key that `encode_public` returned as text. Raises ValueError."""
    return Ed25519PublicKey.from_public_bytes(base64.b64decode(text.strip(), validate=True))


def is_signed(public: Ed25519PublicKey, data: bytes, signature: bytes) -> bool:
    """Return whether this key signed exactly these bytes."""
    try:
        public.verify(signature, data)
    except InvalidSignature:
        return False
    return True
