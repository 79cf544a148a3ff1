"""Signatures on exports and reports (Ed25519, RFC 8032).

The private key is a data key, so it is wrapped with the master key like all others.
"""

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pipeline.crypto.keyring import Keyring

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


def is_signed(public: Ed25519PublicKey, data: bytes, signature: bytes) -> bool:
    """Return whether this key signed exactly these bytes."""
    try:
        public.verify(signature, data)
    except InvalidSignature:
        return False
    return True
