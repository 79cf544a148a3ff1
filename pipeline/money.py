"""Amounts of money: an integer in minor units and an ISO 4217 currency, never a float.

The number of decimals follows PayPal's table, not ISO or CLDR: PayPal refuses decimals for HUF, JPY and TWD
(https://developer.paypal.com/reference/currency-codes/).
"""

import re
from copy import copy
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import cache, lru_cache

from babel import Locale
from babel.numbers import NumberPattern

NO_DIGITS = frozenset({"HUF", "JPY", "TWD"})
LARGEST = 10**15  # minor units; far above any price, and it fits into a 64-bit column

_CURRENCY = re.compile(r"[A-Z]{3}", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d{1,18}(\.\d{0,9})?|\.\d{1,9})", re.ASCII)


class InvalidAmountError(ValueError):
    """The text is not an amount in that currency."""


@dataclass(frozen=True, slots=True)
class Money:
    """`amount` in minor units (1999 is 19.99 USD and 1999 JPY), `currency` as ISO 4217."""

    amount: int
    currency: str

    def __str__(self) -> str:
        return f"{format_amount(self)} {self.currency}"

    def __neg__(self) -> "Money":
        return Money(-self.amount, self.currency)

    def __abs__(self) -> "Money":
        return Money(abs(self.amount), self.currency)


def digits(currency: str) -> int:
    """Return how many decimals PayPal allows for this currency."""
    return 0 if currency in NO_DIGITS else 2


def parse_amount(text: object, currency: object) -> Money:
    """Parse an amount as PayPal writes it: `5`, `5.0`, `.5`, `-5.00`. Raises InvalidAmountError, also for extra decimals."""
    if not isinstance(currency, str) or not isinstance(text, str | int) or isinstance(text, bool):
        raise InvalidAmountError(f"not an amount with a currency: {str(text)[:40]!r} {str(currency)[:20]!r}")
    return _parse(str(text).strip(), currency)


@lru_cache(1024)  # the same prices occur again and again
def _parse(text: str, currency: str) -> Money:
    if not _CURRENCY.fullmatch(currency):
        raise InvalidAmountError(f"not an ISO 4217 currency: {currency[:20]!r}")
    if not _NUMBER.fullmatch(text):
        raise InvalidAmountError(f"not an amount: {text[:40]!r}")
    try:
        scaled = Decimal(text).scaleb(digits(currency))
    except InvalidOperation as error:  # pragma: no cover - the pattern above refuses such text
        raise InvalidAmountError(f"not an amount: {text!r}") from error
    if scaled != scaled.to_integral_value():
        raise InvalidAmountError(f"{text} has more decimals than {currency} allows")
    if abs(scaled) > LARGEST:
        raise InvalidAmountError(f"{text} {currency} is larger than the largest supported amount")
    return Money(int(scaled), currency)


def format_amount(money: Money) -> str:
    """Return the amount as PayPal expects it: two decimals, or none for HUF, JPY and TWD."""
    return f"{Decimal(money.amount).scaleb(-digits(money.currency)):.{digits(money.currency)}f}"


def format_money(money: Money, locale: str = "en_US") -> str:
    """Return the amount for people: `$19.99 USD`, `19,99 €`. Adds the currency code to a sign that several share."""
    number = Decimal(money.amount).scaleb(-digits(money.currency))
    text = _pattern(locale, digits(money.currency)).apply(
        number, locale, currency=money.currency, currency_digits=False
    )
    return f"{text} {money.currency}" if _ambiguous(text) else text


@cache
def _pattern(locale: str, decimals: int) -> NumberPattern:
    """Return the locale's format for prices, with PayPal's number of decimals instead of CLDR's."""
    pattern: NumberPattern = copy(Locale.parse(locale).currency_formats["standard"])
    pattern.frac_prec = (decimals, decimals)
    return pattern


def _ambiguous(text: str) -> bool:
    return "$" in text or "kr" in text or "¥" in text
