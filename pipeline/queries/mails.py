"""Look-ups of mails: the list, and one mail with what it says."""

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

Render = Callable[
    [str, Mapping[str, Any]], RenderedMail | None
]  # a mail of this kind with these facts, None if it fails
_SUBJECT = re.compile(rb"^Subject: ?([^\r\n]*(?:\r\n[ \t][^\r\n]*)*)", re.MULTILINE | re.IGNORECASE)


def renderer(templates: Callable[[], Templates]) -> Render:
    """Render mails that are not frozen yet. The templates are opened at the first such mail."""

    def render(kind: str, facts: Mapping[str, Any]) -> RenderedMail | None:
        try:
            return templates().render(kind, facts)
        except RenderError:
            return None

    return render


def mails(lens: Decryptor, asked: ListQuery, render: Render) -> Iterator[Json]:
    """`id, kind, key, to, subject, state, message_id, reason, attempts, created_at, due_at, sent_at, subscription`."""
    for chunk in chunks(lens.session, matching(select(Mail), Mail, Mail.created_at, asked)):
        yield from _mails(lens, [row for (row,) in chunk], render)


def mail(lens: Decryptor, id: str, render: Render) -> Json | None:
    """All of one mail: the list's fields, its facts, the relay's answer, its `text`, and whether it is `frozen`.

    Links that can be used once are taken out: reading a mail must not let the operator sign in as its recipient.
    """
    row = lens.session.get(Mail, id)
    if row is None:
        return None
    seal = lens.data_keys([row.key_id]).get(row.key_id)
    people = RecipientResolver(lens.session, lens.keyring, [row])
    facts = _facts(row, seal, people)
    found = {
        **_mail(row, seal, people, render),
        "reply": row.relay_reply,
        "erased": seal is None,
        "facts": facts,
        "frozen": bool(seal and row.frozen),
        "text": _text(row, seal, facts, render),
    }
    shown: Json = orjson.loads(links.without_secrets(orjson.dumps(found)))
    return shown


def _mails(lens: Decryptor, rows: Sequence[Mail], render: Render) -> Iterator[Json]:
    seals = lens.data_keys([row.key_id for row in rows])
    people = RecipientResolver(lens.session, lens.keyring, rows)
    for row in rows:
        yield _mail(row, seals.get(row.key_id), people, render)


def _mail(row: Mail, seal: DataKey | None, people: RecipientResolver, render: Render) -> Json:
    return {
        "id": row.id,
        "kind": row.kind,
        "key": row.idempotency_key,
        "to": _recipient(row, seal, people),
        "subject": _subject(row, seal, people, render),
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


def _recipient(row: Mail, seal: DataKey | None, people: RecipientResolver) -> str | None:
    """The address it was frozen for, else where it would go now; None is the operator, or nobody yet."""
    if seal is None:
        return None
    if row.recipient is not None:
        return seal.decrypt("mail.recipient", row.recipient).decode()
    found = people.resolve(row, seal.decrypt_json("mail.facts", row.facts) or {})
    return found.address or None if found else None


def _subject(row: Mail, seal: DataKey | None, people: RecipientResolver, render: Render) -> str | None:
    if seal is None:
        return None
    if row.frozen is not None:
        return subject_of(seal.decrypt("mail.frozen", row.frozen))
    facts = _facts(row, seal, people)
    rendered = None if facts is None else render(row.kind, facts)
    return rendered.subject if rendered else None


def _text(row: Mail, seal: DataKey | None, facts: Json | None, render: Render) -> str | None:
    """The text part: as it is frozen, else as it would be rendered now; None if it cannot be known."""
    if seal and row.frozen:
        part = message_from_bytes(seal.decrypt("mail.frozen", row.frozen), policy=default).get_body(("plain",))
        return str(part.get_content()).replace("\r\n", "\n") if part else ""
    rendered = render(row.kind, facts) if facts else None
    return rendered.text if rendered else None


def _facts(row: Mail, seal: DataKey | None, people: RecipientResolver) -> Json | None:
    """What the mail says, with what the mailer would add."""
    facts = seal.decrypt_json("mail.facts", row.facts) if seal else None
    if facts is None:
        return None
    found, to = people.resolve(row, facts), facts.pop(outbox.ADDRESS_OVERRIDE, None)
    added = {"customer_name": found.name if found else "", **({"to": to} if to else {})}
    return {"unsubscribe": "…", **facts, **added} if _can_be_declined(row.kind) else {**facts, **added}


def _can_be_declined(kind: str) -> bool:
    return kind in mail_kinds.MAILS and mail_kinds.is_optional(kind)


def subject_of(data: bytes) -> str | None:
    """The subject of finished bytes, decoded."""
    found = _SUBJECT.search(data.partition(b"\r\n\r\n")[0])
    if found is None:
        return None
    text = found[1].decode("utf-8", "replace").replace("\r\n", "")
    return str(make_header(decode_header(text))) if "=?" in text else text
