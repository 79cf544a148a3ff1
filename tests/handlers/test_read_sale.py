"""READ.SALE stores a sale; its state and hold together decide its status."""

import pytest

from tests.support.event_feeder import Teller
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
def test_state_and_hold_decide_the_status(teller: Teller, changes: dict[str, str], status: str) -> None:
    teller.hear(sample(READ, changes))
    row = teller.payments()[SALE]
    assert (row.subscription_id, row.status, row.amount) == (BOB.subscription, status, 49900)


def test_completed_sale_gets_one_receipt(teller: Teller) -> None:
    teller.hear(sample(READ), sample("PAYMENT.SALE.COMPLETED", sample(READ)["resource"]))
    assert teller.owed() == ["receipt"]


def test_unknown_state_is_parked(teller: Teller) -> None:
    teller.hear(sample(READ, {"state": "frozen"}))
    assert teller.reasons() == ["unknown state of a sale: frozen"]
    assert teller.payments() == {}


def test_repeated_event_changes_nothing(teller: Teller) -> None:
    teller.hear(sample(READ), sample(READ))
    assert (teller.states(), list(teller.payments())) == (["handled"], [SALE])
