"""Parsing of PayPal's times, and a clock that tests set."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.clock import MovableClock, SystemClock, format_time, parse_time

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize("text", [
    "2026-03-01T12:00:00Z", "2026-03-01T12:00:00.000Z", "2026-03-01t12:00:00z", "2026-03-01T04:00:00-08:00",
    "2026-03-01T12:00:00+0000", "2026-03-01T12:00:00", "2026-03-01 12:00:00", " 2026-03-01T12:00:00Z ",
    "2026-03-01T17:30:00+05:30", "2026-03-01T12:00:00.000000000Z",
])  # fmt: skip
def test_all_time_formats_of_paypal_are_parsed(text: str) -> None:
    assert parse_time(text) == NOON


def test_fractions_are_kept_to_microseconds() -> None:
    assert parse_time("2026-03-01T12:00:00.123456789Z") == NOON + timedelta(microseconds=123456)
    assert parse_time("2026-03-01T12:00:00.5Z") == NOON + timedelta(milliseconds=500)


@pytest.mark.parametrize("text", [
    "2018-19-12T22:20:32.000Z", "2026-02-30T00:00:00Z", "2026-03-01", "12:00", "", "soon", None, 1772366400000, b"x",
    "2026-03-01T25:00:00Z", "2026-03-01T12:00:00+99:00", "9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+12:00",
    "\uff12026-03-01T12:00:00Z",
])  # fmt: skip
def test_invalid_time_is_none(text: object) -> None:
    assert parse_time(text) is None


@given(st.text() | st.from_regex(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:?\d\d)?", fullmatch=True))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_parsing_never_raises(text: str) -> None:
    found = parse_time(text)
    assert found is None or found.tzinfo is UTC


@given(st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2200, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001
@settings(max_examples=200, deadline=None, derandomize=True)
def test_formatted_value_is_parsed_to_same_value(moment: datetime) -> None:
    assert parse_time(format_time(moment)) == moment


def test_time_is_formatted_in_utc() -> None:
    assert format_time(NOON.astimezone(timezone(timedelta(hours=5, minutes=30)))) == "2026-03-01T12:00:00Z"
    assert format_time(NOON + timedelta(milliseconds=5)) == "2026-03-01T12:00:00.005000Z"


def test_movable_clock_changes_only_when_set() -> None:
    clock = MovableClock(NOON.astimezone(timezone(timedelta(hours=-8))))
    assert clock.now() == clock.now() == NOON
    assert clock.now().tzinfo is UTC
    clock.advance(timedelta(hours=1))
    assert clock.now() == NOON + timedelta(hours=1)
    clock.move_to(NOON)
    assert clock.now() == NOON


def test_system_clock_returns_utc() -> None:
    assert SystemClock().now().tzinfo is UTC
