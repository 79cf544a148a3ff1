"""Checks of section 3: no data is older than its retention period."""

import gzip
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import ColumnElement, and_, exists, func, or_, select

from pipeline.db.models import AccessLogEntry, Customer, Payment, PrivacyRequest, RetentionRun, Subscription
from pipeline.policy.evidence import journald
from pipeline.policy.evidence.live_system import (
    Finding,
    LiveSystem,
    broken,
    broken_if,
    count_noun,
    holds,
    logs_in,
    not_applicable,
    not_looked_at,
)
from pipeline.policy.evidence.oldest_rows import GRACE, YEAR, overdue_classes

STORED_WITHIN = timedelta(days=30)  # a message that could not be stored is looked at by the operator
ACCESS_LOG = timedelta(days=90)  # the policy: "Server access logs are retained for 90 days."


def accounts(live: LiveSystem) -> Finding:
    """No account and no other class of data is kept longer than its period, and the retention run is recent."""
    limit = live.now - 2 * YEAR - GRACE
    old = or_(Customer.signed_up_at < limit, and_(Customer.signed_up_at.is_(None), Customer.created_at < limit))
    overdue = Customer.erased_at.is_(None), Customer.erase_at.is_(None), old, ~_has_recent(limit)
    if wrong := live.count(Customer, *overdue):
        return broken(f"{count_noun(wrong, 'account')} kept too long; run: smt-billing retention sweep")
    if old_classes := overdue_classes(live.session, live.now):
        listed = ", ".join(f"{name} (since {at:%Y-%m-%d})" for name, at in old_classes.items())
        return broken(f"kept too long: {listed}; run: smt-billing retention sweep")
    if files := _old_files(live):
        return broken(f"kept too long: {', '.join(str(path) for path in files[:5])}; delete them")
    last = live.session.execute(select(func.max(RetentionRun.at))).scalar_one_or_none()
    first = live.session.execute(select(func.min(Customer.created_at))).scalar_one_or_none()
    if first and first < live.now - GRACE and (last is None or last < live.now - GRACE):
        return broken(
            f"last retention run: {f'{last:%Y-%m-%d}' if last else 'never'}; run: smt-billing health scheduler"
        )
    last_day = f"{last:%Y-%m-%d}" if last else "none yet"
    return holds(f"0 of {count_noun(live.count(Customer), 'account')} overdue, last retention run {last_day}")


def _old_files(live: LiveSystem) -> list[Path]:
    """Return copies of the data and received messages that are older than the settings and the policy allow."""
    settings, found = live.settings, []
    if settings.backup_dir:
        copies = [path for path in sorted(settings.backup_dir.glob("*")) if path.is_file() and path.name[:8].isdigit()]
        # The newest copies stay, however old they are.
        for is_keys, days in ((True, settings.backup_keys_days), (False, settings.backup_days)):
            of_kind = [path for path in copies if (".keys." in path.name) is is_keys]
            newest = max((path.name[:16] for path in of_kind), default="")
            limit = f"{live.now - timedelta(days=days) - GRACE:%Y%m%dT%H%M%SZ}"
            found += [path for path in of_kind if path.name[:16] < min(limit, newest)]
    if settings.inbound_maildir:
        oldest = (live.now - STORED_WITHIN).timestamp()
        messages = [path for name in ("cur", "failed") for path in sorted((settings.inbound_maildir / name).glob("*"))]
        found += [path for path in messages if path.lstat().st_mtime < oldest]
    return found


def deletions(live: LiveSystem) -> Finding:
    """No requested deletion is late."""
    late = live.now - GRACE
    requested = (
        PrivacyRequest.kind.in_(("erase", "child")),
        PrivacyRequest.waiting_ends_at < late,
        PrivacyRequest.done_at.is_(None),
    )
    waiting = Customer.erase_at < late, Customer.erased_at.is_(None)
    wrong = max(live.count(PrivacyRequest, *requested), live.count(Customer, *waiting))
    total = count_noun(live.count(PrivacyRequest, PrivacyRequest.kind == "erase"), "deletion")
    return broken_if(wrong, f"{total} requested, 0 late", f"{count_noun(wrong, 'deletion')} late")


def logs(live: LiveSystem) -> Finding:
    """No access log entry, log file or relay log line is older than the period, and journald keeps entries no longer."""
    oldest = live.session.execute(select(func.min(AccessLogEntry.at))).scalar_one_or_none()
    limit = live.now - ACCESS_LOG - GRACE
    if oldest and oldest < limit:
        return broken(f"the access log goes back to {oldest:%Y-%m-%d}")
    files = _log_files(live)
    if late := [path for path in files if _first_date(path, live.now) < limit]:
        return broken(f"kept too long: {', '.join(str(path) for path in late)}")
    journal, problem = _journal(live)
    if problem:
        return broken(problem)
    if oldest is None and not files and live.journal is None:
        return not_applicable(f"no access log and no log file here, and {journal}")
    since = f"access log since {oldest:%Y-%m-%d}" if oldest else "no visits yet"
    figure = f"{since}, {count_noun(len(files), 'log file')}; {journal}"
    unseen = _logs_elsewhere(live)
    return not_looked_at(f"{figure}; not looked at: {', '.join(unseen)}") if unseen else holds(figure)


def _logs_elsewhere(live: LiveSystem) -> list[str]:
    """Return the logs of other servers that exist, but that no setting names."""
    unseen = []
    if live.settings.smtp_url and live.settings.relay_log is None:
        unseen.append("the relay's log (set SMT_RELAY_LOG)")
    if live.settings.public_url.startswith("https://") and live.settings.proxy_log is None:
        unseen.append("the web server's access log (set SMT_PROXY_LOG)")
    return unseen


def _journal(live: LiveSystem) -> tuple[str, str]:
    """Return how long journald keeps entries, and the problem with that or ""."""
    if live.journal is None:
        return "journald does not run here", ""
    advice = f"set MaxRetentionSec={ACCESS_LOG.days}day and a MaxFileSec that is not longer, in /etc/systemd/journald.conf.d/"
    try:
        period = live.journal()
    except journald.JournaldSettingsError as error:
        return "", f"journald runs here, and its settings cannot be read: {error}"
    if period is None:
        return "", f"journald keeps logs without a time limit; {advice}"
    keeps = f"journald keeps {period.days} days"
    return keeps, f"{keeps}; {advice}" if period > ACCESS_LOG else ""


def _has_recent(limit: datetime) -> ColumnElement[bool]:
    """Return whether a subscription is active, or was paid, created or changed after the limit."""
    paid = exists().where(Payment.subscription_id == Subscription.id, Payment.occurred_at >= limit)
    times = (Subscription.status_at, Subscription.paid_through, Subscription.created_at)
    recent = [func.coalesce(column >= limit, False) for column in times]
    active = func.coalesce(Subscription.status == "ACTIVE", False)
    return exists().where(Subscription.customer_id == Customer.id, or_(active, paid, *recent))


def _log_files(live: LiveSystem) -> list[Path]:
    """Return the log files in the data folder, and the relay's log with its rotated files."""
    found = logs_in(live.settings.data_dir)
    named = filter(None, (live.settings.relay_log, live.settings.proxy_log))
    return found + [path for log in named for path in sorted(log.parent.glob(f"{log.name}*"))]


def _first_date(path: Path, now: datetime) -> datetime:
    """Return the date of a log's first line in Postfix's format (`Mar  1 …`) ISO format or
    the common log format of web servers, otherwise its last change."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            line = file.readline(400).decode("utf-8", "replace")
        changed = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except (OSError, EOFError):
        return now
    return _date_of(line, changed) or changed


def _date_of(line: str, changed: datetime) -> datetime | None:
    in_brackets = line.partition("[")[2][:11]  # the common log format of web servers: [01/Mar/2026:10:00:00 +0000]
    for text, form in ((line[:10], "%Y-%m-%d"), (f"{line[:6]} {changed.year}", "%b %d %Y"), (in_brackets, "%d/%b/%Y")):
        try:
            found = datetime.strptime(text, form).replace(tzinfo=UTC)
        except ValueError:
            continue
        return found if found <= changed + GRACE else found.replace(year=found.year - 1)
    return None
