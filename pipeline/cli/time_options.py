"""Times and days as an operator types them."""

from datetime import UTC, date, datetime, time

from pipeline.clock import parse_time
from pipeline.errors import UsageError


def parse_time_option(text: str | None, option: str) -> datetime | None:
    """`2026-03-01` (its midnight in UTC), or a time as PayPal writes it; None for None. Raises UsageError."""
    if text is None:
        return None
    if moment := parse_time(text):
        return moment
    try:
        return datetime.combine(date.fromisoformat(text), time(), UTC)
    except ValueError:
        raise UsageError(f"{option} {text}: not a time; write 2026-03-01 or 2026-03-01T10:00:00Z") from None


def read_day(text: str) -> date:
    """`2026-03-01`. Raises UsageError."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{text} is no day; write it as 2026-06-01") from None
