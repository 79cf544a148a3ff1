"""Import events from files into the inbox. They are parsed like webhooks, and stored in groups."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from pipeline.clock import Clock
from pipeline.crypto.keyring import Keyring
from pipeline.crypto.master_key import MasterKey, open_master_key
from pipeline.db.engine import Database
from pipeline.errors import UsageError
from pipeline.inbox import store as inbox
from pipeline.inbox.parsing import UNREADABLE, parse_webhook
from pipeline.inbox.store import NewEvent

GROUP = 256  # events in one transaction
STDIN = Path("-")
VERDICT = "imported: no signature to check"


@dataclass(slots=True)
class ImportResult:
    """Counts of the imported events. `refused`: pairs of a file (or an event in it) and the reason."""

    stored: int = 0
    duplicates: int = 0
    conflicts: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        refused = [{"file": name, "reason": reason} for name, reason in self.refused]
        return {
            "stored": self.stored,
            "duplicates": self.duplicates,
            "conflicts": self.conflicts,
            "refused": refused,
        }


def find_files(paths: Sequence[Path]) -> list[Path]:
    """Return the files in these paths; a folder stands for its `*.json` files, sorted by name.

    Raises UsageError if a path does not exist.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(each for each in path.rglob("*.json") if each.is_file())
        elif path == STDIN or path.exists():
            found.append(path)
        else:
            raise UsageError(f"{path}: no such file")
    return found


def import_files(
    database: Database, master_key: Path, clock: Clock, paths: Sequence[Path], done: Callable[[int], None]
) -> ImportResult:
    """Store the events of all files. `done` is called with the number of events after each group.

    Raises DatabaseUnavailableError. Earlier groups are stored by then; importing them again only counts duplicates.
    """
    summary, master = ImportResult(), open_master_key(master_key)
    group: list[NewEvent] = []
    for delivery in _parse_files(paths, summary):
        group.append(delivery)
        if len(group) == GROUP:
            _store(database, master, clock, group, summary)
            done(len(group))
            group = []
    _store(database, master, clock, group, summary)
    done(len(group))
    return summary


def _store(
    database: Database, master_key: MasterKey, clock: Clock, group: list[NewEvent], summary: ImportResult
) -> None:
    with database.transaction() as session:
        now = clock.now()
        results = inbox.store(session, Keyring(master_key, session, now), group, now)
    for result in results:
        if result.outcome != "stored":
            summary.duplicates += 1
        elif inbox.is_conflict(result.event_id):
            summary.conflicts += 1
        else:
            summary.stored += 1


def _parse_files(paths: Iterable[Path], summary: ImportResult) -> Iterator[NewEvent]:
    for path in paths:
        try:
            bodies = list(_read_bodies(path))
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            summary.refused.append((str(path), f"{reason}"))
            continue
        for number, body in enumerate(bodies, start=1):
            found = parse_webhook(body)
            if found.type == UNREADABLE:
                place = f"{path}, event {number}" if len(bodies) > 1 else str(path)
                summary.refused.append((place, found.problem or "no event"))
            else:
                yield NewEvent(found, "import", VERDICT)


def _read_bodies(path: Path) -> Iterator[bytes]:
    """Yield the body of each event in a file. Raises OSError, and ValueError if the file is not JSON."""
    raw = sys.stdin.buffer.read() if path == STDIN else path.read_bytes()
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"not JSON: {str(error).split(':')[0]}") from error
    if isinstance(document, dict) and isinstance(document.get("events"), list):
        document = document["events"]
    if isinstance(document, list):
        yield from map(orjson.dumps, document)
    else:
        yield raw
