"""Payments and refunds: sums and statuses are computed from all events, in any order."""

from itertools import permutations

import pytest

from tests.support.event_feeder import Teller, at
from tests.support.example_people import ALICE, BOB
from tests.support.pipeline_under_test import River
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
    ([("R1", "40.00")], 4000, "refunded"),
])  # fmt: skip
def test_refunded_amount_is_the_sum_or_paypals_larger_total(
    brook: River, refunds: list[tuple[str, ...]], refunded: int, status: str
) -> None:
    teller = Teller(brook)
    teller.hear(sample(COMPLETED), *[refund(*fields) for fields in refunds])
    row = teller.payments()[SALE]
    assert (row.refunded, row.status) == (refunded, status)


def test_sale_and_refunds_give_the_same_rows_in_every_order(brook: River) -> None:
    released = {"payment_hold_status": "RELEASED", "update_time": "2026-02-28T12:00:00Z"}
    pending = sample(PENDING, sample(COMPLETED)["resource"])
    for order in permutations([pending, sample(COMPLETED, released), sample(REFUNDED), sample(REFUNDED, SECOND)]):
        brook.empty()
        teller = Teller(brook)
        teller.tell(*order)
        teller.work(batch=2)
        row = teller.payments()[SALE]
        assert (row.status, row.refunded, row.amount, row.fee) == ("refunded", 2900, 2900, 150)
        assert row.occurred_at == at("2026-02-24T09:16:38Z")
        assert {refund.id: refund.amount for refund in teller.refunds().values()} == {REFUND: 900, SECOND["id"]: 2000}


@pytest.mark.parametrize("first", [REFUNDED, "READ.REFUND"])
def test_newer_event_decides_a_refund(brook: River, first: str) -> None:
    resource = sample(REFUNDED)["resource"]
    events = {
        REFUNDED: sample(REFUNDED, {"create_time": GONE}),  # only the envelope has a time
        "READ.REFUND": sample("READ.REFUND", resource | {"update_time": "2026-02-27T17:00:00Z"}),
    }
    teller = Teller(brook)
    teller.hear(events.pop(first), *events.values())
    assert teller.refunds()[REFUND].occurred_at == at("2026-02-27T16:20:28Z")


def test_final_status_supersedes_later_pending(brook: River) -> None:
    teller = Teller(brook)
    later = sample(COMPLETED)["resource"] | {"update_time": "2026-02-28T12:00:00Z"}
    teller.hear(sample(COMPLETED), sample(PENDING, later))
    assert teller.payments()[SALE].status == "completed"


def test_completed_wins_over_denied_at_the_same_time(brook: River) -> None:
    resource = sample(COMPLETED)["resource"]
    for order in permutations([sample(COMPLETED), sample(DENIED, resource | {"state": "denied"})]):
        brook.empty()
        teller = Teller(brook)
        teller.hear(*order)
        assert teller.payments()[SALE].status == "completed"


def test_any_event_can_supply_the_subscription(brook: River) -> None:
    without_names = {"billing_agreement_id": GONE, "custom": GONE}
    for order in permutations([sample(PENDING, sample(COMPLETED)["resource"]), sample(COMPLETED, without_names)]):
        brook.empty()
        teller = Teller(brook)
        teller.hear(*order)
        assert teller.payments()[SALE].subscription_id == ALICE.subscription
        assert teller.subscription(ALICE).customer_id is not None
        assert teller.owed() == ["receipt"]


def test_refund_does_not_affect_another_customer(brook: River) -> None:
    teller = Teller(brook)
    teller.hear(sample("READ.SUBSCRIPTION"), sample("READ.SALE"), sample(COMPLETED), sample(REFUNDED))
    assert teller.payments()["6BB30571942218835"].refunded == 0
    assert teller.subscription(BOB).paid_through == at("2027-02-20T10:00Z")


def test_negative_sale_is_parked(brook: River) -> None:
    teller = Teller(brook)
    teller.hear(sample(COMPLETED, {"amount.total": "-29.00"}))
    assert teller.reasons() == ["PAYMENT.SALE.COMPLETED has a negative amount"]
    assert teller.payments() == {}


def test_denied_sale_pays_for_nothing(brook: River) -> None:
    teller = Teller(brook)
    denied = sample(COMPLETED)["resource"] | {"state": "denied"}
    teller.hear(sample("READ.PLAN"), sample("BILLING.SUBSCRIPTION.CREATED"), sample(DENIED, denied))
    assert teller.subscription(ALICE).paid_through is None
