"""What became of a mail in doubt, by the relay's own evidence.

The connection was lost after the mail's text, or the mailer died. Postfix logs every message it has taken: a line of
`qmgr` with the envelope sender, which is unique for each of our mails. A line of `cleanup` with the Message-ID proves
nothing, because it is written for messages that are given up too.

A mail whose line is there was sent. One whose line is missing was not, but only if the log is whole: it reaches from
before the try until after we have just spoken to the relay. Otherwise the doubt stays, for a person to look at.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from pipeline import outbox
from pipeline.clock import Clock
from pipeline.database import Database
from pipeline.tables import Mail

log = structlog.get_logger(__name__)

# By then the relay has noticed that the connection is gone, and has queued or dropped what came over it.
SETTLE_AFTER = timedelta(seconds=10)
SLACK = timedelta(seconds=2)  # the log's times are whole seconds
LIMIT = 500

_TAKEN = re.compile(r"postfix[^ ]*/qmgr\[\d+\]: [0-9A-Za-z]+: from=<([^>]+)>,.*\(queue active\)")
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\S+)|([A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d) ")


class RelayLog:
    """Postfix's log: the file and those it was rotated to, as far as they are not packed."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path, self._clock = path, clock

    def is_whole(self, since: datetime, until: datetime) -> bool:
        """Whether it reaches from before `since` until `until`. False too where it cannot be read."""
        times = [moment for line in self._edges() if (moment := self._time(line))]
        return bool(times) and min(times) <= since + SLACK and max(times) >= until - SLACK

    def taken(self, senders: Iterable[str]) -> set[str]:
        """Those of these envelope senders whose mail the relay has queued."""
        wanted = set(senders)
        found = (match[1] for line in self._lines() if (match := _TAKEN.search(line)))
        return {sender for sender in found if sender in wanted}

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
        last = first
        for last in lines:
            pass
        return [first, last]

    def _time(self, line: str) -> datetime | None:
        """ISO 8601, or the old form without year and zone: local time, and never in the future."""
        match = _TIME.match(line)
        if match is None:
            return None
        if match[1]:
            return datetime.fromisoformat(match[1]).astimezone(UTC)
        now = self._clock.now().astimezone()
        moment = datetime.strptime(f"{now.year} {match[2]}", "%Y %b %d %H:%M:%S").astimezone()
        return (moment if moment <= now + timedelta(days=1) else moment.replace(year=now.year - 1)).astimezone(UTC)


def settle_doubts(
    database: Database, clock: Clock, relay_log: RelayLog, probe: Callable[[], object], domain: str
) -> int:
    """Settle what the log can settle: sent, or owed again. Returns how many.

    `probe` speaks to the relay, which leaves a line at the end of its log; it raises when the relay does not answer,
    and then nothing is settled.
    """
    with database.reading() as session:
        doubts = _doubts(session, clock.now() - SETTLE_AFTER)
    if not doubts:
        return 0
    asked_at = clock.now()
    probe()
    if not relay_log.is_whole(min(tried_at for _, tried_at in doubts), asked_at):
        log.warning("log_has_a_gap", doubts=len(doubts))
        return 0
    taken = relay_log.taken(sender_of(mail_id, domain) for mail_id, _ in doubts)
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


def _doubts(session: Session, before: datetime) -> list[tuple[str, datetime]]:
    rows = select(Mail.id, Mail.tried_at).where(Mail.state == "doubt", Mail.tried_at <= before).limit(LIMIT)
    return [(mail_id, tried_at) for mail_id, tried_at in session.execute(rows) if tried_at]
