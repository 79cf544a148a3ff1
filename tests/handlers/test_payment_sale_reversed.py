"""PAYMENT.SALE.REVERSED stores a reversal and queues no mail, because PayPal informs the buyer."""

from collections.abc import Callable

import pytest

from tests.support.event_feeder import EventFeeder, at
from tests.support.example_people import ALICE, BOB
from tests.support.sample_events import renamed, sample

REVERSED = "PAYMENT.SALE.REVERSED"
SALE, REVERSAL = "6BB30571942218835", "1BB69035148820067"


@pytest.fixture
def paid(feeder: EventFeeder) -> EventFeeder:
    """Return a `EventFeeder` after Bob has paid 499.00 USD for a year."""
    feeder.hear(sample("READ.SUBSCRIPTION"), sample("READ.SALE"))
    assert feeder.subscription(BOB).paid_through == at("2027-02-20T10:00Z")
    return feeder


def test_reversal_takes_back_the_period(paid: EventFeeder) -> None:
    paid.hear(sample("READ.REFUND"), sample(REVERSED))
    payment, reversal = paid.payments()[SALE], paid.refunds()[REVERSAL]
    assert (payment.status, payment.refunded) == ("reversed", 49900)
    assert (reversal.kind, reversal.amount) == ("reversal", 49900)
    assert paid.subscription(BOB).paid_through == at("2026-02-20T10:00Z")


def test_reversal_queues_no_mail(paid: EventFeeder) -> None:
    mails = set(paid.mails())
    paid.hear(sample("READ.REFUND"), sample(REVERSED))
    assert set(paid.mails()) == mails


def test_reversal_without_sale_waits_for_a_look_up(feeders: Callable[..., EventFeeder]) -> None:
    feeder = feeders({("refund", REVERSAL): sample("READ.REFUND")["resource"]})
    feeder.hear(sample("READ.SUBSCRIPTION"), sample("READ.SALE"), sample(REVERSED))
    assert feeder.payments()[SALE].status == "completed"
    feeder.ask()
    assert feeder.payments()[SALE].status == "reversed"
    assert set(feeder.states()) == {"handled"}


def test_reversal_with_sale_needs_no_look_up(paid: EventFeeder) -> None:
    paid.hear(sample(REVERSED, {"sale_id": SALE}))
    assert paid.payments()[SALE].status == "reversed"


def test_unknown_reversal_is_parked_without_credentials(feeder: EventFeeder) -> None:
    feeder.hear(sample(REVERSED))
    assert feeder.states() == ["parked"]
    assert (feeder.payments(), feeder.subscriptions()) == ({}, [])


def test_other_customers_keep_their_periods(paid: EventFeeder) -> None:
    paid.hear(
        sample("BILLING.SUBSCRIPTION.ACTIVATED"), sample("PAYMENT.SALE.COMPLETED"), sample(REVERSED, {"sale_id": SALE})
    )
    assert paid.subscription(ALICE).paid_through == at("2026-03-24T10:00Z")


def test_repeated_event_changes_nothing_even_under_another_id(paid: EventFeeder) -> None:
    paid.hear(sample("READ.REFUND"), sample(REVERSED), sample(REVERSED), renamed(sample(REVERSED)))
    assert paid.payments()[SALE].refunded == 49900
    assert list(paid.refunds()) == [REVERSAL]
