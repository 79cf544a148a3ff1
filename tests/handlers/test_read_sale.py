"""READ.SALE stores a sale; its state and hold together decide its status."""

import pytest

from tests.support.event_feeder import EventFeeder
from tests.support.example_people import BOB
from tests.support.sample_events import sample

READ, SALE = "READ.SALE", "6BB30571942218835"


@pytest.mark.parametrize(("changes", "status"), [
    ({}, "completed"),
    ({"payment_hold_status": "HELD"}, "pending"),
    ({"payment_hold_status": "RELEASED"}, "completed"),
    ({"state": "pending"}, "pending"),
    ({"state": "denied"}, "denied"),
    ({"state": "partially_refunded"}, "completed"),
    ({"state": "refunded"}, "completed"),
])  # fmt: skip
def test_state_and_hold_decide_the_status(feeder: EventFeeder, changes: dict[str, str], status: str) -> None:
    feeder.hear(sample(READ, changes))
    row = feeder.payments()[SALE]
    assert (row.subscription_id, row.status, row.amount) == (BOB.subscription, status, 49900)


def test_completed_sale_gets_one_receipt(feeder: EventFeeder) -> None:
    feeder.hear(sample(READ), sample("PAYMENT.SALE.COMPLETED", sample(READ)["resource"]))
    assert feeder.owed() == ["receipt"]


def test_unknown_state_is_parked(feeder: EventFeeder) -> None:
    feeder.hear(sample(READ, {"state": "frozen"}))
    assert feeder.reasons() == ["unknown state of a sale: frozen"]
    assert feeder.payments() == {}


def test_repeated_event_changes_nothing(feeder: EventFeeder) -> None:
    feeder.hear(sample(READ), sample(READ))
    assert (feeder.states(), list(feeder.payments())) == (["handled"], [SALE])
