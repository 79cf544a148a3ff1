"""Questions owed to PayPal: asked outside any transaction, answered through the inbox like everything else."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

import structlog
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from pipeline.clock import Clock
from pipeline.crypto.keyring import Keyring
from pipeline.crypto.master_key import MasterKey
from pipeline.db.bulk import insert_new
from pipeline.db.engine import Database
from pipeline.db.models import PaypalLookup
from pipeline.inbox import store as inbox
from pipeline.inbox.event import ReadKind
from pipeline.inbox.parsing import read_answer, split
from pipeline.paypal.errors import NotFound, Rejected, Unavailable

log = structlog.get_logger(__name__)

LEASE = timedelta(minutes=2)  # longer than a call's time-outs: another worker may ask after that
CREDENTIALS = (401, 403)  # refusals that say nothing of the object: somebody will put the credentials right
# PayPal asks not to be polled; a question that fails is asked again after these, then daily.
DELAYS = (timedelta(minutes=1), timedelta(minutes=5), timedelta(minutes=30), timedelta(hours=3), timedelta(days=1))


@dataclass(frozen=True, slots=True)
class Wanted:
    """PayPal is to be asked for this object, not before `due_at`."""

    kind: ReadKind
    id: str
    due_at: datetime


class Source(Protocol):
    """PayPal's API, as far as it is read."""

    def read(self, kind: ReadKind, id: str) -> dict[str, Any]: ...


def owe(session: Session, wanted: Sequence[Wanted]) -> None:
    """Note these questions; one that is already noted stays as it was."""
    rows = [
        {"kind": kind, "id": id, "due_at": due_at, "attempts": 0}
        for (kind, id), due_at in {(want.kind, want.id): want.due_at for want in wanted}.items()
    ]
    insert_new(session, PaypalLookup, rows, returning=PaypalLookup.id)


def unknown_to_paypal(session: Session, kind: str, id: str) -> bool:
    """Whether PayPal has answered that it knows no such object."""
    row = session.get(PaypalLookup, (kind, id))
    return row is not None and row.due_at is None


def is_owed(session: Session, kind: str, id: str) -> bool:
    """Whether this question still waits for its answer."""
    return session.get(PaypalLookup, (kind, id)) is not None


def forget(session: Session, kind: str, id: str) -> None:
    """Let go of a question, so that it is asked anew when somebody needs it again."""
    session.execute(delete(PaypalLookup).where(PaypalLookup.kind == kind, PaypalLookup.id == id))


def ask_due(database: Database, master: MasterKey, clock: Clock, paypal: Source, limit: int = 20) -> list[str]:
    """Ask what is due. Returns the ids of the events that the answers became."""
    with database.transaction() as session:
        rows = _take(session, clock.now(), limit)
    answered: list[str] = []
    for kind, id, attempts in rows:
        answered += _ask(database, master, clock, paypal, kind, id, attempts)
    return answered


def _take(session: Session, now: datetime, limit: int) -> list[tuple[ReadKind, str, int]]:
    due = (
        select(PaypalLookup)
        .where(PaypalLookup.due_at <= now)
        .order_by(PaypalLookup.due_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    rows = list(session.execute(due).scalars())
    for row in rows:
        row.due_at = now + LEASE
    return [(row.kind, row.id, row.attempts) for row in rows]  # type: ignore[misc]


def _ask(
    database: Database, master: MasterKey, clock: Clock, paypal: Source, kind: ReadKind, id: str, attempts: int
) -> list[str]:
    try:
        answer = paypal.read(kind, id)
    except (NotFound, Rejected) as error:
        if isinstance(error, Rejected) and error.status in CREDENTIALS:
            _ask_again(database, kind, id, attempts, clock.now(), str(error))
        else:
            _give_up(database, kind, id, str(error))
    except Unavailable as error:
        _ask_again(database, kind, id, attempts, clock.now(), str(error))
    else:
        return _take_in(database, master, clock, kind, id, answer)
    return []


def _take_in(
    database: Database, master: MasterKey, clock: Clock, kind: ReadKind, id: str, answer: dict[str, Any]
) -> list[str]:
    now = clock.now()
    delivery = inbox.Delivery(split(read_answer(kind, answer, now)), "read", "read from PayPal's API")
    with database.transaction() as session:
        stored = inbox.store(session, Keyring(master, session, now), [delivery], now)
        forget(session, kind, id)
        woken = inbox.wake(session, waiting_for(kind, id), now + timedelta(seconds=1))
    log.info("read", kind=kind, id=id, outcome=stored[0].outcome, woken=woken)
    return [item.event_id for item in stored if item.publish]


def waiting_for(kind: str, id: str) -> str:
    """The reason that an event shows while it waits for this answer."""
    return f"waits for {kind} {id} from PayPal"


def _give_up(database: Database, kind: str, id: str, reason: str) -> None:
    log.warning("read_refused", kind=kind, id=id, reason=reason)
    with database.transaction() as session:
        _set(session, kind, id, due_at=None, reason=reason)


def _ask_again(database: Database, kind: str, id: str, attempts: int, now: datetime, reason: str) -> None:
    log.warning("read_failed", kind=kind, id=id, reason=reason)
    due_at = now + DELAYS[min(attempts, len(DELAYS) - 1)]
    with database.transaction() as session:
        _set(session, kind, id, due_at=due_at, attempts=attempts + 1, reason=reason)


def _set(session: Session, kind: str, id: str, **values: Any) -> None:
    session.execute(update(PaypalLookup).where(PaypalLookup.kind == kind, PaypalLookup.id == id).values(**values))
