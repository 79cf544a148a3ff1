"""PAYMENT.SALE.REVERSED stores a reversal and queues no mail, because PayPal informs the buyer."""

from collections.abc import Callable

import pytest

from tests.support.event_feeder import Teller, at
from tests.support.example_people import ALICE, BOB
from tests.support.sample_events import renamed, sample

REVERSED = "PAYMENT.SALE.REVERSED"
SALE, REVERSAL = "6BB30571942218835", "1BB69035148820067"


@pytest.fixture
def paid(teller: Teller) -> Teller:
    """Return a `Teller` after Bob has paid 499.00 USD for a year."""
    teller.hear(sample("READ.SUBSCRIPTION"), sample("READ.SALE"))
    assert teller.subscription(BOB).paid_through == at("2027-02-20T10:00Z")
    return teller


def test_reversal_takes_back_the_period(paid: Teller) -> None:
    paid.hear(sample("READ.REFUND"), sample(REVERSED))
    payment, reversal = paid.payments()[SALE], paid.refunds()[REVERSAL]
    assert (payment.status, payment.refunded) == ("reversed", 49900)
    assert (reversal.kind, reversal.amount) == ("reversal", 49900)
    assert paid.subscription(BOB).paid_through == at("2026-02-20T10:00Z")


def test_reversal_queues_no_mail(paid: Teller) -> None:
    mails = set(paid.mails())
    paid.hear(sample("READ.REFUND"), sample(REVERSED))
    assert set(paid.mails()) == mails


def test_reversal_without_sale_waits_for_a_look_up(tellers: Callable[..., Teller]) -> None:
    teller = tellers({("refund", REVERSAL): sample("READ.REFUND")["resource"]})
    teller.hear(sample("READ.SUBSCRIPTION"), sample("READ.SALE"), sample(REVERSED))
    assert teller.payments()[SALE].status == "completed"
    teller.ask()
    assert teller.payments()[SALE].status == "reversed"
    assert set(teller.states()) == {"handled"}


def test_reversal_with_sale_needs_no_look_up(paid: Teller) -> None:
    paid.hear(sample(REVERSED, {"sale_id": SALE}))
    assert paid.payments()[SALE].status == "reversed"


def test_unknown_reversal_is_parked_without_credentials(teller: Teller) -> None:
    teller.hear(sample(REVERSED))
    assert teller.states() == ["parked"]
    assert (teller.payments(), teller.subscriptions()) == ({}, [])


def test_other_customers_keep_their_periods(paid: Teller) -> None:
    paid.hear(
        sample("BILLING.SUBSCRIPTION.ACTIVATED"), sample("PAYMENT.SALE.COMPLETED"), sample(REVERSED, {"sale_id": SALE})
    )
    assert paid.subscription(ALICE).paid_through == at("2026-03-24T10:00Z")


def test_repeated_event_changes_nothing_even_under_another_id(paid: Teller) -> None:
    paid.hear(sample("READ.REFUND"), sample(REVERSED), sample(REVERSED), renamed(sample(REVERSED)))
    assert paid.payments()[SALE].refunded == 49900
    assert list(paid.refunds()) == [REVERSAL]
