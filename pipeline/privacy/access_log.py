"""The access log of the customer pages: route, status and time in plain text, address and browser encrypted.

Each day has its own key, so a day is erased by destroying one key. Logging never delays a page or makes it fail: entries
wait in memory and a background thread writes them in groups. If too many wait, the newest are dropped. A flood of
requests cannot fill the database: in each hour a number of entries is stored, and the rest is only counted in the log.
"""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime

import structlog

from pipeline.batch_thread import BatchThread
from pipeline.clock import Clock
from pipeline.crypto.key_ids import DAY
from pipeline.crypto.keyring import Keyring
from pipeline.crypto.master_key import MasterKey, MasterKeyError
from pipeline.customers.rate_limit import client_networks
from pipeline.db.engine import Database, DatabaseUnavailableError
from pipeline.db.models import AccessLogEntry
from pipeline.limited_log import LimitedLog

log = structlog.get_logger(__name__)

GROUP = 200  # entries per transaction at most
WAITING = 10_000  # entries in memory at most
MAX_BROWSER = 300  # characters stored of the User-Agent header


NOWHERE = (404, 405)  # statuses of requests for pages that do not exist
# Entries stored in an hour: many more than people make, and few enough for a database of 90 days.
PER_NETWORK = {"page": 500, "nowhere": 20}
FOR_ALL = {"page": 20_000, "nowhere": 1_000}


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
        self._warn, self._inform = LimitedLog(log.warning), LimitedLog(log.info, 3600.0)
        self._quota = _HourlyQuota()

    def record(self, action: str, status: int, address: str, browser: str) -> None:
        """Queue an entry to be written. Returns at once and never raises."""
        entry = LogEntry(self._clock.now(), action, status, address, browser[:MAX_BROWSER])
        if not self._quota.allows(entry):
            self._inform("access_log_entry_left_out")
        elif not self._submit(entry):
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


class _HourlyQuota:
    """Counts the entries of the current hour by network, IPv6 by /48. FOR_ALL also bounds its own memory."""

    def __init__(self) -> None:
        self._hour: datetime | None = None
        self._counts: Counter[tuple[str, str]] = Counter()  # (kind, network) -> entries; network "" counts all

    def allows(self, entry: LogEntry) -> bool:
        """Count the entry, and return whether it may be stored."""
        hour = entry.at.replace(minute=0, second=0, microsecond=0)
        if hour != self._hour:
            self._hour, self._counts = hour, Counter()
        kind = "nowhere" if entry.status in NOWHERE else "page"
        of_network, of_all = (kind, client_networks(entry.address)[-1][0]), (kind, "")
        if self._counts[of_all] >= FOR_ALL[kind] or self._counts[of_network] >= PER_NETWORK[kind]:
            return False
        self._counts.update((of_network, of_all))
        return True


def key_id_of_day(at: datetime) -> str:
    """Return the key id of the day."""
    return f"{DAY}{at:%Y-%m-%d}"


def _row(entry: LogEntry, keyring: Keyring) -> AccessLogEntry:
    key_id = key_id_of_day(entry.at)
    data_key = keyring.get(key_id)
    visitor = {"address": entry.address, "browser": entry.browser}
    encrypted = data_key and data_key.encrypt_json("access_log.visitor", visitor)
    return AccessLogEntry(at=entry.at, key_id=key_id, action=entry.action[:100], status=entry.status, visitor=encrypted)
