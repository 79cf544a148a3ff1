"""The operator's view of stored messages: a list, one message with its text, and a reply to it.

States: `open` until a person has answered, `answered` after a reply, `closed` if its request was closed without a reply,
`filed` for automatic messages, which need no answer.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from pipeline.clock import format_time, write_optional
from pipeline.crypto.keyring import TOKENS, Keyring
from pipeline.db.models import InboundMail, PrivacyRequest
from pipeline.email_address import clean_name
from pipeline.errors import OperatorError, UsageError
from pipeline.inbound_mail.reading import ReadableMessage, read_message
from pipeline.outbox import store as outbox
from pipeline.privacy import requests

Json = dict[str, Any]
SHORT_ID = 12  # characters of an id in lists and mails; every command accepts it
SHORTEST_ID = 8
LONGEST_REPLY = 20_000  # characters

_FIELDS = (InboundMail.id, InboundMail.kind, InboundMail.received_at, InboundMail.answered_at, InboundMail.customer_id)
_ROWS = (
    *_FIELDS,
    InboundMail.key_id,
    InboundMail.request_id,
    PrivacyRequest.kind.label("asked"),
    PrivacyRequest.done_at,
)
_IS_OPEN: ColumnElement[bool] = InboundMail.answered_at.is_(None) & PrivacyRequest.id.is_not(None)


@dataclass(frozen=True, slots=True)
class MessageQuery:
    """Filter of the list: kind, received at or after `since` and before `until`, only open ones; the newest `limit`."""

    kind: str | None = None
    since: datetime | None = None
    only_open: bool = False
    limit: int | None = None
    until: datetime | None = None


def messages(session: Session, keyring: Keyring, query: MessageQuery) -> Iterator[Json]:
    """Yield `id, kind, asks, state, from, subject, customer, request, received_at, answered_at`, newest first."""
    statement = _select(query).order_by(InboundMail.received_at.desc(), InboundMail.id).limit(query.limit)
    for row in session.execute(statement).all():
        yield _message(row, _read(_content(session, keyring, row)))


def count(session: Session, query: MessageQuery) -> int:
    """Count the messages that match, ignoring the limit."""
    return int(session.execute(select(func.count()).select_from(_select(query).subquery())).scalar_one())


def message(session: Session, keyring: Keyring, id: str) -> Json | None:
    """Return one message: the list's fields, to, date, text and attachments; None if there is none with this id.

    `id` may be the beginning of an id. Raises UsageError if several messages begin with it.
    """
    row = _row(session, id)
    if row is None:
        return None
    read = _read(_content(session, keyring, row))
    more = {name: getattr(read, name) if read else None for name in ("to", "date", "text", "attachments")}
    return {**_message(row, read), **more, "erased": read is None}


def raw_message(session: Session, keyring: Keyring, id: str) -> bytes | None:
    """Return the bytes of one message; None if it is unknown or erased. Raises UsageError as `message` does."""
    row = _row(session, id)
    return row and _content(session, keyring, row)


@dataclass(frozen=True, slots=True)
class QueuedReply:
    """The result of a reply. `mail` is None if the same reply was queued before. `open_request` still needs an answer."""

    message: str
    mail: str | None
    to: str
    open_request: str | None


def reply(session: Session, keyring: Keyring, id: str, text: str, now: datetime) -> QueuedReply:
    """Queue a reply to the address that wrote the message, and mark the message as answered.

    The reply names the message in its headers, so mail programs show both in one conversation. It answers a support
    request, which is closed; a request for a privacy right stays open until it is fulfilled. Raises UsageError for an
    unknown or automatic message and for an empty or too long text, OperatorError if the message is erased.
    """
    row = _require_answerable(session, id, text)
    read = _read(_content(session, keyring, row))
    if read is None:
        raise OperatorError(f"message {row.id[:SHORT_ID]} has been erased, so its sender is not known")
    if not read.sender:
        raise UsageError(f"message {row.id[:SHORT_ID]} names no valid sender; answer it with your own mail program")
    queued = outbox.enqueue(session, keyring, [_reply(keyring, row, read, text)], now)
    session.get_one(InboundMail, row.id).answered_at = now
    return QueuedReply(row.id, queued[0] if queued else None, read.sender, _close(session, row, now))


def _require_answerable(session: Session, id: str, text: str) -> Any:
    row = _row(session, id)
    if row is None:
        raise UsageError(f"there is no message {id}; see: smt-billing inbound list")
    if row.kind == "automatic":
        raise UsageError(f"message {row.id[:SHORT_ID]} was written by a program, which must not be answered")
    if not text.strip():
        raise UsageError("the reply has no text")
    if len(text) > LONGEST_REPLY:
        raise UsageError(f"the reply is longer than {LONGEST_REPLY:,} characters")
    return row


def _reply(keyring: Keyring, row: Any, read: ReadableMessage, text: str) -> outbox.NewMail:
    asked = clean_name(read.subject)  # free text from outside: links are removed
    subject = asked if asked.lower().startswith("re:") else f"Re: {asked}".strip()
    facts = {
        "subject": subject,
        "lines": text.strip("\n").splitlines(),
        "received_at": format_time(row.received_at),
        outbox.REFERENCES: list(read.references),
    }
    version = keyring.digest(TOKENS, f"inbound reply:{text.strip()}").hex()[:16]  # the same text is queued once
    key = f"inbound_reply:{row.id}:{version}"
    return outbox.NewMail(
        "inbound_reply", key, None, facts, customer_id=row.customer_id, to=read.sender, label=row.key_id
    )


def _close(session: Session, row: Any, now: datetime) -> str | None:
    """Close the support request of an answered message. Return the id of a request that stays open."""
    if row.request_id is None or row.done_at is not None:
        return None
    if row.asked != "other":
        return str(row.request_id)
    requests.close_request(session, row.request_id, "done", now, "answered by mail")
    return None


def _select(query: MessageQuery) -> Any:
    statement = select(*_ROWS).outerjoin(PrivacyRequest, PrivacyRequest.id == InboundMail.request_id)
    if query.kind:
        statement = statement.where(InboundMail.kind == query.kind)
    if query.since:
        statement = statement.where(InboundMail.received_at >= query.since)
    if query.until:
        statement = statement.where(InboundMail.received_at < query.until)
    return statement.where(_IS_OPEN, PrivacyRequest.done_at.is_(None)) if query.only_open else statement


def _row(session: Session, id: str) -> Any:
    """Return the row of the message whose id begins with `id`, None if there is none."""
    if len(id) < SHORTEST_ID:
        raise UsageError(f"give at least {SHORTEST_ID} characters of the message's id; see: smt-billing inbound list")
    matching = _select(MessageQuery()).where(InboundMail.id.startswith(id.lower(), autoescape=True)).limit(2)
    rows: Sequence[Any] = session.execute(matching).all()
    if len(rows) > 1:
        raise UsageError(f"several messages begin with {id}; give more characters of the id")
    return rows[0] if rows else None


def _content(session: Session, keyring: Keyring, row: Any) -> bytes | None:
    """Return the decrypted message. Loaded for each message alone, because a message may have ten megabytes."""
    data_key = keyring.load([row.key_id], create=False).get(row.key_id)
    content = session.execute(select(InboundMail.content).where(InboundMail.id == row.id)).scalar_one()
    return data_key.decrypt("inbound_mail.content", content) if data_key and content else None


def _read(content: bytes | None) -> ReadableMessage | None:
    return None if content is None else read_message(content)


def _message(row: Any, read: ReadableMessage | None) -> Json:
    return {
        "id": row.id,
        "kind": row.kind,
        "asks": row.asked if row.kind == "privacy" else None,
        "state": _state(row),
        "from": read.from_line if read else None,
        "subject": read.subject if read else None,
        "customer": row.customer_id,
        "request": row.request_id,
        "received_at": format_time(row.received_at),
        "answered_at": write_optional(row.answered_at),
    }


def _state(row: Any) -> str:
    if row.answered_at:
        return "answered"
    if row.request_id is None:
        return "filed"
    return "open" if row.asked and row.done_at is None else "closed"
