"""The results of earlier checks: one line a check in a file of the data folder, the newest last.

Each line has the time, the verdict of each clause, the figures of the broken ones, and the head of the audit log, so that
the next check notices rows that were removed at its end.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from pipeline import files
from pipeline.clock import format_time, parse_time
from pipeline.policy.runner import ClauseResult

FILE = "policy-history.jsonl"
KEPT_LINES = 800  # two years of daily checks


@dataclass(frozen=True, slots=True)
class PastCheck:
    """One check: `broken` maps each broken clause to its figure."""

    at: datetime
    verdicts: dict[str, str]
    broken: dict[str, str]
    audit_head: str


def append(data_dir: Path, results: Sequence[ClauseResult], now: datetime, audit_head: str) -> None:
    """Add the results of a check of all clauses."""
    line = {
        "at": format_time(now),
        "verdicts": {each.clause.id: each.verdict for each in results},
        "broken": {each.clause.id: each.figure for each in results if each.verdict == "broken"},
        "audit_head": audit_head,
    }
    lines = [*_lines(data_dir)[-KEPT_LINES + 1 :], orjson.dumps(line)]
    files.write_atomically(data_dir / FILE, b"\n".join(lines) + b"\n")


def past_checks(data_dir: Path) -> list[PastCheck]:
    """Return the earlier checks, the oldest first. Lines that cannot be read are skipped."""
    return [check for line in _lines(data_dir) if (check := _read(line))]


def _lines(data_dir: Path) -> list[bytes]:
    try:
        return (data_dir / FILE).read_bytes().splitlines()
    except OSError:
        return []


def _read(line: bytes) -> PastCheck | None:
    try:
        found: dict[str, Any] = orjson.loads(line)
        at = parse_time(found["at"])
        return None if at is None else PastCheck(at, found["verdicts"], found["broken"], found["audit_head"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
