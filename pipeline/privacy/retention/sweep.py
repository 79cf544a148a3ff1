"""The sweep that keeps the periods of `rules`: repeatable, with a record of what was done, or dry.

It comes every hour, and is noted when it ended something, else once a day.

What is due at a moment a day ago and still there is overdue: `due(session, now - EVERY, country)` is the check of it.
"""

from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from pipeline.db.engine import Database
from pipeline.db.models import RetentionRun
from pipeline.privacy.retention.rules import RULES, Rule

EVERY = timedelta(days=1)
AT_ONCE = 500  # rows of one transaction


def due_counts(session: Session, now: datetime, country: str) -> dict[str, int]:
    """How many rows each rule would end now; rules with nothing to do too. Changes nothing."""
    return {rule.name: _count(session, rule, now, country) for rule in RULES}


def apply_retention(
    database: Database,
    now: datetime,
    country: str,
    dry: bool = False,
    *,
    erase: Callable[[str], bool] = lambda _: False,
) -> dict[str, int]:
    """End what is due and return rule -> rows. `erase` erases a person by id; False if that has to wait.

    Raises DatabaseUnavailableError.
    """
    if dry:
        with database.reading() as session:
            return due_counts(session, now, country)
    counts = {rule.name: _end(database, rule, now, country, erase) for rule in RULES}
    with database.transaction() as session:
        last = _last(session)
        if any(counts.values()) or last is None or last <= now - EVERY:
            session.add(RetentionRun(at=now, counts={name: count for name, count in counts.items() if count}))
    if any(counts.values()):
        database.truncate_wal()
    return counts


def _last(session: Session) -> datetime | None:
    return session.execute(select(func.max(RetentionRun.at))).scalar_one()


def _count(session: Session, rule: Rule, now: datetime, country: str) -> int:
    return session.execute(select(func.count()).select_from(rule.find(now, country).subquery())).scalar_one()


def _end(database: Database, rule: Rule, now: datetime, country: str, erase: Callable[[str], bool]) -> int:
    if rule.end is None:
        with database.reading() as session:
            ids = list(session.execute(rule.find(now, country)).scalars())
        return sum(erase(id) for id in ids)
    ended = 0
    while True:
        with database.transaction() as session:
            ids = list(session.execute(rule.find(now, country).limit(AT_ONCE)).scalars())
            if ids:
                rule.end(session, ids, now)
        ended += len(ids)
        if len(ids) < AT_ONCE:
            return ended
