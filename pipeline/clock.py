"""Clocks, and parsing and formatting of times. Code gets a clock as an argument, so tests and the simulator can set it."""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Protocol


class Clock(Protocol):
    """Returns the current time as an aware `datetime` in UTC."""

    def now(self) -> datetime: ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)


class MovableClock:
    """A clock that stands still until it is set; for tests and simulated months."""

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

# The format of nearly all of PayPal's times. Python parses it without changes, which is faster.
_USUAL = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z", re.ASCII)


def parse_time(text: object) -> datetime | None:
    """Parse a time that PayPal sent. Return it in UTC, or None if it cannot be parsed.

    A time without a zone is UTC. PayPal's simulator sends months that do not exist. They are None too, because an
    unreadable time must not lose the event.
    """
    return _parse(text) if isinstance(text, str) else None


@lru_cache(maxsize=4096)  # the times of one event are parsed several times
def _parse(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text if _USUAL.fullmatch(text) else _to_iso(text)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _to_iso(text: str) -> str:
    """Return the time in the format that Python parses. Raises ValueError for any other text."""
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise ValueError(text)
    day, moment, fraction, zone = match.groups()
    offset = "+00:00" if zone in (None, "Z", "z") else zone[:3] + ":" + zone[-2:]
    return f"{day}T{moment}{(fraction or '.0')[:7]:0<7}{offset}"


def format_time(moment: datetime) -> str:
    """Return the time as ISO 8601 in UTC, with a fraction only if it is not zero: `2026-03-01T10:00:00Z`."""
    return (moment if moment.tzinfo is UTC else moment.astimezone(UTC)).isoformat()[:-6] + "Z"


def write_optional(moment: datetime | None) -> str | None:
    """Return `format_time` of the moment, or None for None."""
    return format_time(moment) if moment else None
