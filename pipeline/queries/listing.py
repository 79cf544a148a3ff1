"""Common parts of all lists: filter, order and limit, reading in chunks, and decryption of columns.

Lists are plain dicts in the JSON shapes of the command line, newest first. Times are ISO 8601 in UTC. Money is in minor
units, next to its currency. Null means unknown or erased. Related rows are loaded with one query per chunk.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from pipeline.clock import format_time
from pipeline.crypto.keyring import DataKey, Keyring
from pipeline.crypto.master_key import MasterKey
from pipeline.db.models import Base, Event, Mail, StatusHistoryEntry

CHUNK = 500  # rows in memory at a time, with their decrypted columns
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ListQuery:
    """Filter of a list: the value that each column must have (None: any), and the newest `limit` rows.

    `since`, `until`: at or after, and before this time. `conditions` are further SQL conditions.
    """

    where: Mapping[str, str | None]
    since: datetime | None = None
    limit: int | None = None
    conditions: Sequence[ColumnElement[bool]] = ()
    until: datetime | None = None


class Decryptor:
    """Loads data keys to decrypt columns; creates none. The master key is loaded when it is first needed."""

    def __init__(self, session: Session, master_key: Callable[[], MasterKey], now: datetime) -> None:
        self.session, self._master, self.now = session, master_key, now
        self._keyring: Keyring | None = None

    @property
    def keyring(self) -> Keyring:
        """The keyring. Loads the master key on first use."""
        self._keyring = self._keyring or Keyring(self._master(), self.session, self.now)
        return self._keyring

    def forget_keys(self) -> None:
        """Forget the loaded keys, so that a scan of all rows does not keep them all in memory."""
        self._keyring = None

    def data_keys(self, key_ids: Sequence[str]) -> Mapping[str, DataKey | None]:
        """Return the data keys of these key ids; an erased key is None, an unknown one None or absent."""
        if not key_ids:
            return {}
        return self.keyring.load(key_ids, create=False)


def count(session: Session, table: type[Base], at: Any, query: ListQuery) -> int:
    """Count the rows that match, ignoring the limit."""
    unlimited = replace(query, limit=None)
    statement = select(func.count()).select_from(table)
    return int(session.execute(matching(statement, table, at, unlimited, sort=False)).scalar_one())


def states(session: Session, table: type[Event] | type[Mail]) -> dict[str, int]:
    """Count the rows of a table by state."""
    return dict(session.execute(select(table.state, func.count()).group_by(table.state)).all())


def matching(statement: Any, table: type[Base], at: Any, query: ListQuery, *, sort: bool = True) -> Any:
    """Add the filter, order and limit of a list to its SELECT. `at` is the column of `since`, `until` and the order."""
    for name, value in query.where.items():
        if value is not None:
            statement = statement.where(getattr(table, name) == value)
    statement = statement.where(*query.conditions)
    if query.since is not None:
        statement = statement.where(at >= query.since)
    if query.until is not None:
        statement = statement.where(at < query.until)
    if sort:
        statement = statement.order_by(at.desc(), table.__table__.c.id)
    return statement if query.limit is None else statement.limit(query.limit)


def chunks(session: Session, statement: Any) -> Iterator[Sequence[Any]]:
    """Run a SELECT and yield its rows in chunks."""
    yield from session.execute(statement.execution_options(yield_per=CHUNK)).partitions()


def status_changes(session: Session, where: ColumnElement[bool]) -> list[Json]:
    """Return the status changes of subscriptions that match the condition, oldest first."""
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
