"""Check the database: whether it answers, its tables, its keys, its clock, and what in it waits for a person."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from pipeline.app.container import Container
from pipeline.app.doctor.result import CheckResult
from pipeline.crypto.master_key import MasterKeyError, open_master_key
from pipeline.db import migrations
from pipeline.db.engine import DatabaseUnavailableError, exists
from pipeline.db.models import EncryptionKey, Event, Mail
from pipeline.queries import listing

DRIFT = timedelta(seconds=5)  # between this machine's clock and the database's; beyond it news looks old or early
BUILT = datetime(2026, 1, 1, tzinfo=UTC)  # a clock that stands before this program was written is wrong


def check_database(container: Container) -> Iterator[CheckResult]:
    """The database, and what can be seen in it."""
    if not exists(container.settings.database):
        yield CheckResult(
            "database", "fail", f"{container.settings.database}: not made yet", "run: smt-billing db upgrade"
        )
        return
    try:
        database = container.database
        revision, newest = migrations.current(database), migrations.newest()
        where = database.url.render_as_string(hide_password=True)
        if revision != newest:
            yield CheckResult(
                "database",
                "fail",
                f"{where}: revision {revision or 'none'}, not {newest}",
                "run: smt-billing db upgrade",
            )
            return
        yield CheckResult("database", "ok", f"{where}, revision {revision}")
        with database.reading() as session:
            for check in (_keys_open, _clock, _events, _mails):
                yield check(container, session)
    except DatabaseUnavailableError as error:
        yield CheckResult("database", "fail", str(error), "check SMT_DATABASE_URL and that the server runs")


def _keys_open(container: Container, session: Session) -> CheckResult:
    row = session.execute(
        select(EncryptionKey.key_id, EncryptionKey.wrapped_key).where(EncryptionKey.wrapped_key.is_not(None)).limit(1)
    ).one_or_none()
    if row is None:
        return CheckResult("sealed data", "ok", "nothing is sealed yet")
    try:
        open_master_key(container.settings.master_key, create=False).unwrap(row.key_id, row.wrapped_key)
    except MasterKeyError as error:
        return CheckResult(
            "sealed data", "fail", str(error), "SMT_MASTER_KEY_FILE must name the key this database began with"
        )
    return CheckResult("sealed data", "ok", "opens with the master key")


def _clock(container: Container, session: Session) -> CheckResult:
    now = container.clock.now()
    if now < BUILT:
        return CheckResult(
            "clock", "fail", f"it is {now:%Y-%m-%d} here", "set the machine's clock, and keep it right with NTP"
        )
    if session.get_bind().dialect.name == "postgresql":
        drift = now - session.execute(text("SELECT clock_timestamp()")).scalar_one()
        beside = "the database's clock"
    else:
        newest: datetime | None = session.execute(select(func.max(Event.received_at))).scalar_one()
        drift, beside = min(timedelta(0), now - newest) if newest else timedelta(0), "the newest event's"
    seconds = drift.total_seconds()
    if abs(drift) > DRIFT:
        return CheckResult(
            "clock", "warn", f"{seconds:+.0f} s beside {beside}", "keep both machines' clocks right with NTP"
        )
    return CheckResult("clock", "ok", f"{now:%Y-%m-%d %H:%M:%S} UTC")


def _events(_: Container, session: Session) -> CheckResult:
    parked = listing.states(session, Event).get("parked", 0)
    if parked:
        return CheckResult("events", "warn", f"{parked:,} parked", "see: smt-billing parked list")
    return CheckResult("events", "ok", "none parked")


def _mails(_: Container, session: Session) -> CheckResult:
    found = listing.states(session, Mail)
    if doubt := found.get("doubt", 0):
        return CheckResult(
            "mails", "warn", f"{doubt:,} in doubt", "see: smt-billing mail list --state doubt, then mail settle"
        )
    if failed := found.get("failed", 0):
        return CheckResult("mails", "warn", f"{failed:,} failed", "see: smt-billing mail list --state failed")
    return CheckResult("mails", "ok", f"{found.get('queued', 0):,} queued, none in doubt, none failed")
