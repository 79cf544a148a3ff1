"""Payments and refunds: sums and statuses are computed from all events, in any order."""

from itertools import permutations

import pytest

from tests.support.event_feeder import EventFeeder, at
from tests.support.example_people import ALICE, BOB
from tests.support.pipeline_under_test import PipelineUnderTest
from tests.support.sample_events import GONE, sample

COMPLETED, PENDING, DENIED = "PAYMENT.SALE.COMPLETED", "PAYMENT.SALE.PENDING", "PAYMENT.SALE.DENIED"
REFUNDED, REVERSED = "PAYMENT.SALE.REFUNDED", "PAYMENT.SALE.REVERSED"
SALE, REFUND = "3AL51924877811803", "5AL88213640927754"
SECOND = {
    "id": "5AL88213640927999", "amount.total": "-20.00", "total_refunded_amount.total": "29.00",
    "create_time": "2026-02-28T09:00:00Z", "update_time": "2026-02-28T09:00:00Z",
}  # fmt: skip


def refund(id: str, total: str, total_so_far: str | None = None, currency: str = "EUR") -> dict[str, object]:
    money = {"total": total, "currency": currency}
    sum_so_far = GONE if total_so_far is None else {"total": total_so_far, "currency": currency}
    return sample(REFUNDED, {"id": id, "amount": money, "total_refunded_amount": sum_so_far})


@pytest.mark.parametrize(("refunds", "refunded", "status"), [
    ([], 0, "completed"),
    ([("R1", "9.00")], 900, "partially_refunded"),
    ([("R1", "9.00"), ("R2", "20.00")], 2900, "refunded"),
    ([("R1", "-9.00", "-9.00"), ("R2", "-20.00", "-29.00")], 2900, "refunded"),
    ([("R2", "1.00", "10.00")], 1000, "partially_refunded"),  # the event of an earlier refund of 9.00 is lost
    ([("R1", "9.00", "9.00"), ("R2", "1.00", "10.00")], 1000, "partially_refunded"),
    ([("R1", "9.00", None, "USD")], 0, "completed"),  # no sum over two currencies
    ([("R1", "40.00")], 2900, "refunded"),  # more than the payment cannot be returned
    ([("R1", "29.00"), ("R2", "29.00")], 2900, "refunded"),  # PayPal also reports a reversal of a refunded payment
])  # fmt: skip
def test_refunded_amount_is_the_sum_or_paypals_larger_total(
    sqlite_pipeline: PipelineUnderTest, refunds: list[tuple[str, ...]], refunded: int, status: str
) -> None:
    feeder = EventFeeder(sqlite_pipeline)
    feeder.hear(sample(COMPLETED), *[refund(*fields) for fields in refunds])
    row = feeder.payments()[SALE]
    assert (row.refunded, row.status) == (refunded, status)


def test_sale_and_refunds_give_the_same_rows_in_every_order(sqlite_pipeline: PipelineUnderTest) -> None:
    released = {"payment_hold_status": "RELEASED", "update_time": "2026-02-28T12:00:00Z"}
    pending = sample(PENDING, sample(COMPLETED)["resource"])
    for order in permutations([pending, sample(COMPLETED, released), sample(REFUNDED), sample(REFUNDED, SECOND)]):
        sqlite_pipeline.empty()
        feeder = EventFeeder(sqlite_pipeline)
        feeder.tell(*order)
        feeder.work(batch=2)
        row = feeder.payments()[SALE]
        assert (row.status, row.refunded, row.amount, row.fee) == ("refunded", 2900, 2900, 150)
        assert row.occurred_at == at("2026-02-24T09:16:38Z")
        assert {refund.id: refund.amount for refund in feeder.refunds().values()} == {REFUND: 900, SECOND["id"]: 2000}


@pytest.mark.parametrize("first", [REFUNDED, "READ.REFUND"])
def test_newer_event_decides_a_refund(sqlite_pipeline: PipelineUnderTest, first: str) -> None:
    resource = sample(REFUNDED)["resource"]
    events = {
        REFUNDED: sample(REFUNDED, {"create_time": GONE}),  # only the envelope has a time
        "READ.REFUND": sample("READ.REFUND", resource | {"update_time": "2026-02-27T17:00:00Z"}),
    }
    feeder = EventFeeder(sqlite_pipeline)
    feeder.hear(events.pop(first), *events.values())
    assert feeder.refunds()[REFUND].occurred_at == at("2026-02-27T16:20:28Z")


def test_final_status_supersedes_later_pending(sqlite_pipeline: PipelineUnderTest) -> None:
    feeder = EventFeeder(sqlite_pipeline)
    later = sample(COMPLETED)["resource"] | {"update_time": "2026-02-28T12:00:00Z"}
    feeder.hear(sample(COMPLETED), sample(PENDING, later))
    assert feeder.payments()[SALE].status == "completed"


def test_completed_wins_over_denied_at_the_same_time(sqlite_pipeline: PipelineUnderTest) -> None:
    resource = sample(COMPLETED)["resource"]
    for order in permutations([sample(COMPLETED), sample(DENIED, resource | {"state": "denied"})]):
        sqlite_pipeline.empty()
        feeder = EventFeeder(sqlite_pipeline)
        feeder.hear(*order)
        assert feeder.payments()[SALE].status == "completed"


def test_any_event_can_supply_the_subscription(sqlite_pipeline: PipelineUnderTest) -> None:
    without_names = {"billing_agreement_id": GONE, "custom": GONE}
    for order in permutations([sample(PENDING, sample(COMPLETED)["resource"]), sample(COMPLETED, without_names)]):
        sqlite_pipeline.empty()
        feeder = EventFeeder(sqlite_pipeline)
        feeder.hear(*order)
        assert feeder.payments()[SALE].subscription_id == ALICE.subscription
        assert "custom_ref" in feeder.subscription(ALICE).known
        assert feeder.owed() == ["receipt"]


def test_refund_does_not_affect_another_customer(sqlite_pipeline: PipelineUnderTest) -> None:
    feeder = EventFeeder(sqlite_pipeline)
    feeder.hear(sample("READ.SUBSCRIPTION"), sample("READ.SALE"), sample(COMPLETED), sample(REFUNDED))
    assert feeder.payments()["6BB30571942218835"].refunded == 0
    assert feeder.subscription(BOB).paid_through == at("2027-02-20T10:00Z")


def test_negative_sale_is_parked(sqlite_pipeline: PipelineUnderTest) -> None:
    feeder = EventFeeder(sqlite_pipeline)
    feeder.hear(sample(COMPLETED, {"amount.total": "-29.00"}))
    assert feeder.reasons() == ["PAYMENT.SALE.COMPLETED has a negative amount"]
    assert feeder.payments() == {}


def test_denied_sale_pays_for_nothing(sqlite_pipeline: PipelineUnderTest) -> None:
    feeder = EventFeeder(sqlite_pipeline)
    denied = sample(COMPLETED)["resource"] | {"state": "denied"}
    feeder.hear(sample("READ.PLAN"), sample("BILLING.SUBSCRIPTION.CREATED"), sample(DENIED, denied))
    assert feeder.subscription(ALICE).paid_through is None


@pytest.mark.parametrize("field", ["update_time", "create_time"])
def test_time_more_than_a_day_after_reception_is_not_believed(sqlite_pipeline: PipelineUnderTest, field: str) -> None:
    """Such a time would outrank everything that PayPal reports until then, so a person decides about the event."""
    sqlite_pipeline.clock.move_to(at("2026-02-24T09:16:45Z"))
    feeder = EventFeeder(sqlite_pipeline)
    feeder.hear(sample(COMPLETED, {field: "2027-02-24T09:16:40Z"}), at="2026-02-24T09:16:45Z")
    assert feeder.states() == ["parked"]
    [reason] = feeder.reasons()
    assert reason.endswith(" is 2027-02-24T09:16:40Z, but the event was received 2026-02-24T09:16:45Z")
    feeder.hear(sample(REFUNDED), sample(COMPLETED))
    assert feeder.payments()[SALE].status == "partially_refunded"


def test_time_less_than_a_day_after_reception_is_believed(sqlite_pipeline: PipelineUnderTest) -> None:
    sqlite_pipeline.clock.move_to(at("2026-02-24T09:16:45Z"))
    feeder = EventFeeder(sqlite_pipeline)
    feeder.hear(sample(COMPLETED, {"update_time": "2026-02-25T09:16:44Z"}), at="2026-02-24T09:16:45Z")
    assert feeder.payments()[SALE].status == "completed"
