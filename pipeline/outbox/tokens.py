"""Unforgeable tokens, computed with a secret key: mail ids and the tokens of unsubscribe links."""

import base64
import hmac

from pipeline.crypto.keyring import TOKENS, Keyring

TOKEN_LENGTH = 26  # characters


def mail_token(keyring: Keyring, key: str) -> str:
    """Return the mail id for an idempotency key: 26 letters and digits, always the same for the same key."""
    return base64.b32encode(keyring.digest(TOKENS, key)[:20]).decode().lower()[:TOKEN_LENGTH]


def unsubscribe_token(keyring: Keyring, mail_id: str) -> str:
    """Return the token of a mail's unsubscribe link: the mail's id and a signature. Valid while the mail is stored."""
    return f"{mail_id}{mail_token(keyring, f'unsubscribe:{mail_id}')}"


def read_unsubscribe_token(keyring: Keyring, text: str) -> str | None:
    """Return the mail id from the token of an unsubscribe link; None if the signature is wrong."""
    mail_id = text[:TOKEN_LENGTH]
    is_genuine = hmac.compare_digest(text.encode(), unsubscribe_token(keyring, mail_id).encode())
    return mail_id if is_genuine else None
