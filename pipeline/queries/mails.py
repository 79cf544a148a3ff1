"""Mails for the command line: the list, and one mail with its text."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from email import message_from_bytes
from email.header import decode_header, make_header
from email.policy import default
from typing import Any

import orjson
from sqlalchemy import select

from pipeline.clock import format_time, write_optional
from pipeline.crypto.keyring import DataKey
from pipeline.customers import links
from pipeline.db.models import Mail
from pipeline.mailer.recipients import RecipientResolver
from pipeline.outbox import mail_kinds
from pipeline.outbox import store as outbox
from pipeline.queries.listing import Decryptor, Json, ListQuery, chunks, matching
from pipeline.rendering.message import RenderedMail
from pipeline.rendering.templates import RenderError, Templates

# Renders a mail of this kind with these facts; returns None if that fails.
Render = Callable[[str, Mapping[str, Any]], RenderedMail | None]
_SUBJECT = re.compile(rb"^Subject: ?([^\r\n]*(?:\r\n[ \t][^\r\n]*)*)", re.MULTILINE | re.IGNORECASE)


def renderer(templates: Callable[[], Templates]) -> Render:
    """Return a function that renders mails that are not frozen. The templates are loaded on first use."""

    def render(kind: str, facts: Mapping[str, Any]) -> RenderedMail | None:
        try:
            return templates().render(kind, facts)
        except RenderError:
            return None

    return render


def mails(decryptor: Decryptor, query: ListQuery, render: Render) -> Iterator[Json]:
    """Yield `id, kind, key, to, subject, state, message_id, reason, attempts, created_at, due_at, sent_at, subscription,
    customer`.
    """
    for chunk in chunks(decryptor.session, matching(select(Mail), Mail, Mail.created_at, query)):
        yield from _mails(decryptor, [row for (row,) in chunk], render)


def mail(decryptor: Decryptor, id: str, render: Render) -> Json | None:
    """Return one mail: the list's fields, its facts, the relay's reply, its `text`, and whether it is `frozen`.

    The secrets of links are hidden: reading a mail must not let the operator sign in as its recipient.
    """
    row = decryptor.session.get(Mail, id)
    if row is None:
        return None
    data_key = decryptor.data_keys([row.key_id]).get(row.key_id)
    recipients = RecipientResolver(decryptor.session, decryptor.keyring, [row])
    facts = _facts(row, data_key, recipients)
    found = {
        **_mail(row, data_key, recipients, render),
        "reply": row.relay_reply,
        "erased": data_key is None,
        "facts": facts,
        "frozen": bool(data_key and row.frozen),
        "text": _text(row, data_key, facts, render),
    }
    shown: Json = orjson.loads(links.without_secrets(orjson.dumps(found)))
    return shown


def _mails(decryptor: Decryptor, rows: Sequence[Mail], render: Render) -> Iterator[Json]:
    data_keys = decryptor.data_keys([row.key_id for row in rows])
    recipients = RecipientResolver(decryptor.session, decryptor.keyring, rows)
    for row in rows:
        yield _mail(row, data_keys.get(row.key_id), recipients, render)


def _mail(row: Mail, data_key: DataKey | None, recipients: RecipientResolver, render: Render) -> Json:
    return {
        "id": row.id,
        "kind": row.kind,
        "key": row.idempotency_key,
        "to": _recipient(row, data_key, recipients),
        "subject": _subject(row, data_key, recipients, render),
        "state": row.state,
        "message_id": row.message_id,
        "reason": row.reason,
        "attempts": row.attempts,
        "created_at": format_time(row.created_at),
        "due_at": write_optional(row.due_at),
        "sent_at": write_optional(row.sent_at),
        "subscription": row.subscription_id,
        "customer": row.customer_id,
    }


def _recipient(row: Mail, data_key: DataKey | None, recipients: RecipientResolver) -> str | None:
    """Return the address that the mail was frozen for, else the one it would go to now.

    None if the recipient is the operator, or no address is known, or the key has been erased.
    """
    if data_key is None:
        return None
    if row.recipient is not None:
        return data_key.decrypt("mail.recipient", row.recipient).decode()
    found = recipients.resolve(row, data_key.decrypt_json("mail.facts", row.facts) or {})
    return found.address or None if found else None


def _subject(row: Mail, data_key: DataKey | None, recipients: RecipientResolver, render: Render) -> str | None:
    if data_key is None:
        return None
    if row.frozen is not None:
        return subject_of(data_key.decrypt("mail.frozen", row.frozen))
    facts = _facts(row, data_key, recipients)
    rendered = None if facts is None else render(row.kind, facts)
    return rendered.subject if rendered else None


def _text(row: Mail, data_key: DataKey | None, facts: Json | None, render: Render) -> str | None:
    """Return the frozen text part, else the text as it would be rendered now; None if the mail cannot be rendered."""
    if data_key and row.frozen:
        part = message_from_bytes(data_key.decrypt("mail.frozen", row.frozen), policy=default).get_body(("plain",))
        return str(part.get_content()).replace("\r\n", "\n") if part else ""
    rendered = render(row.kind, facts) if facts else None
    return rendered.text if rendered else None


def _facts(row: Mail, data_key: DataKey | None, recipients: RecipientResolver) -> Json | None:
    """Return the facts of the mail, with the values that the mailer adds; None if their key has been erased."""
    facts = data_key.decrypt_json("mail.facts", row.facts) if data_key else None
    if facts is None:
        return None
    found, to = recipients.resolve(row, facts), facts.pop(outbox.ADDRESS_OVERRIDE, None)
    added = {"customer_name": found.name if found else "", **({"to": to} if to else {})}
    return {"unsubscribe": "…", **facts, **added} if _is_optional(row.kind) else {**facts, **added}


def _is_optional(kind: str) -> bool:
    return kind in mail_kinds.MAILS and mail_kinds.is_optional(kind)


def subject_of(data: bytes) -> str | None:
    """Return the decoded subject of a finished message."""
    found = _SUBJECT.search(data.partition(b"\r\n\r\n")[0])
    if found is None:
        return None
    text = found[1].decode("utf-8", "replace").replace("\r\n", "")
    return str(make_header(decode_header(text))) if "=?" in text else text
