"""What became of a mail in doubt, by the relay's own evidence.

The connection was lost after the mail's text, or the mailer died. Postfix logs every message it has taken: a line of
`qmgr` with the envelope sender, which is unique for each of our mails. A line of `cleanup` with the Message-ID proves
nothing, because it is written for messages that are given up too.

A mail whose line is there was sent. One whose line is missing was not, but only if the log is whole: it reaches from
before the try, surely, until after we have just spoken to the relay. Otherwise the doubt stays, for a person to look at.
"""

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from pipeline import outbox
from pipeline.clock import Clock
from pipeline.database import Database
from pipeline.tables import Mail

log = structlog.get_logger(__name__)

SLACK = timedelta(seconds=2)  # the log's times are whole seconds: a line of the try's own second may be from after it
LIMIT = 500

_TAKEN = re.compile(r"postfix[^ ]*/qmgr\[\d+\]: [0-9A-Za-z]+: from=<([^>]+)>,.*\(queue active\)")
_STARTED = re.compile(r"postfix[^ ]*/master\[\d+\]: daemon started")
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\S+)|([A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d) ")


class RelayLog:
    """Postfix's log: the file and those it was rotated to, as far as they are not packed."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path, self._clock = path, clock

    def is_whole(self, since: datetime, until: datetime) -> bool:
        """Whether it reaches from SLACK before `since` until `until`. False too where it cannot be read."""
        try:
            times = [moment for line in self._edges() if (moment := self._time(line))]
        except OSError as error:
            log.warning("log_unreadable", path=str(self._path), reason=error.strerror)
            return False
        return bool(times) and min(times) <= since - SLACK and max(times) >= until - SLACK

    def taken(self, senders: Iterable[str]) -> set[str]:
        """Those of these envelope senders whose mail the relay has queued."""
        wanted = set(senders)
        found = (match[1] for line in self._lines() if (match := _TAKEN.search(line)))
        return {sender for sender in found if sender in wanted}

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
        """The first line and the last one."""
        lines = self._lines()
        first = next(lines, "")
        return [first, *deque(lines, maxlen=1)]

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


def settle_doubts(
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
    is_whole = partial(relay_log.is_whole, min(tried_at for _, tried_at in doubts), asked_at)
    if not is_whole():
        log.warning("log_has_a_gap", doubts=len(doubts))
        return 0
    if relay_log.started_at(asked_at) > asked_at - outbox.SETTLE_AFTER:
        return 0  # it may not have looked through what it had queued before
    taken = relay_log.taken(sender_of(mail_id, domain) for mail_id, _ in doubts)
    if not is_whole():
        return 0  # a part of it was packed while we read
    with database.transaction() as session:
        for mail_id, _ in doubts:
            outbox.settle_doubt(
                session, mail_id, clock.now(), sent=sender_of(mail_id, domain) in taken, by="relay's log"
            )
    log.info("doubts_settled", sent=len(taken), owed_again=len(doubts) - len(taken))
    return len(doubts)


def sender_of(mail_id: str, domain: str) -> str:
    """The envelope sender of a mail: unique, so that bounces and log lines can be matched (RFC 5321 section 4.4)."""
    return f"b+{mail_id}@{domain}"


def _doubts(session: Session, now: datetime) -> list[tuple[str, datetime]]:
    due = Mail.due_at.is_(None) | (Mail.due_at <= now)
    rows = select(Mail.id, Mail.tried_at).where(Mail.state == "doubt", Mail.tried_at <= now - outbox.SETTLE_AFTER, due)
    return [(mail_id, tried_at) for mail_id, tried_at in session.execute(rows.limit(LIMIT)) if tried_at]
