"""Check the database: its tables, keys and clock, and the unfinished work that it contains."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from pipeline.app.container import Container
from pipeline.app.doctor.result import CheckResult
from pipeline.app.doctor.unfinished_checks import check_unfinished
from pipeline.crypto.master_key import MasterKeyError, open_master_key
from pipeline.db import migrations
from pipeline.db.engine import DatabaseUnavailableError, exists, file_of
from pipeline.db.models import EncryptionKey, Event, InboundMail
from pipeline.inbound_mail import mailbox
from pipeline.inbound_mail.mailbox import MessageQuery

DRIFT = timedelta(seconds=5)  # largest difference between the clocks of this machine and the database
BUILT = datetime(2026, 1, 1, tzinfo=UTC)  # this program is newer, so an earlier time is wrong


def check_database(container: Container) -> Iterator[CheckResult]:
    """Check the database and its content. Stops at the first problem that makes the other checks impossible."""
    if not exists(container.settings.database):
        yield _without_tables(container, f"{container.settings.database} does not exist")
        return
    try:
        database = container.database
        revision, newest = migrations.current(database), migrations.newest()
        where = database.url.render_as_string(hide_password=True)
        if revision is None:
            yield _without_tables(container, f"{where} has no tables")
            return
        if revision != newest:
            yield CheckResult(
                "database",
                "fail",
                f"{where}: the tables have revision {revision}, but this version needs {newest}",
                "run: smt-billing db upgrade",
            )
            return
        yield CheckResult("database", "ok", f"{where}, revision {revision}")
        with database.reading() as session:
            if not database.is_sqlite:
                yield _check_database_role(session)
            yield _check_encrypted_data(container, session)
            yield _check_clock(container, session)
            yield from check_unfinished(container, session)
            yield _check_inbound_mail(container, session)
    except DatabaseUnavailableError as error:
        yield CheckResult("database", "fail", str(error), _repair(container.settings.database))


def _repair(url: str) -> str:
    """Return what to do if the database does not answer: a server may be down, a SQLite file damaged or in use."""
    file = file_of(url)
    if file is None:
        return "check SMT_DATABASE_URL and that the server runs"
    return (
        f"check {file.absolute()}: its owner, its permissions, and that the disk is not full; if the file is damaged, "
        "restore the newest copy: smt-billing backup restore"
    )


def _check_database_role(session: Session) -> CheckResult:
    is_superuser = "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"
    if session.execute(text(is_superuser)).scalar_one():
        return CheckResult(
            "database role",
            "warn",
            "the program logs in as a superuser, which can read files and start programs on the server",
            "set SMT_DATABASE_URL to a role that only owns the database; see docs/operations.md#database-role",
        )
    return CheckResult("database role", "ok", "is no superuser")


def _without_tables(container: Container, found: str) -> CheckResult:
    """Return a warning for a new installation, which has no master key either. Otherwise the database has been lost."""
    if container.settings.master_key.exists():
        advice = "check SMT_DATABASE_URL, restore a backup, or for an empty database run: smt-billing db upgrade"
        return CheckResult("database", "fail", f"{found}, but the master key does exist", advice)
    advice = "smt-billing run creates the tables; before separate roles, run: smt-billing db upgrade"
    return CheckResult("database", "warn", f"{found} yet", advice)


def _check_encrypted_data(container: Container, session: Session) -> CheckResult:
    row = session.execute(
        select(EncryptionKey.key_id, EncryptionKey.wrapped_key).where(EncryptionKey.wrapped_key.is_not(None)).limit(1)
    ).one_or_none()
    if row is None:
        return CheckResult("encrypted data", "ok", "there is no encrypted data yet")
    try:
        open_master_key(container.settings.master_key, create=False).unwrap(row.key_id, row.wrapped_key)
    except MasterKeyError as error:
        return CheckResult(
            "encrypted data", "fail", str(error), "set SMT_MASTER_KEY_FILE to the master key of this database"
        )
    return CheckResult("encrypted data", "ok", "can be decrypted with the master key")


def _check_clock(container: Container, session: Session) -> CheckResult:
    now = container.clock.now()
    if now < BUILT:
        return CheckResult(
            "clock",
            "fail",
            f"this machine's date is {now:%Y-%m-%d}",
            "set the clock, and synchronize it with NTP",
        )
    if session.get_bind().dialect.name == "postgresql":
        drift = now - session.execute(text("SELECT clock_timestamp()")).scalar_one()
        reference = "the database's clock"
    else:
        newest: datetime | None = session.execute(select(func.max(Event.received_at))).scalar_one()
        drift, reference = min(timedelta(0), now - newest) if newest else timedelta(0), "the newest event's time"
    seconds = drift.total_seconds()
    if abs(drift) > DRIFT:
        return CheckResult(
            "clock",
            "warn",
            f"this machine's clock differs from {reference} by {seconds:+.0f} s",
            "synchronize the clocks of both machines with NTP",
        )
    return CheckResult("clock", "ok", f"{now:%Y-%m-%d %H:%M:%S} UTC")


def _check_inbound_mail(container: Container, session: Session) -> CheckResult:
    """Check that the operator gets a mail about messages, if mail is filed from a Maildir or was filed from a pipe."""
    settings = container.settings
    is_used = settings.inbound_maildir or session.execute(select(InboundMail.id).limit(1)).first()
    if is_used and not settings.operator_email:
        return CheckResult(
            "inbound mail",
            "warn",
            "messages are filed, but no one is notified",
            "set SMT_OPERATOR_EMAIL to your address",
        )
    waiting = mailbox.count(session, MessageQuery(only_open=True))
    advice = "see: smt-billing inbound list --open" if waiting else ""
    return CheckResult("inbound mail", "ok", f"{waiting:,} open messages", advice)
