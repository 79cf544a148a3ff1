"""Events from files into the inbox: each file's events split as at the door, stored in groups."""

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
from pipeline.errors import UsageError as Wrong
from pipeline.inbox import store as inbox
from pipeline.inbox.parsing import UNREADABLE, parse_webhook
from pipeline.inbox.store import NewEvent

GROUP = 256  # events in one transaction
STDIN = Path("-")
VERDICT = "imported: no signature to check"


@dataclass(slots=True)
class ImportResult:
    """What became of what was brought. `refused`: a file or an event's place in it, and why."""

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


def find_files(given: Sequence[Path]) -> list[Path]:
    """The files that are meant: those of a folder by name. Raises Wrong for what is not there."""
    found: list[Path] = []
    for path in given:
        if path.is_dir():
            found += sorted(each for each in path.rglob("*.json") if each.is_file())
        elif path == STDIN or path.exists():
            found.append(path)
        else:
            raise Wrong(f"{path}: no such file")
    return found


def import_files(
    database: Database, master_key: Path, clock: Clock, paths: Sequence[Path], done: Callable[[int], None]
) -> ImportResult:
    """Store the events of all files. Raises StoreDown; the groups before are stored then, and may be brought again."""
    tally, master = ImportResult(), open_master_key(master_key)
    group: list[NewEvent] = []
    for delivery in _deliveries(paths, tally):
        group.append(delivery)
        if len(group) == GROUP:
            _store(database, master, clock, group, tally)
            done(len(group))
            group = []
    _store(database, master, clock, group, tally)
    done(len(group))
    return tally


def _store(database: Database, master_key: MasterKey, clock: Clock, group: list[NewEvent], tally: ImportResult) -> None:
    with database.transaction() as session:
        now = clock.now()
        results = inbox.store(session, Keyring(master_key, session, now), group, now)
    for result in results:
        if result.outcome != "stored":
            tally.duplicates += 1
        elif inbox.is_conflict(result.event_id):
            tally.conflicts += 1
        else:
            tally.stored += 1


def _deliveries(paths: Iterable[Path], tally: ImportResult) -> Iterator[NewEvent]:
    for path in paths:
        try:
            bodies = list(_bodies(path))
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            tally.refused.append((str(path), f"{reason}"))
            continue
        for number, body in enumerate(bodies, start=1):
            found = parse_webhook(body)
            if found.type == UNREADABLE:
                place = f"{path}, event {number}" if len(bodies) > 1 else str(path)
                tally.refused.append((place, found.problem or "no event"))
            else:
                yield NewEvent(found, "import", VERDICT)


def _bodies(path: Path) -> Iterator[bytes]:
    """The events in a file, each as a body. Raises OSError, and ValueError for what is not JSON."""
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
