"""The last-writer-wins map gives the same result for any order and repetition of updates."""

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
updates = st.lists(st.tuples(times, st.dictionaries(st.sampled_from("xyz"), values, max_size=3)), max_size=5)
quick = settings(max_examples=200, deadline=None, derandomize=True)


def merge_all(updates: Any) -> dict[str, Any]:
    known: dict[str, Any] = {}
    for at, fields in updates:
        known = merge(known, at, fields)
    return known


@quick
@given(updates, st.randoms(use_true_random=False))
def test_result_does_not_depend_on_order_or_repetition(changes: list[Any], order: Any) -> None:
    again = changes + [item for item in changes if order.random() < 0.5]
    order.shuffle(again)
    assert merge_all(again) == merge_all(changes)


@quick
@given(updates)
def test_newer_value_is_never_lost(changes: list[Any]) -> None:
    known = merge_all(changes)
    for at, fields in changes:
        for field, item in fields.items():
            assert item is None or (since := updated_at(known, field)) is None or since >= at


def test_later_value_wins_and_none_is_ignored() -> None:
    known = merge_all(
        [(NOON, {"x": 1}), (NOON + timedelta(seconds=1), {"x": 2}), (NOON + timedelta(seconds=2), {"x": None})]
    )
    assert (value(known, "x"), updated_at(known, "x")) == (2, NOON + timedelta(seconds=1))
    assert (value(known, "y"), updated_at(known, "y")) == (None, None)


def test_larger_value_wins_at_equal_times() -> None:
    for order in permutations([(NOON, {"x": "2026-03-01"}), (NOON, {"x": "2026-04-01"}), (NOON, {"x": "2026-02-01"})]):
        assert value(merge_all(order), "x") == "2026-04-01"


def test_times_compare_across_zones_and_fractions() -> None:
    earlier, later = NOON, (NOON + timedelta(microseconds=1)).astimezone(timezone(timedelta(hours=-8)))
    for order in permutations([(earlier, {"x": "old"}), (later, {"x": "new"})]):
        assert value(merge_all(order), "x") == "new"
        assert updated_at(merge_all(order), "x") == later


def test_merge_does_not_change_its_input() -> None:
    before = merge_all([(NOON, {"x": 1})])
    merge(before, NOON + timedelta(seconds=1), {"x": 2})
    assert value(before, "x") == 1
