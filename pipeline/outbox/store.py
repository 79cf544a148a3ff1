"""Mails owed: added with an idempotency key in the caller's transaction, claimed, settled.

States: queued -> sending -> sent; back to queued for another try; failed (the relay refused for good, or it cannot be
rendered); doubt (the connection was lost after DATA: it may have gone out); withheld (no longer news).
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any, Literal, cast

from sqlalchemy import Table, bindparam, func, select, update
from sqlalchemy.orm import Session

from pipeline.crypto.keyring import TOKENS, Keyring
from pipeline.db.bulk import bulk_update_partial, insert_new
from pipeline.db.models import Mail
from pipeline.outbox.mail_kinds import info
from pipeline.outbox.tokens import mail_token

MAIL = cast(Table, Mail.__table__)


@dataclass(slots=True)
class ClaimedMail:
    """A row of the table `mail` that a mailer claims; what it changes is written at the end of the claim."""

    id: str
    idempotency_key: str
    kind: str
    key_id: str
    subscription_id: str | None
    customer_id: str | None
    state: str
    reason: str | None
    facts: bytes | None
    recipient: bytes | None
    frozen: bytes | None
    message_id: str | None
    claimed_by: str | None
    attempts: int
    due_at: datetime | None
    claimed_at: datetime | None


CLAIMED = tuple(field.name for field in fields(ClaimedMail))
_values = attrgetter(*CLAIMED)
DUE = (
    select(*(MAIL.c[name] for name in CLAIMED))
    .where(MAIL.c.state == "queued", MAIL.c.due_at <= bindparam("now"))
    .order_by(MAIL.c.due_at)
    .limit(bindparam("limit"))
    .with_for_update(skip_locked=True)
)
State = Literal["queued", "sending", "sent", "doubt", "failed", "withheld"]
ADDRESS_OVERRIDE = "_to"  # the fact that holds an address of its own
OPERATOR = "smt:operator"  # the label of mails to the operator: about events, never about people
MAX_NEWS_AGE = timedelta(days=7)  # what reaches us later than this is no news to anybody

# From when a mail came in doubt: by then the relay has noticed that the connection is gone, and has queued or dropped
# what came over it; and a mailer that lives and has lost its presence has noticed too, and begins no other mail.
DOUBT_GRACE = timedelta(seconds=10)

# After each failed try; a day after the last the relay has been away for two days, and a person should look.
DELAYS = (
    timedelta(minutes=1),
    timedelta(minutes=5),
    timedelta(minutes=15),
    timedelta(hours=1),
    timedelta(hours=4),
    timedelta(hours=12),
    timedelta(hours=24),
)


@dataclass(frozen=True, slots=True)
class NewMail:
    """A mail to be owed: to a subscription's customer, to a customer, to somebody at an address, else to the operator.

    `facts` are JSON. `to` is an address that counts whatever else is known, and is sealed.
    """

    kind: str
    key: str
    subscription_id: str | None
    facts: Mapping[str, Any]
    has_address: bool = True
    withheld: str | None = None  # why it is not to be sent
    customer_id: str | None = None
    to: str | None = None
    label: str | None = None  # whose key seals it, where it is neither of the two

    @property
    def key_id_of_content(self) -> str:
        """The label whose key seals the mail."""
        return self.label or self.subscription_id or self.customer_id or OPERATOR


def enqueue(session: Session, keyring: Keyring, mails: Sequence[NewMail], now: datetime) -> list[str]:
    """Add those whose key is new. The ids of those that are to be sent now. Raises NoPurpose for an unknown kind."""
    if not mails:
        return []
    for mail in mails:
        info(mail.kind)
    labels = keyring.load([TOKENS, *(mail.key_id_of_content for mail in mails)])
    rows = [
        _row(mail, keyring, now)
        for mail in {mail.key: mail for mail in reversed(mails)}.values()  # of two with one key the first counts
        if labels[mail.key_id_of_content] is not None
    ]
    made = set(insert_new(session, Mail, rows, returning=Mail.id))
    return [row["id"] for row in rows if row["id"] in made and row["due_at"] is not None]


def claim(
    session: Session, holder: str, now: datetime, limit: int, prepare: Callable[[list[ClaimedMail]], object] = list
) -> list[ClaimedMail]:
    """Take mails that are due, the longest due first, for this holder; committed before any of them is sent.

    `prepare` is given them before they are written, once and whole: it may freeze them, or say why they cannot go out.
    """
    due = session.connection().execute(DUE, {"now": now, "limit": limit}).all()
    mails = [ClaimedMail(*row) for row in due]
    for mail in mails:
        mail.state, mail.claimed_by, mail.claimed_at, mail.reason = "sending", holder, now, None
        mail.attempts += 1
    prepare(mails)
    bulk_update_partial(session, Mail, [_changed(mail, row) for mail, row in zip(mails, due, strict=True)])
    return mails


def _changed(mail: ClaimedMail, before: Sequence[Any]) -> dict[str, Any]:
    now = _values(mail)
    return {"id": mail.id} | {
        name: value for name, value, old in zip(CLAIMED, now, before, strict=True) if value != old
    }


def record_results(session: Session, ends: Sequence[tuple[str, str, Mapping[str, Any]]]) -> int:
    """Write how mails ended: of each its id, its holder, and the values of its columns. How many were written.

    Only its holder may, also when it was taken for dead meanwhile: then it knows better.
    """
    by_holder: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for mail_id, holder, values in ends:
        by_holder[holder].append({"id": mail_id, **values})
    return sum(
        bulk_update_partial(session, Mail, rows, only={"claimed_by": [holder], "state": ["sending", "doubt"]})
        for holder, rows in by_holder.items()
    )


def release_claims(session: Session, holder: str) -> None:
    """What this holder took and never began to send is owed again."""
    session.execute(
        update(Mail)
        .where(Mail.claimed_by == holder, Mail.state == "sending")
        .values(state="queued", claimed_by=None)
        .execution_options(synchronize_session=False)
    )


def next_try(attempts: int, now: datetime) -> datetime | None:
    """When to try again after so many tries; None: no more."""
    return now + DELAYS[attempts - 1] if attempts <= len(DELAYS) else None


def claim_holders(session: Session) -> list[str]:
    """Who is sending something, by their own account."""
    return list(session.execute(select(Mail.claimed_by).where(Mail.state == "sending").distinct()).scalars())  # type: ignore[arg-type]


def mark_in_doubt(session: Session, holder: str, reason: str, settle_at: datetime | None = None) -> int:
    """What a dead holder was sending may have gone out or not: doubt, to be settled from then on. Returns how many."""
    result = session.execute(
        update(Mail)
        .where(Mail.state == "sending", Mail.claimed_by == holder)
        .values(state="doubt", reason=reason, due_at=settle_at)
        .returning(Mail.id)
        .execution_options(synchronize_session=False)
    )
    return len(result.all())


def resolve_doubt(
    session: Session,
    mail_id: str,
    now: datetime,
    *,
    sent: bool,
    by: str = "operator",
    tried_at: datetime | None = None,
) -> bool:
    """It was found out how a mail in doubt ended: it is sent, or to be sent again. Whether it was in doubt.

    `tried_at`: it was found out of this try, and is not so of a later one.
    """
    found = f"settled by the {by}: it was " + ("sent" if sent else "not sent")
    if sent:
        values: dict[str, Any] = {"state": "sent", "sent_at": now, "reason": found, "due_at": None}
    else:
        values = {"state": "queued", "due_at": now, "reason": found, "claimed_by": None}
    result = session.execute(
        update(Mail)
        .where(Mail.id == mail_id, Mail.state == "doubt", *([Mail.claimed_at == tried_at] if tried_at else []))
        .values(**values)
        .returning(Mail.id)
        .execution_options(synchronize_session=False)
    )
    return result.first() is not None


def oldest_unsent(session: Session, now: datetime) -> datetime | None:
    """Since when the oldest mail that could go out has been waiting."""
    return session.execute(
        select(func.min(Mail.created_at)).where(Mail.state == "queued", Mail.due_at.is_not(None), Mail.due_at <= now)
    ).scalar_one()


def _row(mail: NewMail, keyring: Keyring, now: datetime) -> dict[str, Any]:
    label = mail.key_id_of_content
    facts = {**mail.facts, ADDRESS_OVERRIDE: mail.to} if mail.to else dict(mail.facts)
    return {
        "id": mail_token(keyring, mail.key),
        "idempotency_key": mail.key,
        "kind": mail.kind,
        "key_id": label,
        "subscription_id": mail.subscription_id,
        "customer_id": mail.customer_id,
        "state": "withheld" if mail.withheld else "queued",
        "reason": mail.withheld,
        "facts": keyring.system_key(label).encrypt_json("mail.facts", facts),
        "attempts": 0,
        "created_at": now,
        "due_at": now if mail.has_address and not mail.withheld else None,
    }
