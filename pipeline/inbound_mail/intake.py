"""Store an inbound message, acknowledge it once, and open a request for the operator.

The From line can be forged, so a message never changes data or settings by itself. The operator decides; an export or a
deletion needs a link sent to the known address. Automatic mail is only stored.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

import structlog
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from pipeline.clock import Clock, format_time
from pipeline.crypto.key_ids import SENDER
from pipeline.crypto.keyring import INDEX, Keyring
from pipeline.crypto.master_key import MasterKey, MasterKeyError
from pipeline.customers import accounts, rate_limit
from pipeline.db.bulk import insert_new
from pipeline.db.engine import Database, DatabaseUnavailableError
from pipeline.db.models import InboundMail, PrivacyRequest
from pipeline.inbound_mail import parser
from pipeline.inbound_mail.operator_mail import operator_mails
from pipeline.inbound_mail.reading import read_message
from pipeline.inbound_mail.report_owner import find_report_owner
from pipeline.outbox import store as outbox
from pipeline.privacy import requests

log = structlog.get_logger(__name__)

DAY = timedelta(days=1)
# Bytes stored in 24 hours of one sender and of all, so that forged mail fills neither the database nor an export. Above
# that, only the beginning of a message is stored, which contains its text.
SENDERS_BYTES, ALL_BYTES = 25 * 2**20, 500 * 2**20
BEGINNING = 64 * 1024
ANSWERED_A_DAY = 3  # acknowledgements per sender and kind in 24 hours: stops a loop between two autoresponders


@dataclass(frozen=True, slots=True)
class FiledMail:
    """The result of storing one message."""

    id: str
    kind: Literal["support", "privacy", "automatic"]
    asked: requests.Kind | None  # the privacy right that its text asks for
    customer_id: str | None
    known: bool  # it was stored before, and nothing was done again


def store_mail(
    raw: bytes, database: Database, master_key: MasterKey, clock: Clock, page: str, *, show_text: bool = False
) -> FiledMail:
    """Store one message in its own transaction, see `file_mail`.

    A message that causes an internal error is stored unread, because it would cause the same error again. Raises
    DatabaseUnavailableError, MasterKeyError and OSError.
    """
    try:
        with database.transaction() as session:
            now = clock.now()
            filed = file_mail(session, Keyring(master_key, session, now), raw, now, page, show_text=show_text)
    except (DatabaseUnavailableError, MasterKeyError, OSError):
        raise
    except Exception as error:  # noqa: BLE001 - the error text may quote the message, so only its type is logged
        log.error("message_stored_unread", inbound_mail_id=parser.identity(raw)[:12], reason=type(error).__name__)
        with database.transaction() as session:
            now = clock.now()
            filed = _file_unread(session, Keyring(master_key, session, now), raw, now)
    log.info("message_stored", inbound_mail_id=filed.id[:12], kind=filed.kind, asked=filed.asked, known=filed.known)
    return filed


def file_mail(
    session: Session, keyring: Keyring, raw: bytes, now: datetime, page: str, *, show_text: bool = False
) -> FiledMail:
    """Store one message in the caller's transaction, under the only customer with the sender's address, otherwise under none.

    An automatic message about a mail is stored under the recipient of that mail. The same message is stored
    once. `page` is the URL of the page where customers sign in. `show_text`: the operator's mail contains the message.
    """
    parsed, id = parser.parse_mail(raw), parser.identity(raw)
    owners = accounts.find_by_email(session, keyring, parsed.sender) if parsed.sender else []
    customer_id = owners[0] if len(owners) == 1 else None
    filed = FiledMail(id, _kind(parsed), parsed.asks, customer_id, known=False)
    key_id = customer_id or _sender_key_id(keyring, parsed.sender or id)
    owner = find_report_owner(session, keyring, raw) if parsed.automatic else None
    if owner:
        filed, key_id = replace(filed, customer_id=owner.customer_id), owner.key_id
    if not _store(session, keyring, filed, key_id, raw, now):
        return replace(filed, known=True)
    if not parsed.automatic:
        message = session.get_one(InboundMail, id)
        request = _open_request(session, keyring, message, parsed, now)
        if _may_answer(session, keyring, message, parsed.sender, now):
            outbox.enqueue(session, keyring, [_acknowledgement(message, request, parsed, page, raw)], now)
        about = operator_mails(session, keyring, message, request, raw if show_text else None)
        outbox.enqueue(session, keyring, about, now)
    return filed


def _file_unread(session: Session, keyring: Keyring, raw: bytes, now: datetime) -> FiledMail:
    """Store a message that cannot be processed, and alert the operator by a request."""
    id = parser.identity(raw)
    filed = FiledMail(id, "support", None, None, known=False)
    key_id = _sender_key_id(keyring, id)
    if not _store(session, keyring, filed, key_id, raw, now):
        return replace(filed, known=True)
    details = {"inbound_mail": id, "sender": "", "subject": ""}
    request = requests.open_request(session, keyring, "other", None, "mail", now, details=details)
    session.get_one(InboundMail, id).request_id = request.id
    outbox.enqueue(session, keyring, [requests.reminder(request, 0)], now)
    return filed


def _sender_key_id(keyring: Keyring, sender: str) -> str:
    """Return the key id for messages of an unknown sender. Variants of one mailbox share it, and so their limits."""
    return f"{SENDER}{keyring.digest(INDEX, f'letter:{rate_limit.mailbox(sender)}').hex()[:40]}"


def _kind(parsed: parser.ParsedMail) -> Literal["support", "privacy", "automatic"]:
    if parsed.automatic:
        return "automatic"
    return "privacy" if parsed.asks else "support"


def _store(session: Session, keyring: Keyring, filed: FiledMail, key_id: str, raw: bytes, now: datetime) -> bool:
    data_key, content = keyring.get(key_id), _within_quota(session, key_id, raw, now)
    row = {
        "id": filed.id,
        "customer_id": filed.customer_id,
        "key_id": key_id,
        "kind": filed.kind,
        "request_id": None,
        "content": data_key and data_key.encrypt("inbound_mail.content", content),
        "received_at": now,
    }
    return bool(insert_new(session, InboundMail, [row], returning=InboundMail.id))


def _within_quota(session: Session, key_id: str, raw: bytes, now: datetime) -> bytes:
    """Return the message, or its beginning if the sender's or everybody's quota of stored bytes is used up."""
    stored = select(func.coalesce(func.sum(func.length(InboundMail.content)), 0)).where(
        InboundMail.received_at > now - DAY
    )
    of_sender = session.execute(stored.where(InboundMail.key_id == key_id)).scalar_one()
    if len(raw) <= BEGINNING or (
        of_sender + len(raw) <= SENDERS_BYTES and session.execute(stored).scalar_one() + len(raw) <= ALL_BYTES
    ):
        return raw
    log.warning("message_truncated", size_bytes=len(raw), stored_bytes=BEGINNING)
    return raw[:BEGINNING]


def _open_request(
    session: Session, keyring: Keyring, message: InboundMail, parsed: parser.ParsedMail, now: datetime
) -> PrivacyRequest:
    details = {"inbound_mail": message.id, "sender": parsed.sender, "subject": parsed.subject}
    asked = parsed.asks or "other"
    request = requests.open_request(session, keyring, asked, message.customer_id, "mail", now, details=details)
    message.request_id = request.id
    session.flush()
    return request


def _may_answer(session: Session, keyring: Keyring, message: InboundMail, sender: str, now: datetime) -> bool:
    """Return whether the limits allow an acknowledgement: those of the sender first, so that one does not use up all."""
    same_sender = InboundMail.key_id == message.key_id, InboundMail.kind == message.kind
    recent = select(func.count()).where(*same_sender, InboundMail.received_at > now - DAY)
    if session.execute(recent).scalar_one() > ANSWERED_A_DAY:
        return False
    if not rate_limit.allow(session, keyring, "answer_sender", rate_limit.mailbox(sender), now=now):
        return False
    if message.customer_id or rate_limit.allow(session, keyring, "answer_strangers", "all of them", now=now):
        return True
    log.warning("acknowledgement_skipped", limit_per_hour=rate_limit.PER_HOUR["answer_strangers"])
    return False


def _acknowledgement(
    message: InboundMail, request: PrivacyRequest, parsed: parser.ParsedMail, page: str, raw: bytes
) -> outbox.NewMail:
    """Return the answer to the address that wrote. It quotes no text, because the address can be forged.

    It names the message that it answers, so mail programs show both in one conversation (RFC 3834 section 3.1.5).
    """
    if parsed.asks:
        answer = requests.receipt(request, page=page, to=parsed.sender)
    else:
        facts, key = {"received_at": format_time(message.received_at)}, f"support_received:{message.id}"
        answer = outbox.NewMail(
            "support_received",
            key,
            None,
            facts,
            customer_id=message.customer_id,
            to=parsed.sender,
            label=message.key_id,
        )
    references = list(read_message(raw).references)
    return replace(answer, facts={**answer.facts, outbox.REFERENCES: references}) if references else answer
