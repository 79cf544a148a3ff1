"""The only reader of time. Whoever needs the time is handed a clock, so tests and the simulator can move it."""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Protocol


class Clock(Protocol):
    """Tells the time: an aware `datetime` in UTC."""

    def now(self) -> datetime: ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)


class MovableClock:
    """A clock that stands still until it is moved; for tests and simulated months."""

    def __init__(self, start: datetime) -> None:
        self._now = start.astimezone(UTC)

    def now(self) -> datetime:
        return self._now

    def move_to(self, moment: datetime) -> None:
        self._now = moment.astimezone(UTC)

    def advance(self, step: timedelta) -> None:
        self._now += step


# PayPal writes offsets as Z, -07:00 and +0000, with or without fractions of a second.
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(\.\d{1,9})?\s*(Z|[+-]\d\d:?\d\d)?", re.ASCII | re.IGNORECASE)

_USUAL = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z", re.ASCII)  # nearly all are so, and read at once


def parse_time(text: object) -> datetime | None:
    """Read one of PayPal's times as UTC; None if it cannot be read.

    A time without a zone is taken as UTC. PayPal's simulator sends months that do not exist: those are None too,
    because a time that cannot be read must not lose the event.
    """
    return _read_text(text) if isinstance(text, str) else None


@lru_cache(maxsize=4096)  # one event's times are read many times over
def _read_text(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text if _USUAL.fullmatch(text) else _respelled(text)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _respelled(text: str) -> str:
    """As Python reads it. Raises ValueError for what is no time of PayPal's."""
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise ValueError(text)
    day, moment, fraction, zone = match.groups()
    offset = "+00:00" if zone in (None, "Z", "z") else zone[:3] + ":" + zone[-2:]
    return f"{day}T{moment}{(fraction or '.0')[:7]:0<7}{offset}"


def format_time(moment: datetime) -> str:
    """ISO 8601 in UTC, whole seconds unless there is a fraction: `2026-03-01T10:00:00Z`."""
    return (moment if moment.tzinfo is UTC else moment.astimezone(UTC)).isoformat()[:-6] + "Z"


def write_optional(moment: datetime | None) -> str | None:
    """`format_time` of a moment that may be missing."""
    return format_time(moment) if moment else None
