"""Amounts: tolerant parsing of PayPal's text, exact formatting."""

from contextlib import suppress
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.money import (
    LARGEST,
    NO_DIGITS,
    InvalidAmountError,
    Money,
    digits,
    format_amount,
    format_money,
    parse_amount,
)

currencies = st.sampled_from(["USD", "EUR", "GBP", "SEK", "HUF", "JPY", "TWD"])
amounts = st.integers(-LARGEST, LARGEST)


@pytest.mark.parametrize(("text", "currency", "minor"), [
    ("19.99", "USD", 1999), ("5", "USD", 500), ("5.0", "USD", 500), ("5.", "USD", 500), (".5", "USD", 50),
    ("0", "EUR", 0), ("-5.00", "EUR", -500), ("+5.00", "EUR", 500), (" 5.00 ", "EUR", 500), (5, "EUR", 500),
    ("0.10", "USD", 10), ("1290", "HUF", 1290), ("4800", "JPY", 4800), ("300.00", "TWD", 300), ("5.000", "USD", 500),
    ("007", "USD", 700),
])  # fmt: skip
def test_amounts_of_paypal_are_parsed(text: object, currency: str, minor: int) -> None:
    assert parse_amount(text, currency) == Money(minor, currency)


@pytest.mark.parametrize(("text", "currency"), [
    ("5,00", "EUR"), ("", "EUR"), (".", "EUR"), ("1e3", "EUR"), ("NaN", "EUR"), ("5.005", "EUR"), ("4800.5", "JPY"),
    ("5 EUR", "EUR"), (5.0, "EUR"), (True, "EUR"), (None, "EUR"), ("--5", "EUR"), ("99999999999999999", "EUR"),
    ("\u0665", "EUR"), ("5", "eur"), ("5", "EURO"), ("5", ""), ("5", None), ("5", 978),
])  # fmt: skip
def test_invalid_amount_is_refused(text: object, currency: object) -> None:
    with pytest.raises(InvalidAmountError):
        parse_amount(text, currency)


@given(amounts, currencies)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_formatted_value_is_parsed_to_same_value(amount: int, currency: str) -> None:
    money = Money(amount, currency)
    assert parse_amount(format_amount(money), currency) == money


@given(amounts, currencies)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_formatted_amount_has_decimals_that_paypal_requires(amount: int, currency: str) -> None:
    exponent = Decimal(format_amount(Money(amount, currency))).as_tuple().exponent
    assert exponent == -digits(currency) == (0 if currency in NO_DIGITS else -2)


@given(st.text() | st.integers() | st.floats() | st.none(), st.text() | currencies)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_parsing_raises_only_invalid_amount(text: object, currency: str) -> None:
    with suppress(InvalidAmountError):
        assert abs(parse_amount(text, currency).amount) <= LARGEST


def test_money_can_be_negated() -> None:
    assert -Money(500, "EUR") == Money(-500, "EUR")
    assert abs(Money(-500, "EUR")) == Money(500, "EUR")
    assert str(Money(-500, "EUR")) == "-5.00 EUR"


@pytest.mark.parametrize(("money", "locale", "shown"), [
    (Money(1999, "USD"), "en_US", "$19.99 USD"),
    (Money(1999, "EUR"), "en_US", "€19.99"),
    (Money(199900, "EUR"), "de_DE", "1.999,00\u00a0€"),
    (Money(4800, "JPY"), "en_US", "¥4,800 JPY"),
    (Money(129000, "HUF"), "hu_HU", "129\u00a0000\u00a0Ft"),
    (Money(1999, "SEK"), "sv_SE", "19,99\u00a0kr SEK"),
])  # fmt: skip
def test_money_is_formatted_for_locale_without_ambiguity(money: Money, locale: str, shown: str) -> None:
    assert format_money(money, locale) == shown
