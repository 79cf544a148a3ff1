"""The access log of the customer pages: route, status and time in plain text, address and browser encrypted.

Each day has its own key, so a day is erased by destroying one key. Logging never delays a page or makes it fail: entries
wait in memory and a background thread writes them in groups. If too many wait, the newest are dropped.
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
from pipeline.limited_log import LimitedLog

log = structlog.get_logger(__name__)

GROUP = 200  # entries per transaction at most
WAITING = 10_000  # entries in memory at most
KEY_ID_PREFIX = "smt:visits:"  # followed by the day
MAX_BROWSER = 300  # characters stored of the User-Agent header


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One request. `action` is method and route, never the requested URL, which may contain the secret of a link."""

    at: datetime
    action: str
    status: int
    address: str
    browser: str


class AccessLog(BatchThread[LogEntry]):
    """Background thread that writes the access log."""

    def __init__(self, database: Database, master_key: MasterKey, clock: Clock) -> None:
        super().__init__("access-log", most=GROUP, room=WAITING)
        self._database, self._master, self._clock = database, master_key, clock
        self._warn = LimitedLog(log.warning)

    def record(self, action: str, status: int, address: str, browser: str) -> None:
        """Queue an entry to be written. Returns at once and never raises."""
        if not self._submit(LogEntry(self._clock.now(), action, status, address, browser[:MAX_BROWSER])):
            self._warn("access_log_entry_dropped", waiting=WAITING)

    def _process(self, batch: list[LogEntry]) -> None:
        try:
            with self._database.transaction() as session:
                keyring = Keyring(self._master, session, self._clock.now())
                keyring.load({key_id_of_day(entry.at) for entry in batch})
                session.add_all(_row(entry, keyring) for entry in batch)
        except (DatabaseUnavailableError, MasterKeyError) as error:
            log.warning("access_log_entries_lost", entries=len(batch), reason=str(error))
        except Exception as error:  # noqa: BLE001 - one bad entry must not end the thread
            log.error("access_log_entries_lost", entries=len(batch), reason=f"internal error: {type(error).__name__}")


def key_id_of_day(at: datetime) -> str:
    """Return the key id of the day."""
    return f"{KEY_ID_PREFIX}{at:%Y-%m-%d}"


def _row(entry: LogEntry, keyring: Keyring) -> AccessLogEntry:
    key_id = key_id_of_day(entry.at)
    data_key = keyring.get(key_id)
    visitor = {"address": entry.address, "browser": entry.browser}
    encrypted = data_key and data_key.encrypt_json("access_log.visitor", visitor)
    return AccessLogEntry(at=entry.at, key_id=key_id, action=entry.action[:100], status=entry.status, visitor=encrypted)
