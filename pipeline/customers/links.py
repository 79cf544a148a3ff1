"""Single-use secret links in mails, and web sessions: issue, check, redeem and revoke them.

A secret has 256 bits. Only its SHA-256 is stored, so a reader of the database cannot follow a link. Opening a link
changes nothing, because mail scanners open links; the form on its page redeems it.
"""

import hashlib
import re
import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session

from pipeline.crypto.keyring import Keyring
from pipeline.db.models import Link

Purpose = Literal[
    "account",
    "export",
    "confirm_email",
    "approve_email",
    "reject_email",
    "cancel_erase",
    "confirm_news",
    "session",
    "sign_up",
]

# Path of the page for each purpose; the secret is appended. Sessions and sign-ups have no page.
PATHS: dict[Purpose, str] = {
    "account": "/account/open/",
    "export": "/account/export/",
    "confirm_email": "/account/confirm/",
    "approve_email": "/account/approve/",
    "reject_email": "/account/reject/",
    "cancel_erase": "/account/keep/",
    "confirm_news": "/account/news/",
}
MINUTES = 30  # validity of links and sessions, unless the caller sets another
# Purposes that `end_sessions` revokes: all that give access to data or change it.
REVOKED: tuple[Purpose, ...] = ("session", "account", "export", "confirm_email", "approve_email", "confirm_news")
SECRET_BYTES = 32


def issue(
    session: Session,
    keyring: Keyring,
    customer_id: str,
    purpose: Purpose,
    now: datetime,
    *,
    request_id: str | None = None,
    details: Mapping[str, Any] | None = None,
    minutes: int = MINUTES,
) -> str:
    """Create a link and return its secret.

    `details` are stored as JSON, encrypted with the customer's key; they are not stored if that key has been erased.
    """
    secret = secrets.token_urlsafe(SECRET_BYTES)
    data_key = keyring.get(customer_id) if details else None
    session.add(
        Link(
            sha256=digest(secret),
            customer_id=customer_id,
            purpose=purpose,
            request_id=request_id,
            details=data_key and data_key.encrypt_json("link.details", dict(details or {})),
            created_at=now,
            expires_at=now + timedelta(minutes=minutes),
            used_at=None,
        )
    )
    session.flush()
    return secret


def peek(session: Session, secret: str, now: datetime, purpose: Purpose | None = None) -> Link | None:
    """Return the link if it is still valid (for `purpose`, if given), otherwise None. Changes nothing."""
    return session.execute(select(Link).where(*_valid(secret, now, purpose))).scalar_one_or_none()


def redeem(session: Session, secret: str, now: datetime, purpose: Purpose | None = None) -> Link | None:
    """Mark the link as used and return it; None if it is used or expired. Of two concurrent calls, one gets it."""
    used = update(Link).where(*_valid(secret, now, purpose)).values(used_at=now).returning(Link)
    return session.execute(used.execution_options(synchronize_session=False)).scalar_one_or_none()


def restore(session: Session, secret: str) -> None:
    """Make a redeemed link usable again, because its action failed. It keeps its expiry time."""
    unused = update(Link).where(Link.sha256 == digest(secret)).values(used_at=None)
    session.execute(unused.execution_options(synchronize_session=False))


def end_sessions(session: Session, customer_id: str, now: datetime) -> None:
    """Revoke the customer's sessions and links: the e-mail address has changed, or they sign out everywhere.

    Links that cancel an erasure or reject another address stay valid, so the owner of the old mailbox can still act.
    """
    session.execute(
        update(Link)
        .where(Link.customer_id == customer_id, Link.purpose.in_(REVOKED), Link.used_at.is_(None))
        .values(used_at=now)
        .execution_options(synchronize_session=False)
    )


def details(link: Link, keyring: Keyring) -> dict[str, Any]:
    """Return the details of the link; {} if there are none or their key has been erased."""
    data_key = keyring.get(link.customer_id) if link.details else None
    return (data_key and data_key.decrypt_json("link.details", link.details)) or {}


def url(pages: str, purpose: Purpose, secret: str) -> str:
    """Return the URL of a link. `pages` is the base URL of the customer pages."""
    return f"{pages.rstrip('/')}{PATHS[purpose]}{secret}"


def without_secrets(content: bytes) -> bytes:
    """Return a mail or JSON text with link secrets replaced, so that operators and exports cannot use them."""
    return _SECRET.sub(rb"\1[hidden]", content)


def digest(secret: str) -> str:
    """Return the SHA-256 of a secret in hex: the form that is stored."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def _valid(secret: str, now: datetime, purpose: Purpose | None) -> list[ColumnElement[bool]]:
    of_purpose = [Link.purpose == purpose] if purpose else []
    return [Link.sha256 == digest(secret), Link.used_at.is_(None), Link.expires_at > now, *of_purpose]


_SOFT_BREAK = rb"(?:=\r?\n)?"  # a soft line break of quoted-printable (RFC 2045 section 6.7)
_PATHS = b"|".join(_SOFT_BREAK.join(re.escape(sign.encode()) for sign in path) for path in PATHS.values())
_SECRET = re.compile(rb"(" + _PATHS + rb")(?:[A-Za-z0-9_-]|=\r?\n){20,}")
