"""PayPal's answer about a sale: without an event's name, state and hold together say how it is."""

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
def test_state_and_hold_say_how_it_is(teller: Teller, changes: dict[str, str], status: str) -> None:
    teller.hear(sample(READ, changes))
    row = teller.payments()[SALE]
    assert (row.subscription_id, row.status, row.amount) == (BOB.subscription, status, 49900)


def test_a_completed_one_is_receipted_once(teller: Teller) -> None:
    teller.hear(sample(READ), sample("PAYMENT.SALE.COMPLETED", sample(READ)["resource"]))
    assert teller.owed() == ["receipt"]


def test_a_state_we_do_not_know_is_parked(teller: Teller) -> None:
    teller.hear(sample(READ, {"state": "frozen"}))
    assert teller.reasons() == ["PayPal calls this sale frozen, which we do not know"]
    assert teller.payments() == {}


def test_told_twice_it_is_once(teller: Teller) -> None:
    teller.hear(sample(READ), sample(READ))
    assert (teller.states(), list(teller.payments())) == (["handled"], [SALE])
