"""Tokens that nobody else can make: the id of a mail, and the proof in its unsubscribe link."""

import base64
import hmac

from pipeline.crypto.keyring import TOKENS, Keyring

TOKEN_LENGTH = 26  # characters


def mail_token(keyring: Keyring, key: str) -> str:
    """26 letters and digits, the same for the same key: the mail's id, and what nobody else can make up."""
    return base64.b32encode(keyring.digest(TOKENS, key)[:20]).decode().lower()[:TOKEN_LENGTH]


def unsubscribe_token(keyring: Keyring, mail_id: str) -> str:
    """What stands in a mail's unsubscribe link: its id, and proof that we wrote it. Works as long as the mail is kept."""
    return f"{mail_id}{mail_token(keyring, f'unsubscribe:{mail_id}')}"


def read_unsubscribe_token(keyring: Keyring, text: str) -> str | None:
    """The id of the mail whose unsubscribe link held this text; None if we never wrote it."""
    mail_id = text[:TOKEN_LENGTH]
    proved = hmac.compare_digest(text.encode(), unsubscribe_token(keyring, mail_id).encode())
    return mail_id if proved else None
