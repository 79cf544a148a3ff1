"""Outbox store: queue mails in the caller's transaction, claim them, and record their results.

States: queued -> sending -> sent. A mail returns to `queued` for a retry. `failed`: the relay refused it permanently, or
it cannot be rendered. `doubt`: the connection was lost after DATA, so it may have been sent. `withheld`: it is not sent,
because it is superseded, too old or not wanted.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any, Literal, cast

from sqlalchemy import Table, bindparam, select, update
from sqlalchemy.orm import Session

from pipeline.crypto.keyring import TOKENS, Keyring
from pipeline.db.bulk import bulk_update_partial, insert_new
from pipeline.db.models import Mail
from pipeline.outbox.mail_kinds import info
from pipeline.outbox.tokens import mail_token

MAIL = cast(Table, Mail.__table__)


@dataclass(slots=True)
class ClaimedMail:
    """A row of the table `mail` during a claim. `claim` writes the changed columns at its end."""

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
ADDRESS_OVERRIDE = "_to"  # the fact that contains the recipient's address, if the mail names one
REFERENCES = "references"  # the fact that lists the message ids of the conversation, for a mail that answers a message
OPERATOR = "smt:operator"  # key id of mails to the operator, which are about events and contain no personal data
MAX_NEWS_AGE = timedelta(days=7)  # a mail about an event that arrives later than this is withheld

# Wait this long before a mail in doubt is resolved. By then the relay has queued or discarded it, and a mailer that
# lost its lock has noticed that and starts no other mail.
DOUBT_GRACE = timedelta(seconds=10)

# Wait after each failed attempt. The last attempt is about two days after the first; then an operator should check.
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
    """A mail to queue: for a subscription's customer, a customer or an address; otherwise for the operator.

    `facts` are JSON. `to` overrides every other address of the recipient and is stored encrypted.
    """

    kind: str
    key: str
    subscription_id: str | None
    facts: Mapping[str, Any]
    has_address: bool = True
    withheld: str | None = None  # the reason, if the mail must not be sent
    customer_id: str | None = None
    to: str | None = None
    label: str | None = None  # key id, if it is neither the subscription's nor the customer's id

    @property
    def key_id_of_content(self) -> str:
        """The id of the key that encrypts the mail."""
        return self.label or self.subscription_id or self.customer_id or OPERATOR


def enqueue(session: Session, keyring: Keyring, mails: Sequence[NewMail], now: datetime) -> list[str]:
    """Queue the mails whose idempotency key is new. Return the ids of those to send now.

    A mail whose data key is destroyed is not queued. Raises UnknownMailKindError.
    """
    if not mails:
        return []
    for mail in mails:
        info(mail.kind)
    data_keys = keyring.load([TOKENS, *(mail.key_id_of_content for mail in mails)])
    rows = [
        _row(mail, keyring, now)
        for mail in {mail.key: mail for mail in reversed(mails)}.values()  # the first of two with the same key
        if data_keys[mail.key_id_of_content] is not None
    ]
    inserted = set(insert_new(session, Mail, rows, returning=Mail.id))
    return [row["id"] for row in rows if row["id"] in inserted and row["due_at"] is not None]


def claim(
    session: Session, holder: str, now: datetime, limit: int, prepare: Callable[[list[ClaimedMail]], object] = list
) -> list[ClaimedMail]:
    """Claim up to `limit` due mails for this holder, the longest due first. The caller commits before it sends them.

    `prepare` is called once with all claimed mails before they are written. It may freeze them, or set a state and a
    reason for mails that cannot be sent.
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
    """Record the results of mails: id, holder and column values of each. Return how many were written.

    Only the holder of a claim may record its result, also after the claim became `doubt`: the holder knows the outcome.
    """
    by_holder: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for mail_id, holder, values in ends:
        by_holder[holder].append({"id": mail_id, **values})
    return sum(
        bulk_update_partial(session, Mail, rows, only={"claimed_by": [holder], "state": ["sending", "doubt"]})
        for holder, rows in by_holder.items()
    )


def release_claims(session: Session, holder: str) -> None:
    """Queue again all mails that this holder claimed. The caller knows that none of them was sent."""
    session.execute(
        update(Mail)
        .where(Mail.claimed_by == holder, Mail.state == "sending")
        .values(state="queued", claimed_by=None)
        .execution_options(synchronize_session=False)
    )


def next_try(attempts: int, now: datetime) -> datetime | None:
    """Return the time of the next attempt after this number of attempts; None if there is no further one."""
    return now + DELAYS[attempts - 1] if attempts <= len(DELAYS) else None


def claim_holders(session: Session) -> list[str]:
    """Return the holders of all current claims, alive or not."""
    return list(session.execute(select(Mail.claimed_by).where(Mail.state == "sending").distinct()).scalars())  # type: ignore[arg-type]


def mark_in_doubt(session: Session, holder: str, reason: str, resolve_at: datetime | None = None) -> int:
    """Set the claims of a dead holder to `doubt`, to be resolved from `resolve_at` on. Return how many."""
    result = session.execute(
        update(Mail)
        .where(Mail.state == "sending", Mail.claimed_by == holder)
        .values(state="doubt", reason=reason, due_at=resolve_at)
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
    """Set a mail in doubt to `sent`, or to `queued` for another attempt. Return whether it was in doubt.

    With `tried_at`, the mail is changed only if its latest attempt began at that time.
    """
    reason = f"resolved by the {by}: it was " + ("sent" if sent else "not sent")
    if sent:
        values: dict[str, Any] = {"state": "sent", "sent_at": now, "reason": reason, "due_at": None}
    else:
        values = {"state": "queued", "due_at": now, "reason": reason, "claimed_by": None}
    result = session.execute(
        update(Mail)
        .where(Mail.id == mail_id, Mail.state == "doubt", *([Mail.claimed_at == tried_at] if tried_at else []))
        .values(**values)
        .returning(Mail.id)
        .execution_options(synchronize_session=False)
    )
    return result.first() is not None


def end_failure(session: Session, mail_id: str, now: datetime, *, again: bool) -> bool:
    """Queue a failed mail again, or set it to `withheld` for good. Return whether it had failed."""
    values = (
        {"state": "queued", "due_at": now, "reason": "queued again by the operator", "claimed_by": None, "attempts": 0}
        if again
        else {"state": "withheld", "reason": "dismissed by the operator"}
    )
    ended = update(Mail).where(Mail.id == mail_id, Mail.state == "failed").values(**values).returning(Mail.id)
    return session.execute(ended.execution_options(synchronize_session=False)).first() is not None


def _row(mail: NewMail, keyring: Keyring, now: datetime) -> dict[str, Any]:
    key_id = mail.key_id_of_content
    facts = {**mail.facts, ADDRESS_OVERRIDE: mail.to} if mail.to else dict(mail.facts)
    return {
        "id": mail_token(keyring, mail.key),
        "idempotency_key": mail.key,
        "kind": mail.kind,
        "key_id": key_id,
        "subscription_id": mail.subscription_id,
        "customer_id": mail.customer_id,
        "state": "withheld" if mail.withheld else "queued",
        "reason": mail.withheld,
        "facts": keyring.system_key(key_id).encrypt_json("mail.facts", facts),
        "attempts": 0,
        "created_at": now,
        "due_at": now if mail.has_address and not mail.withheld else None,
    }
