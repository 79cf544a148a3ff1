"""The newest known value of each field, whatever the order of arrival.

A row that several events tell keeps `known`: field -> [time, value]. Merging takes for each field the value with the
later time, at equal times the larger one. That is the same for every order and every repetition (a last-writer-wins
map), so what is computed from `known` is too.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

LwwMap = dict[str, Any]


def merge(known: Mapping[str, Any], at: datetime, values: Mapping[str, Any]) -> LwwMap:
    """A copy of `known` with these values as of `at`. None says nothing. Values are JSON: text, numbers, lists."""
    merged = dict(known)
    stamp = _stamp(at)
    for field, value in values.items():
        if value is not None and (field not in merged or _supersedes(stamp, value, *merged[field])):
            merged[field] = [stamp, value]
    return merged


def value(known: Mapping[str, Any], field: str) -> Any:
    """The newest known value of a field, None if none is known."""
    return known[field][1] if field in known else None


def updated_at(known: Mapping[str, Any], field: str) -> datetime | None:
    """Since when that value is known, by PayPal's time."""
    return datetime.fromisoformat(known[field][0]) if field in known else None


def _supersedes(stamp: str, value: Any, known_stamp: str, known: Any) -> bool:
    return stamp > known_stamp or (stamp == known_stamp and orjson.dumps(value) > orjson.dumps(known))


def _stamp(at: datetime) -> str:
    """Sorts as text: always with microseconds, always UTC."""
    return (at if at.tzinfo is UTC else at.astimezone(UTC)).isoformat(timespec="microseconds")
