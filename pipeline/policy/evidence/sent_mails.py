"""The mails that went out, as the relay got them: the frozen bytes of the newest ones, decrypted."""

from collections.abc import Iterator
from dataclasses import dataclass
from email import message_from_bytes, policy

from sqlalchemy import select

from pipeline.db.models import Mail
from pipeline.policy.evidence.live_system import LiveSystem

SAMPLE = 500  # the newest mails that are opened


@dataclass(frozen=True, slots=True)
class SentMail:
    """One mail that the relay accepted. `html` and `text` are "" if the mail has no such part."""

    kind: str
    html: str
    text: str
    header_names: frozenset[str]


def sent_mails(live: LiveSystem) -> Iterator[SentMail]:
    """Yield the newest accepted mails whose bytes are still readable. Raises DecryptionError."""
    newest = (
        select(Mail.key_id, Mail.kind, Mail.frozen)
        .where(Mail.sent_at.is_not(None), Mail.frozen.is_not(None))
        .order_by(Mail.sent_at.desc())
        .limit(SAMPLE)
    )
    rows = live.session.execute(newest).all()
    keys = live.data_keys([row.key_id for row in rows])
    for row in rows:
        if key := keys.get(row.key_id):
            yield _read(row.kind, key.decrypt("mail.frozen", row.frozen))


def _read(kind: str, content: bytes) -> SentMail:
    message = message_from_bytes(content, policy=policy.default)
    html, text = message.get_body(("html",)), message.get_body(("plain",))
    return SentMail(
        kind,
        html.get_content() if html else "",
        text.get_content() if text else "",
        frozenset(name.lower() for name in message),
    )
