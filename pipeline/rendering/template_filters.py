"""Jinja2 filters of the mail templates: money, dates and periods in the language of the mail.

None becomes "", so that a template can omit a table row. An undefined fact still raises.
"""

import operator
from collections.abc import Callable
from datetime import date
from functools import lru_cache
from typing import Any

from babel.dates import format_date, format_time
from babel.units import UnknownUnitError, format_unit
from jinja2 import Undefined

from pipeline.clock import parse_time
from pipeline.money import Money, format_money


class FilterError(Exception):
    """A filter got a value of the wrong form. Names the filter, never the value."""


def make_filters(locale: str) -> dict[str, Callable[[Any], str]]:
    """Return the filters by name for a locale such as `en_US`. A filter raises FilterError."""
    return {
        "money": _empty_if_none(_money, locale),
        "date": _empty_if_none(_day, locale),
        "datetime": _empty_if_none(_moment, locale),
        "words": _empty_if_none(_words, locale),
        "period": _empty_if_none(_period, locale),
    }


def _empty_if_none(write: Callable[[Any, str], str], locale: str) -> Callable[[Any], str]:
    return lambda value: write(value, locale) if _has_value(value) else ""


def _has_value(value: Any) -> bool:
    if isinstance(value, Undefined):
        str(value)  # raises UndefinedError with the name of the fact
    return value is not None


def _money(value: Any, locale: str) -> str:
    try:
        return _price(value["amount"], value["currency"], locale)
    except (KeyError, TypeError, ValueError):
        raise FilterError('`money` needs {"amount": minor units, "currency": ISO 4217}') from None


def _words(value: Any, _: str) -> str:
    return str(value).replace("_", " ").lower()


def _period(value: Any, locale: str) -> str:
    try:
        return format_unit(value["count"], f"duration-{value['unit'].lower()}", "long", locale=locale)
    except (KeyError, TypeError, AttributeError, UnknownUnitError):
        raise FilterError('`period` needs {"unit": DAY, WEEK, MONTH or YEAR, "count": number}') from None


@lru_cache(maxsize=1024)
def _price(amount: int, currency: str, locale: str) -> str:
    minor_units = operator.index(amount)  # raises TypeError unless it is an integer
    return format_money(Money(minor_units, currency), locale)


def _day(text: str, locale: str) -> str:
    moment = parse_time(text)
    if moment is None:
        raise FilterError("`date` needs a time such as 2026-03-01T10:00:00Z")
    return _written_day(moment.date(), locale)


@lru_cache(maxsize=1024)
def _written_day(day: date, locale: str) -> str:
    return format_date(day, "long", locale)


@lru_cache(maxsize=1024)
def _moment(text: str, locale: str) -> str:
    moment = parse_time(text)
    if moment is None:
        raise FilterError("`datetime` needs a time such as 2026-03-01T10:00:00Z")
    return f"{_day(text, locale)}, {format_time(moment, 'short', locale=locale)} UTC"
