"""What became of a mail in doubt, by the relay's own evidence.

The connection was lost after the mail's text, or the mailer died. Postfix logs every message it has taken: a line of
`qmgr` with the envelope sender, which is unique for each of our mails. A line of `cleanup` with the Message-ID proves
only that the text began to come, because it is written for messages that are given up too.

A mail whose line is there was sent. One whose line is missing was not, but only if the log is whole: it reaches from
before the try, surely, until after we have just spoken to the relay; and if no session is still busy with it, as one
is whose filter takes its time. Otherwise the doubt stays, for a later look or for a person.
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

SLACK = timedelta(seconds=2)  # the log's times are whole seconds: a line of the try's own second may be from after it
LIMIT = 500
MAX_FILTER_TIME = timedelta(
    minutes=10
)  # no filter keeps a mail for longer: Postfix's own time-outs for them are five minutes

_TAKEN = re.compile(r"postfix[^ ]*/qmgr\[\d+\]: [0-9A-Za-z]+: from=<([^>]+)>,.*\(queue active\)")
_STARTED = re.compile(r"postfix[^ ]*/master\[\d+\]: daemon started")
_BEGUN = re.compile(r"postfix[^ ]*/smtpd\[(\d+)\]: ([0-9A-Za-z]+): client=")
_NAMED = re.compile(r"postfix[^ ]*/cleanup\[\d+\]: ([0-9A-Za-z]+): message-id=<\w+\.(\w+)@")
_QUEUED = re.compile(r"postfix[^ ]*/qmgr\[\d+\]: ([0-9A-Za-z]+): from=")
_TURN = re.compile(
    r"postfix[^ ]*/smtpd\[(\d+)\]: (?:[0-9A-Za-z]+: client=|disconnect from|lost connection|timeout after)"
)
# Words of rsyslog and journald: some lines are missing here.
_DROPPED = re.compile(r"(?:lost|dropped|discarded|Suppressed) \d+ messages")
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\S+)|([A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d) ")


class _SmtpSession(NamedTuple):
    """A mail that comes over a session: since when, and which, as far as that is known before all of it is there."""

    since: datetime
    mail_id: str


class RelayLog:
    """Postfix's log: the file and those it was rotated to, as far as they are not packed."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path, self._clock = path, clock

    def can_be_read(self) -> bool:
        """Whether there is anything of it that we may read."""
        return any(os.access(file, os.R_OK) for file in self._files())

    def is_complete(self, since: datetime, until: datetime) -> bool:
        """Whether it reaches from SLACK before `since` until `until`, and no line is missing."""
        begins = self.complete_since(until)
        return begins is not None and begins <= since - SLACK

    def complete_since(self, until: datetime) -> datetime | None:
        """From when on it holds every line until `until`. None where it does not reach so far, or cannot be read."""
        try:
            times = [moment for line in self._edges() if (moment := self._time(line))]
        except OSError as error:
            log.warning("log_unreadable", path=str(self._path), reason=error.strerror)
            return None
        return times[-2] if len(times) > 1 and times[-1] >= until - SLACK else None

    def queued_senders(self, senders: Iterable[str]) -> set[str]:
        """Those of these envelope senders whose mail the relay has queued."""
        wanted = set(senders)
        found = (match[1] for line in self._lines() if (match := _TAKEN.search(line)))
        return {sender for sender in found if sender in wanted}

    def open_sessions(self, now: datetime) -> list[_SmtpSession]:
        """Mails that the relay has begun to take and, as far as it tells, neither queued nor given up.

        That a session is done with a mail is told by its next one or by its end. What the queue manager has not told of
        SETTLE_AFTER later, it never will.
        """
        sessions: dict[str, str] = {}  # session -> queue id
        since: dict[str, datetime] = {}  # queue id -> when it began
        names: dict[str, str] = {}  # queue id -> mail
        for line in self._lines():  # of one process in order, of several not always
            if named := _NAMED.search(line):
                names[named[1]] = named[2]
            elif queued := _QUEUED.search(line):
                since.pop(queued[1], None)
            elif (turn := _TURN.search(line)) and (self._time(line) or now) <= now - outbox.DOUBT_GRACE:
                since.pop(sessions.pop(turn[1], ""), None)
            elif _STARTED.search(line):
                since.clear()
            if begun := _BEGUN.search(line):
                sessions[begun[1]] = begun[2]
                since[begun[2]] = self._time(line) or now
        return [_SmtpSession(at, names.get(queue_id, "")) for queue_id, at in since.items()]

    def started_at(self, now: datetime) -> datetime:
        """When the relay was started last before `now`, as far as the log tells; else long ago."""
        times = [moment for line in self._lines() if _STARTED.search(line) and (moment := self._time(line))]
        return max((moment for moment in times if moment <= now), default=_LONG_AGO)

    def _files(self) -> list[Path]:
        packed = (".gz", ".xz", ".bz2", ".zst")
        files = self._path.parent.glob(f"{self._path.name}*")
        return sorted((file for file in files if file.suffix not in packed), key=lambda file: file.stat().st_mtime)

    def _lines(self) -> Iterator[str]:
        for file in self._files():
            with file.open(encoding="utf-8", errors="replace") as lines:
                yield from lines

    def _edges(self) -> list[str]:
        """The line from which on none is missing, and the last one."""
        first = last = ""
        for last in self._lines():
            if not first or _DROPPED.search(last):
                first = last
        return [first, last]

    def _time(self, line: str) -> datetime | None:
        """ISO 8601, or the old form without year and zone: local time, and never in the future."""
        match = _TIME.match(line)
        if match is None:
            return None
        now = self._clock.now()
        if match[1]:
            return _read(match[1])
        readings = (_read(match[2], year) for year in (now.astimezone().year, now.astimezone().year - 1))
        return next((moment for moment in readings if moment and moment <= now + timedelta(days=1)), None)


def _read(text: str, year: int | None = None) -> datetime | None:
    """ISO 8601, or with a year the old form; None for what is no time, as 29 February is in most years."""
    try:
        if year is None:
            return datetime.fromisoformat(text).astimezone(UTC)
        return datetime.strptime(f"{year} {text}", "%Y %b %d %H:%M:%S").astimezone(UTC)
    except ValueError:
        return None


def resolve_doubts(
    database: Database, clock: Clock, relay_log: RelayLog, probe: Callable[[], object], domain: str
) -> int:
    """Settle what the log can settle: sent, or owed again. Returns how many.

    `probe` speaks to the relay, which leaves a line at the end of its log; it raises when the relay does not answer,
    and then nothing is settled.
    """
    with database.reading() as session:
        doubts = _doubts(session, clock.now())
    if not doubts:
        return 0
    asked_at = clock.now()
    probe()
    judge = DoubtResolver(relay_log, asked_at, [envelope_sender_of(doubt.id, domain) for doubt in doubts])
    verdicts = [(doubt, judge.was_sent(doubt, envelope_sender_of(doubt.id, domain))) for doubt in doubts]
    settled = [(doubt, sent) for doubt, sent in verdicts if sent is not None]
    with database.transaction() as session:
        for doubt, sent in settled:
            outbox.resolve_doubt(session, doubt.id, clock.now(), sent=sent, by="relay's log", tried_at=doubt.claimed_at)
    if gaps := sum(judge.has_gap(doubt) for doubt, sent in verdicts if sent is None):
        log.warning("log_has_a_gap", doubts=gaps)
    if settled:
        sent_count = sum(sent for _, sent in settled)
        log.info("doubts_settled", sent=sent_count, owed_again=len(settled) - sent_count)
    return len(settled)


class DoubtResolver:
    """What the log says at this moment of mails in doubt."""

    def __init__(self, relay_log: RelayLog, now: datetime, senders: Sequence[str]) -> None:
        before = relay_log.complete_since(now)
        self._taken, self._unfinished = relay_log.queued_senders(senders), relay_log.open_sessions(now)
        after = relay_log.complete_since(now)  # later, where a part of it was packed while we read
        self._begins = max(before, after) if before and after else None
        # A relay that has just come back may not have looked through what it had queued before.
        self._is_settled = relay_log.started_at(now) <= now - outbox.DOUBT_GRACE
        self._now = now

    def was_sent(self, doubt: "_Doubt", sender: str) -> bool | None:
        """None: nobody can tell yet. That it was taken is proved by one line, that it was not by the whole log only."""
        if sender in self._taken:
            return True
        return None if self._hangs(doubt) or self.has_gap(doubt) or not self._is_settled else False

    def _hangs(self, doubt: "_Doubt") -> bool:
        """Whether the relay may still be busy with it: names are logged late, so one without a name may be this one."""
        unnamed = (each.since for each in self._unfinished if not each.mail_id)
        begun = doubt.claimed_at - SLACK, self._now - outbox.DOUBT_GRACE
        is_there = doubt.id in {each.mail_id for each in self._unfinished} or any(
            begun[0] <= at <= begun[1] for at in unnamed
        )
        return is_there and doubt.claimed_at > self._now - MAX_FILTER_TIME

    def has_gap(self, doubt: "_Doubt") -> bool:
        """Whether a line about this try may be missing."""
        return self._begins is None or self._begins > doubt.claimed_at - SLACK


def envelope_sender_of(mail_id: str, domain: str) -> str:
    """The envelope sender of a mail: unique, so that bounces and log lines can be matched (RFC 5321 section 4.4)."""
    return f"b+{mail_id}@{domain}"


class _Doubt(NamedTuple):
    id: str
    claimed_at: datetime


def _doubts(session: Session, now: datetime) -> list[_Doubt]:
    """Those that may be settled now; the newest first, as the log may not reach back to the others."""
    due = Mail.due_at.is_(None) | (Mail.due_at <= now)
    rows = select(Mail.id, Mail.claimed_at).where(
        Mail.state == "doubt", Mail.claimed_at <= now - outbox.DOUBT_GRACE, due
    )
    found = session.execute(rows.order_by(Mail.claimed_at.desc()).limit(LIMIT))
    return [_Doubt(mail_id, claimed_at) for mail_id, claimed_at in found if claimed_at]
