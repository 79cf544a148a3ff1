"""Last-writer-wins map: keeps the newest value of each field, so the result does not depend on arrival order.

A row that several events update stores the map in `known`: field -> [time, value]. `merge` keeps for each field the
value with the later time, or the larger value at equal times. Any order and repetition of merges gives the same map.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

LwwMap = dict[str, Any]


def merge(known: Mapping[str, Any], at: datetime, values: Mapping[str, Any]) -> LwwMap:
    """Return a copy of `known` with these JSON values as of `at` merged in. A value of None is ignored."""
    merged = dict(known)
    stamp = _stamp(at)
    for field, value in values.items():
        if value is not None and (field not in merged or _supersedes(stamp, value, *merged[field])):
            merged[field] = [stamp, value]
    return merged


def value(known: Mapping[str, Any], field: str) -> Any:
    """Return the newest value of a field, or None if there is none."""
    return known[field][1] if field in known else None


def updated_at(known: Mapping[str, Any], field: str) -> datetime | None:
    """Return the time of the newest value of a field, by PayPal's clock, or None if there is none."""
    return datetime.fromisoformat(known[field][0]) if field in known else None


def _supersedes(stamp: str, value: Any, known_stamp: str, known: Any) -> bool:
    return stamp > known_stamp or (stamp == known_stamp and orjson.dumps(value) > orjson.dumps(known))


def _stamp(at: datetime) -> str:
    """Return the time as text that sorts by time: always UTC with microseconds."""
    return (at if at.tzinfo is UTC else at.astimezone(UTC)).isoformat(timespec="microseconds")
