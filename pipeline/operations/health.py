"""Health of the queues: the ages of the oldest unhandled event and the oldest unsent mail."""

from dataclasses import dataclass
from datetime import datetime

from pipeline.db.engine import Database
from pipeline.inbox import store as inbox
from pipeline.outbox import store as outbox


@dataclass(frozen=True, slots=True)
class Health:
    """Ages of the oldest waiting event and mail in seconds (0 if none waits), and the limit for both."""

    oldest_event_seconds: float
    oldest_mail_seconds: float
    limit_seconds: int

    @property
    def is_well(self) -> bool:
        return max(self.oldest_event_seconds, self.oldest_mail_seconds) <= self.limit_seconds


def check_health(database: Database, now: datetime, limit_seconds: int) -> Health:
    """Query the ages. Raises DatabaseUnavailableError."""
    with database.reading() as session:
        event, mail = inbox.oldest_unhandled(session), outbox.oldest_unsent(session, now)
    return Health(_age(event, now), _age(mail, now), limit_seconds)


def _age(since: datetime | None, now: datetime) -> float:
    return max(0.0, (now - since).total_seconds()) if since else 0.0
