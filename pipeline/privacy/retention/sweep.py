"""The retention run: applies the rules of `rules`, or counts what is due (dry run).

The scheduler runs it hourly. A run is recorded if it deleted something, otherwise once a day. To find overdue data, call
`due_counts` for a time in the past: `due_counts(session, now - EVERY, country)`.
"""

from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from pipeline.db.engine import Database
from pipeline.db.models import RetentionRun
from pipeline.privacy.retention.rules import RULES, Rule

EVERY = timedelta(days=1)  # a run without deletions is recorded this often
BATCH = 500  # rows per transaction


def due_counts(session: Session, now: datetime, country: str) -> dict[str, int]:
    """Return rule name -> number of rows due now, with all rules. Changes nothing."""
    return {rule.name: _count(session, rule, now, country) for rule in RULES}


def apply_retention(
    database: Database,
    now: datetime,
    country: str,
    dry: bool = False,
    *,
    erase: Callable[[str], bool] = lambda _: False,
) -> dict[str, int]:
    """Delete or erase what is due, and return rule name -> number of rows.

    `erase` erases a customer or subscription by id and returns False if it has to wait. Raises DatabaseUnavailableError.
    """
    if dry:
        with database.reading() as session:
            return due_counts(session, now, country)
    counts = {rule.name: _apply(database, rule, now, country, erase) for rule in RULES}
    with database.transaction() as session:
        last = _last_run(session)
        if any(counts.values()) or last is None or last <= now - EVERY:
            session.add(RetentionRun(at=now, counts={name: count for name, count in counts.items() if count}))
    if any(counts.values()):
        database.truncate_wal()
    return counts


def _last_run(session: Session) -> datetime | None:
    return session.execute(select(func.max(RetentionRun.at))).scalar_one()


def _count(session: Session, rule: Rule, now: datetime, country: str) -> int:
    return session.execute(select(func.count()).select_from(rule.find(now, country).subquery())).scalar_one()


def _apply(database: Database, rule: Rule, now: datetime, country: str, erase: Callable[[str], bool]) -> int:
    if rule.end is None:
        with database.reading() as session:
            ids = list(session.execute(rule.find(now, country)).scalars())
        return sum(erase(id) for id in ids)
    done = 0
    while True:
        with database.transaction() as session:
            ids = list(session.execute(rule.find(now, country).limit(BATCH)).scalars())
            if ids:
                rule.end(session, ids, now)
        done += len(ids)
        if len(ids) < BATCH:
            return done
