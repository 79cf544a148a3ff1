"""Read single fields of PayPal's JSON: ids, texts, times, counts and money, in the format of facts.

Money is [minor units, currency]. Times are ISO 8601 in UTC. A field that cannot be read is listed, never an error.
"""

import re
from datetime import datetime
from functools import lru_cache
from typing import Any

from pipeline.clock import format_time, parse_time
from pipeline.money import InvalidAmountError, parse_amount

Facts = dict[str, Any]
Person = dict[str, str]

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# An id of PayPal's never has the form of a customer's id, because both are key ids; see `crypto.key_ids`.
_ID = re.compile(r"(?![a-z][0-9a-f]{30}\Z)[A-Za-z0-9._~-]{1,50}", re.ASCII)
YEARS = range(1970, 2200)  # plausible years; beyond them, arithmetic with times could overflow


class FieldReader:
    """Reads the fields of a resource. Adds the names of unreadable fields to `unread` instead of raising."""

    def __init__(self, resource: dict[str, Any]) -> None:
        self.resource = resource
        self.unread: list[str] = []

    def get(self, *path: str) -> Any:
        """Return the value at a path of keys, or None."""
        value: Any = self.resource
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def id(self, *path: str) -> str | None:
        value = self.get(*path)
        if isinstance(value, str) and _ID.fullmatch(value):
            return value
        self._record_unreadable(path, value)
        return None

    def text(self, *path: str, limit: int = 200) -> str | None:
        """Return a text without control characters, which columns and mail headers may refuse."""
        value = self.get(*path)
        if not isinstance(value, str):
            return None
        plain = value if value.isprintable() else _CONTROL.sub(" ", value)
        return plain.strip()[:limit].strip() or None

    def time(self, *path: str) -> str | None:
        value = self.get(*path)
        written = _time(value) if isinstance(value, str) else None
        if written is None:
            self._record_unreadable(path, value)
        return written

    def number(self, *path: str) -> int | None:
        """Return a count. PayPal writes some counts as text."""
        value = self.get(*path)
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
            return int(value)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**9:
            return value
        self._record_unreadable(path, value)
        return None

    def money(self, *path: str, currency: str | None = None) -> list[Any] | None:
        """Return `[minor units, currency]` from {value, currency_code}, {total, currency} or {value, currency}."""
        value = self.get(*path)
        if not isinstance(value, dict):
            self._record_unreadable(path, value)
            return None
        amount = value.get("value", value.get("total"))
        try:
            money = parse_amount(amount, value.get("currency_code") or value.get("currency") or currency)
        except InvalidAmountError:
            self._record_unreadable(path, value)
            return None
        return [money.amount, money.currency]

    def unsigned_money(self, *path: str, currency: str | None = None) -> list[Any] | None:
        """Return an amount as `money` does. A negative one is unreadable: prices and balances have no sign."""
        found = self.money(*path, currency=currency)
        if found is None or found[0] >= 0:
            return found
        self._record_unreadable(path, self.get(*path))
        return None

    def _record_unreadable(self, path: tuple[str, ...], value: Any) -> None:
        """Add the field to `unread`, unless it is empty."""
        name = ".".join(path)
        if value not in (None, "", {}) and name not in self.unread:
            self.unread.append(name)


@lru_cache(1024)
def _time(text: str) -> str | None:
    """Return the time in our format. Cached, because most times occur more than once in an event."""
    moment = parse_time(text)
    return format_time(moment) if moment and moment.year in YEARS else None


def text_of(document: dict[str, Any], key: str, limit: int) -> str:
    """Return a printable text of at most `limit` characters, or ""."""
    value = document.get(key)
    return value[:limit] if isinstance(value, str) and value.isprintable() else ""


def person_of(**parts: str | None) -> Person:
    """Return the parts that are not empty."""
    return {name: part for name, part in parts.items() if part}


def format_moment(moment: datetime | None) -> str | None:
    """Return the time in our format, or None."""
    return None if moment is None else format_time(moment)
