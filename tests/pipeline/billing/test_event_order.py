"""Any order and repetition of the same events produces the same rows for subscription, payments, refunds and plan.

Each test processes the events of a simulated subscription in order, one by one. Then it processes them shuffled, some
of them repeated under another id, in batches of any size.
"""

from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.event_histories import OrderedReplay, life, odd, shuffled

# Receipts are never superseded.
NEVER_SUPERSEDED = {"receipt", "refund_receipt"}


@pytest.fixture(scope="module")
def shore(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OrderedReplay]:
    made = OrderedReplay(tmp_path_factory.mktemp("shore"))
    yield made
    made.pipeline.database.close()


examples = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
seeds = st.integers(0, 2**32)


@pytest.mark.slow
@examples
@given(seed=seeds, order=seeds)
def test_any_order_gives_the_same_rows_and_mails(shore: OrderedReplay, seed: int, order: int) -> None:
    events = life(seed)
    expected, found = shore.tell([[event] for event in events]), shore.tell(shuffled(events, Random(order)))
    assert not expected.unhandled
    assert not found.unhandled
    assert found.rows == expected.rows
    assert found.mails.keys() == expected.mails.keys()
    assert {state for state, _, _ in expected.mails.values()} <= {"queued"}  # in order, nothing is superseded
    for key, (state, reason, is_due) in found.mails.items():
        assert is_due is (state == "queued"), key
        assert state == "queued" or (str(reason).startswith("superseded") and key.split(":")[0] not in NEVER_SUPERSEDED)


@pytest.mark.slow
@examples
@given(seed=seeds, order=seeds)
def test_any_order_of_incomplete_events_gives_the_same_rows(shore: OrderedReplay, seed: int, order: int) -> None:
    events = odd(seed)
    expected, found = shore.tell([events]), shore.tell(shuffled(events, Random(order)))
    assert found.unhandled == expected.unhandled
    assert found.rows == expected.rows
