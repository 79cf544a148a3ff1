"""Parse times and days in command-line options."""

from datetime import UTC, date, datetime, time

from pipeline.clock import parse_time
from pipeline.errors import UsageError


def parse_time_option(text: str | None, option: str) -> datetime | None:
    """Parse `2026-03-01` (midnight in UTC) or a time as PayPal writes it; None for None. Raises UsageError."""
    if text is None:
        return None
    if moment := parse_time(text):
        return moment
    try:
        return datetime.combine(date.fromisoformat(text), time(), UTC)
    except ValueError:
        raise UsageError(f"{option} {text} is not a time; write 2026-03-01 or 2026-03-01T10:00:00Z") from None


def parse_day(text: str) -> date:
    """Parse a day such as `2026-03-01`. Raises UsageError."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{text} is not a day; write it like 2026-06-01") from None
