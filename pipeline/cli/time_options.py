"""Times as an operator types them."""

from datetime import UTC, date, datetime

from pipeline.clock import read_time
from pipeline.errors import Wrong


def read(text: str | None, option: str) -> datetime | None:
    """`2026-03-01` (its midnight in UTC), or a time as PayPal writes it; None for None. Raises Wrong."""
    if text is None:
        return None
    if moment := read_time(text):
        return moment
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise Wrong(f"{option} {text}: not a time; write 2026-03-01 or 2026-03-01T10:00:00Z") from None
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
