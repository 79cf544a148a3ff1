"""Encryption of temporary files with a key that exists in memory only.

When the process ends, or the object is gone, nobody can decrypt what the disk still contains of the file.
"""

import os
from collections.abc import Callable

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

KEY_BYTES, NONCE_BYTES = 32, 16


class EphemeralCipher:
    """AES-256-CTR with a random key, for one stream that is written once from beginning to end. It has no integrity check."""

    def __init__(self) -> None:
        self._cipher = Cipher(AES(os.urandom(KEY_BYTES)), CTR(os.urandom(NONCE_BYTES)))
        self._encryptor = self._cipher.encryptor()

    def encrypt(self, data: bytes) -> bytes:
        """Return the next part of the stream, encrypted; it has the same length."""
        return self._encryptor.update(data)

    def decryptor(self) -> Callable[[bytes], bytes]:
        """Return a function that decrypts the parts of the stream in their order, from the beginning."""
        return self._cipher.decryptor().update
