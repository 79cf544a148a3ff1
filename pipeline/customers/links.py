"""Links that prove who follows them, and the sessions they open: secrets that serve once, and not for long.

A secret has 256 bits; only its SHA-256 is kept, so nobody who reads the tables can follow a link. To look at a link
changes nothing, because mail scanners fetch what they find; it is used up by what its page posts.
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

Purpose = Literal["account", "export", "confirm_email", "cancel_erase", "confirm_news", "session", "sign_up"]

# Where the link of a mail leads; the secret stands behind it.
PATHS: dict[Purpose, str] = {
    "account": "/account/open/",
    "export": "/account/export/",
    "confirm_email": "/account/confirm/",
    "cancel_erase": "/account/keep/",
    "confirm_news": "/account/news/",
}
MINUTES = 30
ENDED: tuple[Purpose, ...] = ("session", "account", "export", "confirm_email", "confirm_news")
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
    """The secret of a new link. `details` are JSON, sealed with the customer's key, and dropped if that is erased."""
    secret = secrets.token_urlsafe(SECRET_BYTES)
    seal = keyring.get(customer_id) if details else None
    session.add(
        Link(
            sha256=digest(secret),
            customer_id=customer_id,
            purpose=purpose,
            request_id=request_id,
            details=seal and seal.encrypt_json("link.details", dict(details or {})),
            created_at=now,
            expires_at=now + timedelta(minutes=minutes),
            used_at=None,
        )
    )
    session.flush()
    return secret


def peek(session: Session, secret: str, now: datetime, purpose: Purpose | None = None) -> Link | None:
    """The link, if it can still be used, for that purpose if one is given; nothing is changed."""
    return session.execute(select(Link).where(*_valid(secret, now, purpose))).scalar_one_or_none()


def redeem(session: Session, secret: str, now: datetime, purpose: Purpose | None = None) -> Link | None:
    """Use the link up; None if it was before, or has expired. Of two who come at once, one is given it."""
    used = update(Link).where(*_valid(secret, now, purpose)).values(used_at=now).returning(Link)
    return session.execute(used.execution_options(synchronize_session=False)).scalar_one_or_none()


def restore(session: Session, secret: str) -> None:
    """What the link was used up for could not be done: it serves once more, until it expires."""
    unused = update(Link).where(Link.sha256 == digest(secret)).values(used_at=None)
    session.execute(unused.execution_options(synchronize_session=False))


def end_sessions(session: Session, customer_id: str, now: datetime) -> None:
    """Sign the customer out everywhere, as when their address has changed; what the old mailbox holds opens nothing.

    It may still keep the account from being erased, as it did before.
    """
    session.execute(
        update(Link)
        .where(Link.customer_id == customer_id, Link.purpose.in_(ENDED), Link.used_at.is_(None))
        .values(used_at=now)
        .execution_options(synchronize_session=False)
    )


def details(link: Link, keyring: Keyring) -> dict[str, Any]:
    """What was put into the link; {} where there is nothing, or nothing that opens any more."""
    seal = keyring.get(link.customer_id) if link.details else None
    return (seal and seal.decrypt_json("link.details", link.details)) or {}


def url(pages: str, purpose: Purpose, secret: str) -> str:
    """Where a link leads. `pages` is the address of our pages, without a slash at its end."""
    return f"{pages.rstrip('/')}{PATHS[purpose]}{secret}"


def without_secrets(said: bytes) -> bytes:
    """What a mail says, or JSON tells, less the secrets of links: whoever reads it beside its reader cannot follow them."""
    return _SECRET.sub(rb"\1[hidden]", said)


def digest(secret: str) -> str:
    """What is kept of a secret."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def _valid(secret: str, now: datetime, purpose: Purpose | None) -> list[ColumnElement[bool]]:
    of_purpose = [Link.purpose == purpose] if purpose else []
    return [Link.sha256 == digest(secret), Link.used_at.is_(None), Link.expires_at > now, *of_purpose]


_SOFT = rb"(?:=\r?\n)?"  # where quoted-printable may break a line, RFC 2045 section 6.7
_BEFORE = b"|".join(_SOFT.join(re.escape(sign.encode()) for sign in path) for path in PATHS.values())
_SECRET = re.compile(rb"(" + _BEFORE + rb")(?:[A-Za-z0-9_-]|=\r?\n){20,}")
