"""The access log of our own pages: which page, by whom, with which answer. First-party, sealed, 90 days.

Each day has a key of its own, so that a day is forgotten by destroying one key. Nothing here may hold up a page or make
it fail: visits wait in memory and are written in groups by a thread; when too many wait, the newest are dropped.
"""

from dataclasses import dataclass
from datetime import datetime

import structlog

from pipeline.batch_thread import BatchThread
from pipeline.clock import Clock
from pipeline.crypto.keyring import Keyring
from pipeline.crypto.master_key import MasterKey, MasterKeyError
from pipeline.db.engine import Database, DatabaseUnavailableError
from pipeline.db.models import AccessLogEntry

log = structlog.get_logger(__name__)

GROUP = 200  # visits in one transaction at most
WAITING = 10_000  # visits in memory at most
LABEL = "smt:visits:"  # and the day
LONGEST = 300  # characters of a browser's name


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One request. `action` is method and route, never the address as typed: that may hold the secret of a link."""

    at: datetime
    action: str
    status: int
    address: str
    browser: str


class AccessLog(BatchThread[LogEntry]):
    """The thread that writes them."""

    def __init__(self, database: Database, master_key: MasterKey, clock: Clock) -> None:
        super().__init__("visits", most=GROUP, room=WAITING)
        self._database, self._master, self._clock = database, master_key, clock

    def record(self, action: str, status: int, address: str, browser: str) -> None:
        """Have a visit written; returns at once, and never raises."""
        if not self._submit(LogEntry(self._clock.now(), action, status, address, browser[:LONGEST])):
            log.warning("visits_dropped", waiting=WAITING)

    def _do(self, batch: list[LogEntry]) -> None:
        try:
            with self._database.transaction() as session:
                keyring = Keyring(self._master, session, self._clock.now())
                keyring.load({key_id_of_day(seen.at) for seen in batch})
                session.add_all(_row(seen, keyring) for seen in batch)
        except (DatabaseUnavailableError, MasterKeyError) as error:
            log.warning("visits_lost", visits=len(batch), reason=str(error))
        except Exception as error:  # noqa: BLE001 - a log must go on, whatever one of its lines was
            log.error("visits_lost", visits=len(batch), reason=f"a fault of ours: {type(error).__name__}")


def key_id_of_day(at: datetime) -> str:
    """The label of a day's key."""
    return f"{LABEL}{at:%Y-%m-%d}"


def _row(seen: LogEntry, keyring: Keyring) -> AccessLogEntry:
    label = key_id_of_day(seen.at)
    seal = keyring.get(label)
    who = {"address": seen.address, "browser": seen.browser}
    visitor = seal and seal.encrypt_json("access_log.visitor", who)
    return AccessLogEntry(at=seen.at, key_id=label, action=seen.action[:100], status=seen.status, visitor=visitor)
