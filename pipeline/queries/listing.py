"""What all lists share: how they are asked for, how rows are read in chunks, and how encrypted columns are decrypted.

The lists are plain dicts in the JSON shapes that the command line promises, newest first. Times are ISO 8601 in UTC, money
is in minor units next to its currency, null means unknown. Encrypted values are decrypted where their key still exists; an
erased person leaves nulls. Rows come in chunks, with one query per chunk for the rows that belong to them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from pipeline.clock import format_time
from pipeline.crypto.keyring import DataKey, Keyring
from pipeline.crypto.master_key import MasterKey
from pipeline.db.models import Base, Event, Mail, StatusHistoryEntry

CHUNK = 500  # rows that are in memory together with their decrypted columns
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ListQuery:
    """Which rows a list shows: the value that each column must have, no older than `since`, the newest `limit`."""

    where: Mapping[str, str | None]
    since: datetime | None = None
    limit: int | None = None


class Decryptor:
    """Opens what is sealed, with the keys there are; makes none. `master` is asked for when there is need of it."""

    def __init__(self, session: Session, master_key: Callable[[], MasterKey], now: datetime) -> None:
        self.session, self._master, self._now = session, master_key, now
        self._keyring: Keyring | None = None

    @property
    def keyring(self) -> Keyring:
        """The keys themselves; asking for it takes the master key."""
        self._keyring = self._keyring or Keyring(self._master(), self.session, self._now)
        return self._keyring

    def data_keys(self, labels: Sequence[str]) -> Mapping[str, DataKey | None]:
        """The seals of these labels; an erased or unknown one is None or absent."""
        if not labels:
            return {}
        return self.keyring.load(labels, create=False)


def count(session: Session, table: type[Base], at: Any, asked: ListQuery) -> int:
    """How many rows there are of what is asked for, whatever the limit."""
    everything = ListQuery(asked.where, asked.since)
    statement = select(func.count()).select_from(table)
    return int(session.execute(matching(statement, table, at, everything, sort=False)).scalar_one())


def states(session: Session, table: type[Event] | type[Mail]) -> dict[str, int]:
    """Count the rows of a table by state."""
    return dict(session.execute(select(table.state, func.count()).group_by(table.state)).all())


def matching(statement: Any, table: type[Base], at: Any, asked: ListQuery, *, sort: bool = True) -> Any:
    """Add the conditions, the order and the limit of a list to its SELECT."""
    for name, value in asked.where.items():
        if value is not None:
            statement = statement.where(getattr(table, name) == value)
    if asked.since is not None:
        statement = statement.where(at >= asked.since)
    if sort:
        statement = statement.order_by(at.desc(), table.__table__.c.id)
    return statement if asked.limit is None else statement.limit(asked.limit)


def chunks(session: Session, statement: Any) -> Iterator[Sequence[Any]]:
    """Run a SELECT and yield its rows in chunks."""
    yield from session.execute(statement.execution_options(yield_per=CHUNK)).partitions()


def status_changes(session: Session, where: ColumnElement[bool]) -> list[Json]:
    """The status changes of subscriptions that meet the condition, oldest first."""
    rows = session.execute(select(StatusHistoryEntry).where(where).order_by(StatusHistoryEntry.id)).scalars()
    return [
        {
            "subscription": row.subscription_id,
            "at": format_time(row.at),
            "old": row.old_status,
            "new": row.new_status,
            "reason": row.reason,
            "event": row.event_id,
        }
        for row in rows
    ]
