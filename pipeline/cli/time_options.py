"""Parse times and days in command-line options."""

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated

import typer

from pipeline.clock import parse_time
from pipeline.errors import UsageError

FORMS = "30d, 12h, today, yesterday, 2026-03-01 or 2026-03-01T10:00:00Z"
_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
_AGO = re.compile(r"(\d{1,6})([hdw])", re.ASCII)
_DAYS_AGO = {"today": 0, "yesterday": 1}


Until = Annotated[str | None, typer.Option(help="Only those before this day or time; see --since.")]


@dataclass(frozen=True, slots=True)
class Period:
    """The filter of a list by time: from `since` on, before `until`. None: without this limit."""

    since: datetime | None
    until: datetime | None


def parse_period(since: str | None, until: str | None, now: datetime) -> Period:
    """Return the period that the options --since and --until name. Raises UsageError, also if it is empty."""
    period = Period(parse_time_option(since, "--since", now), parse_time_option(until, "--until", now))
    if period.since and period.until and period.until <= period.since:
        raise UsageError(f"--until {until} is not after --since {since}, so nothing can match")
    return period


def parse_time_option(text: str | None, option: str, now: datetime) -> datetime | None:
    """Return the time that an option such as --since names; None for None. Raises UsageError with the accepted forms.

    `30d` is 30 days before `now`; the units are h, d and w. `today`, `yesterday` and `2026-03-01` are midnights in UTC. A
    time without a zone is UTC.
    """
    if text is None:
        return None
    try:
        moment = _parse(text.strip().lower(), now)
    except (ValueError, OverflowError):
        moment = None
    if moment is None:
        raise UsageError(f"{option} {text} is not a time; write {FORMS}")
    return moment


def parse_day(text: str) -> date:
    """Parse a day such as `2026-03-01`. Raises UsageError."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{text} is not a day; write it like 2026-06-01") from None


def _parse(text: str, now: datetime) -> datetime | None:
    if ago := _AGO.fullmatch(text):
        return now - int(ago[1]) * _UNITS[ago[2]]
    if text in _DAYS_AGO:
        return _midnight(now.astimezone(UTC).date() - timedelta(days=_DAYS_AGO[text]))
    if moment := parse_time(text.upper()):
        return moment
    found = datetime.fromisoformat(text.upper())
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
