"""File a message, acknowledge it once, and put it to the operator as a request.

The From line can be written by anyone, so a message changes nothing by itself: neither data nor settings. The operator
decides, and a copy or a deletion takes a link sent to the address we know. Mail that no person wrote is filed only.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

import structlog
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from pipeline.clock import Clock, format_time
from pipeline.crypto.keyring import INDEX, Keyring
from pipeline.crypto.master_key import MasterKey
from pipeline.customers import accounts, rate_limit
from pipeline.db.bulk import insert_new
from pipeline.db.engine import Database
from pipeline.db.models import InboundMail, PrivacyRequest
from pipeline.inbound_mail import parser
from pipeline.outbox import store as outbox
from pipeline.privacy import requests

log = structlog.get_logger(__name__)

DAY = timedelta(days=1)
ANSWERED_A_DAY = 3  # messages of one sender and kind that are answered within a day: a loop of two machines ends here


@dataclass(frozen=True, slots=True)
class FiledMail:
    """What became of one message."""

    id: str
    kind: Literal["support", "privacy", "automatic"]
    asked: requests.Kind | None  # the right that it plainly asks for
    customer_id: str | None
    known: bool  # it had been filed before, and nothing was done again


def store_mail(raw: bytes, database: Database, master_key: MasterKey, clock: Clock, page: str) -> FiledMail:
    """File one message in a transaction of its own; `file` says how. Raises StoreDown."""
    with database.transaction() as session:
        now = clock.now()
        filed = file_mail(session, Keyring(master_key, session, now), raw, now, page)
    log.info("letter", letter_id=filed.id[:12], kind=filed.kind, asked=filed.asked, known=filed.known)
    return filed


def file_mail(session: Session, keyring: Keyring, raw: bytes, now: datetime, page: str) -> FiledMail:
    """File one message in the caller's transaction, with the customer whose known address wrote it.

    The same message is filed once. `page` is the address of the page where people prove who they are.
    """
    read, id = parser.parse_mail(raw), parser.identity(raw)
    owners = accounts.find_by_email(session, keyring, read.sender) if read.sender else []
    customer_id = owners[0] if owners else None
    filed = FiledMail(id, _kind(read), read.asks, customer_id, known=False)
    label = customer_id or f"letter:{keyring.digest(INDEX, f'letter:{(read.sender or id).lower()}').hex()[:40]}"
    if not _store(session, keyring, filed, label, raw, now):
        return replace(filed, known=True)
    if not read.automatic:
        _put_to_operator(session, keyring, session.get_one(InboundMail, id), read, now, page)
    return filed


def _kind(read: parser.ParsedMail) -> Literal["support", "privacy", "automatic"]:
    if read.automatic:
        return "automatic"
    return "privacy" if read.asks else "support"


def _store(session: Session, keyring: Keyring, filed: FiledMail, label: str, raw: bytes, now: datetime) -> bool:
    seal = keyring.get(label)
    row = {
        "id": filed.id,
        "customer_id": filed.customer_id,
        "key_id": label,
        "kind": filed.kind,
        "request_id": None,
        "content": seal and seal.encrypt("inbound_mail.content", raw),
        "received_at": now,
    }
    return bool(insert_new(session, InboundMail, [row], returning=InboundMail.id))


def _put_to_operator(
    session: Session, keyring: Keyring, letter: InboundMail, read: parser.ParsedMail, now: datetime, page: str
) -> None:
    """Open the request. Beyond the limits of senders it waits in the list of open requests, and no mail is sent."""
    details = {"letter": letter.id, "sender": read.sender, "subject": read.subject}
    asked = read.asks or "other"
    row = requests.open_request(session, keyring, asked, letter.customer_id, "mail", now, details=details)
    letter.request_id = row.id
    session.flush()
    if _may_answer(session, keyring, letter, now):
        mails = [requests.reminder(row, 0), _acknowledgement(letter, row, read, page)]
        outbox.enqueue(session, keyring, mails, now)


def _may_answer(session: Session, keyring: Keyring, letter: InboundMail, now: datetime) -> bool:
    like_it = InboundMail.key_id == letter.key_id, InboundMail.kind == letter.kind, InboundMail.received_at > now - DAY
    if session.execute(select(func.count()).where(*like_it)).scalar_one() > ANSWERED_A_DAY:
        return False
    if letter.customer_id or rate_limit.allow(session, keyring, "answer_strangers", "all of them", now=now):
        return True
    log.warning("stranger_not_answered", limit=rate_limit.PER_HOUR["answer_strangers"])
    return False


def _acknowledgement(letter: InboundMail, row: PrivacyRequest, read: parser.ParsedMail, page: str) -> outbox.NewMail:
    to = None if letter.customer_id else read.sender
    if read.asks:
        return requests.receipt(row, page=page, to=to)
    facts = {"received_at": format_time(letter.received_at), "subject": read.subject}
    key = f"support_received:{letter.id}"
    return outbox.NewMail(
        "support_received", key, None, facts, customer_id=letter.customer_id, to=to, label=letter.key_id
    )
