"""Mail that people write to us: filed with the customer it is from, acknowledged once, requests put to the operator.

The From line can be written by anyone, so no letter is acted on by itself where that could hurt: a copy of somebody's
data or its deletion takes a link sent to the address we know. Being spared our optional mail hurts nobody: that is done
at once. Mail that no person wrote is filed and never answered (RFC 3834).
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import product
from pathlib import Path

import structlog
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from pipeline.clock import Clock, write_time
from pipeline.crypto.keyring import INDEX, Keyring
from pipeline.crypto.master_key import MasterKey
from pipeline.customers import accounts
from pipeline.customers import rate_limit as knocks
from pipeline.db.bulk import insert_new
from pipeline.db.engine import Database, StoreDown
from pipeline.db.models import InboundMail, PrivacyRequest
from pipeline.inbound_mail import parser as letter
from pipeline.inbound_mail.parser import Read
from pipeline.outbox import store as outbox
from pipeline.privacy import requests

log = structlog.get_logger(__name__)

DAY = timedelta(days=1)
OPTIONAL: tuple[accounts.ConsentKind, ...] = ("marketing", "service")  # kinds of mail that one can opt out of


@dataclass(frozen=True, slots=True)
class Filed:
    """What became of one letter."""

    id: str
    kind: str  # support, privacy, automatic
    asked: requests.Kind | None  # the kind of request that was recognised
    customer_id: str | None
    known: bool  # it had been filed before, and nothing was done again


def file(session: Session, keyring: Keyring, raw: bytes, now: datetime, page: str) -> Filed:
    """File one mail, and owe what it deserves, in the caller's transaction. The same mail is filed once.

    `page` is the address of the page where people prove who they are.
    """
    read = letter.read(raw)
    owners = accounts.find(session, keyring, read.sender) if read.sender else []
    customer_id = owners[0] if owners else None
    label = customer_id or f"letter:{keyring.digest(INDEX, f'letter:{(read.sender or read.id).lower()}').hex()[:40]}"
    kind = "automatic" if read.automatic else "privacy" if read.asks else "support"
    filed = Filed(read.id, kind, read.asks, customer_id, known=False)
    if not _store(session, keyring, filed, label, raw, now):
        return Filed(read.id, kind, read.asks, customer_id, known=True)
    if not read.automatic:
        _answer(session, keyring, read, filed, label, now, page)
    return filed


def _store(session: Session, keyring: Keyring, filed: Filed, label: str, raw: bytes, now: datetime) -> bool:
    seal = keyring.get(label)
    row = {
        "id": filed.id,
        "customer_id": filed.customer_id,
        "key_id": label,
        "kind": filed.kind,
        "content": seal and seal.seal("inbound_mail.content", raw),
        "received_at": now,
    }
    return bool(insert_new(session, InboundMail, [row], returning=InboundMail.id))


def _answer(session: Session, keyring: Keyring, read: Read, filed: Filed, label: str, now: datetime, page: str) -> None:
    """A request is noted and confirmed, other mail acknowledged; the third of a day is the last that is answered.

    Strangers are answered STRANGERS_AN_HOUR times in all. Every request is noted, answered or not; the operator is told at
    once of three of a stranger's a day, of the rest when they wait.
    """
    may_answer = _few_today(session, label, now) and (bool(filed.customer_id) or _is_calm(session, keyring, now))
    if filed.asked is None:
        if may_answer:
            outbox.add(session, keyring, [_acknowledgement(read, filed, label, now)], now)
        return
    details = {"letter": filed.id, "sender": read.sender, "subject": read.subject}
    row = requests.open_(session, keyring, filed.asked, filed.customer_id, "mail", now, details=details)
    if filed.asked == "opt_out" and filed.customer_id:
        _spare(session, keyring, row, read.sender, now)
    is_told_now = may_answer if row.done_at else filed.customer_id or _few_today(session, label, now, "privacy")
    mails = [requests.reminder(row, 0)] if is_told_now else []  # which is for the operator
    if may_answer:
        mails.append(requests.receipt(row, page=page, to=None if filed.customer_id else read.sender))
    outbox.add(session, keyring, mails, now)


def _spare(session: Session, keyring: Keyring, row: PrivacyRequest, sender: str, now: datetime) -> None:
    """Of every account with this address: whose mail it was that they want no more, they did not say."""
    for customer_id, kind in product(accounts.find(session, keyring, sender), OPTIONAL):
        accounts.consent(session, customer_id, kind, given=False, source="mail", text_version="mail", now=now)
    requests.settle(session, row.id, "done", now)


def _is_calm(session: Session, keyring: Keyring, now: datetime) -> bool:
    """Whether one more mail may go to a stranger in this hour: who is named as the sender may never have written."""
    calm = knocks.allow(session, keyring, "answer a stranger", "all of them", limit=knocks.STRANGERS_AN_HOUR, now=now)
    if not calm:
        log.warning("stranger_not_answered", limit=knocks.STRANGERS_AN_HOUR)
    return calm


def _few_today(session: Session, label: str, now: datetime, kind: str | None = None) -> bool:
    today = select(func.count()).where(InboundMail.key_id == label, InboundMail.received_at > now - DAY)
    today = today.where(InboundMail.kind == kind) if kind else today
    return session.execute(today).scalar_one() <= knocks.ANSWERED_A_DAY


def _acknowledgement(read: Read, filed: Filed, label: str, now: datetime) -> outbox.Owed:
    facts = {"received_at": write_time(now), "subject": read.subject}
    key = f"support_received:{filed.id}"
    to = None if filed.customer_id else read.sender
    return outbox.Owed("support_received", key, None, facts, customer_id=filed.customer_id, to=to, label=label)


# -- reading what has arrived


@dataclass(frozen=True, slots=True)
class Left:
    """A letter that could not be filed: it stays in `new`, and the next reading tries it again."""

    file: str
    reason: str


def read_maildir(
    folder: Path,
    database: Database,
    master: MasterKey,
    clock: Clock,
    page: str,
    tell: Callable[[Filed | Left], object] = lambda _: None,
) -> int:
    """File what is new in a Maildir, one transaction each; moved to `cur` only after that. How many were filed.

    A letter at fault holds up no other. Raises StoreDown when it is the database that is away.
    """
    count = 0
    for path in _new(folder):
        done = _file_one(path, database, master, clock, page)
        count += isinstance(done, Filed)
        if done is not None:
            tell(done)
    return count


def _file_one(path: Path, database: Database, master: MasterKey, clock: Clock, page: str) -> Filed | Left | None:
    """None where another reader was quicker."""
    try:
        filed = take(_bytes(path), database, master, clock, page)
        _move(path)
    except FileNotFoundError:
        return None
    except Exception as error:  # noqa: BLE001 - its words may quote the letter, so only its kind is told
        if isinstance(error, StoreDown):
            database.holds_keys()  # raises if it is away for every letter
        reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        log.error("letter_not_filed", file=path.name, reason=reason)
        return Left(path.name, reason)
    return filed


def _move(path: Path) -> None:
    target = path.parents[1] / "cur" / f"{path.name}:2,S"
    target.parent.mkdir(mode=0o700, exist_ok=True)
    path.rename(target)


def take(raw: bytes, database: Database, master: MasterKey, clock: Clock, page: str) -> Filed:
    """File one mail. Raises StoreDown."""
    with database.transaction() as session:
        now = clock.now()
        filed = file(session, Keyring(master, session, now), raw, now, page)
    log.info("letter", letter_id=filed.id[:12], kind=filed.kind, asked=filed.asked, known=filed.known)
    return filed


def _new(folder: Path) -> Sequence[Path]:
    return sorted(path for path in (folder / "new").glob("*") if path.is_file()) if folder.is_dir() else []


def _bytes(path: Path) -> bytes:
    """The mail, its end cut off beyond what we keep. Raises OSError, also for a link that leads elsewhere."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as opened:
        return opened.read(letter.LARGEST)
