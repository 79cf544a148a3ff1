"""Resolve mails in doubt from Postfix's log.

A mail is in doubt if the connection was lost after its text, or if the mailer died. Postfix logs each message that it
has queued: a line of `qmgr` contains the envelope sender, which is unique for each mail. A line of `cleanup` with the
Message-ID proves only that the text began to arrive, because Postfix also logs it for messages that it discards.

A mail with a `qmgr` line was sent. A mail without one was not sent, if two conditions hold:

- The log is complete from before the attempt until now; a probe of the relay writes its last line.
- No SMTP session is still processing the mail, for example in a slow content filter.

Otherwise the mail stays in doubt until the next run or a manual decision.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from pipeline.clock import Clock
from pipeline.db.engine import Database
from pipeline.db.models import Mail
from pipeline.outbox import store as outbox

log = structlog.get_logger(__name__)

SLACK = timedelta(seconds=2)  # the log's times are whole seconds, so a line's time may differ from the attempt's
LIMIT = 500  # mails in doubt per run
MAX_FILTER_TIME = timedelta(
    minutes=10
)  # a content filter cannot hold a mail for longer: Postfix's timeouts for filters are five minutes

_ACCEPTED = re.compile(r"postfix[^ ]*/qmgr\[\d+\]: [0-9A-Za-z]+: from=<([^>]+)>,.*\(queue active\)")
_STARTED = re.compile(r"postfix[^ ]*/master\[\d+\]: daemon started")
_RECEIVING = re.compile(r"postfix[^ ]*/smtpd\[(\d+)\]: ([0-9A-Za-z]+): client=")
_MESSAGE_ID = re.compile(r"postfix[^ ]*/cleanup\[\d+\]: ([0-9A-Za-z]+): message-id=<(\w+)@")
_QUEUED = re.compile(r"postfix[^ ]*/qmgr\[\d+\]: ([0-9A-Za-z]+): from=")
_NEXT_STEP = re.compile(
    r"postfix[^ ]*/smtpd\[(\d+)\]: (?:[0-9A-Za-z]+: client=|disconnect from|lost connection|timeout after)"
)
# Messages of rsyslog and journald which report that lines are missing.
_DROPPED = re.compile(r"(?:lost|dropped|discarded|Suppressed) \d+ messages")
_NEVER = datetime(1970, 1, 1, tzinfo=UTC)
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\S+)|([A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d) ")


class _SmtpSession(NamedTuple):
    """A mail that Postfix is receiving: the start time, and the mail id if it is already logged, else ""."""

    since: datetime
    mail_id: str


class RelayLog:
    """Postfix's log: the current file and its rotated files that are not compressed."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path, self._clock = path, clock

    def can_be_read(self) -> bool:
        """Return whether at least one file exists and is readable."""
        return any(os.access(file, os.R_OK) for file in self._files())

    def is_complete(self, since: datetime, until: datetime) -> bool:
        """Return whether the log has every line from SLACK before `since` until `until`."""
        begins = self.complete_since(until)
        return begins is not None and begins <= since - SLACK

    def complete_since(self, until: datetime) -> datetime | None:
        """Return the time from which the log has every line until `until`.

        None if the log ends earlier or cannot be read.
        """
        try:
            times = [moment for line in self._edges() if (moment := self._time(line))]
        except OSError as error:
            log.warning("relay_log_read_failed", path=str(self._path), reason=error.strerror)
            return None
        return times[-2] if len(times) > 1 and times[-1] >= until - SLACK else None

    def queued_senders(self, senders: Iterable[str]) -> set[str]:
        """Return those of these envelope senders whose mail the relay has queued."""
        wanted = set(senders)
        accepted = (match[1] for line in self._lines() if (match := _ACCEPTED.search(line)))
        return {sender for sender in accepted if sender in wanted}

    def open_sessions(self, now: datetime) -> list[_SmtpSession]:
        """Return the mails that the relay has begun to receive and, by its log, neither queued nor discarded.

        The session's next mail, or its end, shows that it is done with a mail. If the queue manager has not logged that
        mail DOUBT_GRACE later, it was discarded.
        """
        sessions: dict[str, str] = {}  # smtpd process -> queue id
        since: dict[str, datetime] = {}  # queue id -> start time
        mail_ids: dict[str, str] = {}  # queue id -> mail id
        for line in self._lines():  # the lines of one process are in order, those of several processes not always
            if message_id := _MESSAGE_ID.search(line):
                mail_ids[message_id[1]] = message_id[2]
            elif queued := _QUEUED.search(line):
                since.pop(queued[1], None)
            elif (step := _NEXT_STEP.search(line)) and (self._time(line) or now) <= now - outbox.DOUBT_GRACE:
                since.pop(sessions.pop(step[1], ""), None)
            elif _STARTED.search(line):
                since.clear()
            if receiving := _RECEIVING.search(line):
                sessions[receiving[1]] = receiving[2]
                since[receiving[2]] = self._time(line) or now
        return [_SmtpSession(at, mail_ids.get(queue_id, "")) for queue_id, at in since.items()]

    def started_at(self, now: datetime) -> datetime:
        """Return the last start of the relay before `now`; 1970 if the log contains none."""
        times = [moment for line in self._lines() if _STARTED.search(line) and (moment := self._time(line))]
        return max((moment for moment in times if moment <= now), default=_NEVER)

    def _files(self) -> list[Path]:
        compressed = (".gz", ".xz", ".bz2", ".zst")
        files = self._path.parent.glob(f"{self._path.name}*")
        return sorted((file for file in files if file.suffix not in compressed), key=lambda file: file.stat().st_mtime)

    def _lines(self) -> Iterator[str]:
        for file in self._files():
            with file.open(encoding="utf-8", errors="replace") as lines:
                yield from lines

    def _edges(self) -> list[str]:
        """Return the first line after which none is missing, and the last line."""
        first = last = ""
        for last in self._lines():
            if not first or _DROPPED.search(last):
                first = last
        return [first, last]

    def _time(self, line: str) -> datetime | None:
        """Return a line's time: ISO 8601, or the traditional format in local time without a year."""
        match = _TIME.match(line)
        if match is None:
            return None
        now = self._clock.now()
        if match[1]:
            return _parse_time(match[1])
        this_year = now.astimezone().year  # the latest year that does not put the line into the future
        candidates = (_parse_time(match[2], year) for year in (this_year, this_year - 1))
        return next((moment for moment in candidates if moment and moment <= now + timedelta(days=1)), None)


def _parse_time(text: str, year: int | None = None) -> datetime | None:
    """Parse ISO 8601, or with `year` the traditional format. None if it is invalid, as 29 February in most years."""
    try:
        if year is None:
            return datetime.fromisoformat(text).astimezone(UTC)
        return datetime.strptime(f"{year} {text}", "%Y %b %d %H:%M:%S").astimezone(UTC)
    except ValueError:
        return None


def resolve_doubts(
    database: Database, clock: Clock, relay_log: RelayLog, probe: Callable[[], object], domain: str
) -> int:
    """Set mails in doubt to `sent` or `queued` where the log proves it. Return how many.

    `probe` connects to the relay, so that the relay writes a line at the end of its log. It raises if the relay does not
    answer; then no mail is resolved.
    """
    with database.reading() as session:
        doubts = _doubts(session, clock.now())
    if not doubts:
        return 0
    probed_at = clock.now()
    probe()
    resolver = DoubtResolver(relay_log, probed_at, [envelope_sender_of(doubt.id, domain) for doubt in doubts])
    results = [(doubt, resolver.was_sent(doubt, envelope_sender_of(doubt.id, domain))) for doubt in doubts]
    resolved = [(doubt, sent) for doubt, sent in results if sent is not None]
    with database.transaction() as session:
        for doubt, sent in resolved:
            outbox.resolve_doubt(session, doubt.id, clock.now(), sent=sent, by="relay's log", tried_at=doubt.claimed_at)
    if gaps := sum(resolver.has_gap(doubt) for doubt, sent in results if sent is None):
        log.warning("relay_log_gap_found", doubts=gaps)
    if resolved:
        sent_count = sum(sent for _, sent in resolved)
        log.info("doubts_resolved", sent=sent_count, queued_again=len(resolved) - sent_count)
    return len(resolved)


class DoubtResolver:
    """Decides from one reading of the log whether mails in doubt were sent."""

    def __init__(self, relay_log: RelayLog, now: datetime, senders: Sequence[str]) -> None:
        before = relay_log.complete_since(now)
        self._accepted, self._unfinished = relay_log.queued_senders(senders), relay_log.open_sessions(now)
        after = relay_log.complete_since(now)  # later than `before` if a file was compressed in between
        self._begins = max(before, after) if before and after else None
        # A relay that has just started may not have logged yet what it had queued before.
        self._relay_is_ready = relay_log.started_at(now) <= now - outbox.DOUBT_GRACE
        self._now = now

    def was_sent(self, doubt: "_Doubt", sender: str) -> bool | None:
        """Return whether the mail was sent; None if the log does not prove it yet.

        One line proves that the relay accepted the mail. Only a complete log proves that it did not.
        """
        if sender in self._accepted:
            return True
        return None if self._may_be_in_progress(doubt) or self.has_gap(doubt) or not self._relay_is_ready else False

    def _may_be_in_progress(self, doubt: "_Doubt") -> bool:
        """Return whether the relay may still be receiving the mail.

        Postfix logs the Message-ID late, so a session without one may belong to this mail.
        """
        unidentified = (each.since for each in self._unfinished if not each.mail_id)
        earliest, latest = doubt.claimed_at - SLACK, self._now - outbox.DOUBT_GRACE
        is_unfinished = doubt.id in {each.mail_id for each in self._unfinished} or any(
            earliest <= at <= latest for at in unidentified
        )
        return is_unfinished and doubt.claimed_at > self._now - MAX_FILTER_TIME

    def has_gap(self, doubt: "_Doubt") -> bool:
        """Return whether a log line about this attempt may be missing."""
        return self._begins is None or self._begins > doubt.claimed_at - SLACK


def envelope_sender_of(mail_id: str, domain: str) -> str:
    """Return the envelope sender of a mail. It is unique, so bounces and log lines can be matched (RFC 5321 4.4)."""
    return f"b+{mail_id}@{domain}"


def message_id_of(mail_id: str, domain: str) -> str:
    """Return the Message-ID of a mail. The relay logs it, so it contains nothing but the mail's id."""
    return f"<{mail_id}@{domain}>"


class _Doubt(NamedTuple):
    id: str
    claimed_at: datetime


def _doubts(session: Session, now: datetime) -> list[_Doubt]:
    """Return the mails in doubt that are due, newest first, because the log may not reach back to older ones."""
    due = Mail.due_at.is_(None) | (Mail.due_at <= now)
    rows = select(Mail.id, Mail.claimed_at).where(
        Mail.state == "doubt", Mail.claimed_at <= now - outbox.DOUBT_GRACE, due
    )
    found = session.execute(rows.order_by(Mail.claimed_at.desc()).limit(LIMIT))
    return [_Doubt(mail_id, claimed_at) for mail_id, claimed_at in found if claimed_at]
