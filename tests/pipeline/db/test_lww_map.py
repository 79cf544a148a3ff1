"""The newest known value of each field, whatever the order in which it became known, and however often."""

from datetime import UTC, datetime, timedelta, timezone
from itertools import permutations
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.db.lww_map import merge, updated_at, value

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
times = st.integers(0, 4).map(lambda seconds: NOON + timedelta(seconds=seconds / 2))
values = st.one_of(
    st.none(), st.integers(0, 3), st.sampled_from(["", "a", "b"]), st.lists(st.integers(0, 2), max_size=2)
)
news = st.lists(st.tuples(times, st.dictionaries(st.sampled_from("xyz"), values, max_size=3)), max_size=5)
quick = settings(max_examples=200, deadline=None, derandomize=True)


def told(all_news: Any) -> dict[str, Any]:
    known: dict[str, Any] = {}
    for at, fields in all_news:
        known = merge(known, at, fields)
    return known


@quick
@given(news, st.randoms(use_true_random=False))
def test_any_order_and_any_repetition_know_the_same(all_news: list[Any], order: Any) -> None:
    again = all_news + [item for item in all_news if order.random() < 0.5]
    order.shuffle(again)
    assert told(again) == told(all_news)


@quick
@given(news)
def test_nothing_newer_is_ever_lost(all_news: list[Any]) -> None:
    known = told(all_news)
    for at, fields in all_news:
        for field, item in fields.items():
            assert item is None or (since := updated_at(known, field)) is None or since >= at


def test_the_later_value_counts_and_nothing_says_nothing() -> None:
    known = told(
        [(NOON, {"x": 1}), (NOON + timedelta(seconds=1), {"x": 2}), (NOON + timedelta(seconds=2), {"x": None})]
    )
    assert (value(known, "x"), updated_at(known, "x")) == (2, NOON + timedelta(seconds=1))
    assert (value(known, "y"), updated_at(known, "y")) == (None, None)


def test_at_one_time_the_larger_counts() -> None:
    for order in permutations([(NOON, {"x": "2026-03-01"}), (NOON, {"x": "2026-04-01"}), (NOON, {"x": "2026-02-01"})]):
        assert value(told(order), "x") == "2026-04-01"


def test_times_compare_across_zones_and_fractions() -> None:
    earlier, later = NOON, (NOON + timedelta(microseconds=1)).astimezone(timezone(timedelta(hours=-8)))
    for order in permutations([(earlier, {"x": "old"}), (later, {"x": "new"})]):
        assert value(told(order), "x") == "new"
        assert updated_at(told(order), "x") == later


def test_what_was_known_stays_untouched() -> None:
    before = told([(NOON, {"x": 1})])
    merge(before, NOON + timedelta(seconds=1), {"x": 2})
    assert value(before, "x") == 1
