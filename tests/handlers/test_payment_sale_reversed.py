"""PayPal took the money back: the books follow, and PayPal itself tells the buyer."""

from collections.abc import Callable

import pytest

from tests.support.event_feeder import Teller, at
from tests.support.example_people import ALICE, BOB
from tests.support.sample_events import renamed, sample

REVERSED = "PAYMENT.SALE.REVERSED"
SALE, REVERSAL = "6BB30571942218835", "1BB69035148820067"


@pytest.fixture
def paid(teller: Teller) -> Teller:
    """Bob has paid 499.00 USD for a year."""
    teller.hear(sample("READ.SUBSCRIPTION"), sample("READ.SALE"))
    assert teller.subscription(BOB).paid_through == at("2027-02-20T10:00Z")
    return teller


def test_the_payment_is_reversed_and_its_period_gone(paid: Teller) -> None:
    paid.hear(sample("READ.REFUND"), sample(REVERSED))
    payment, reversal = paid.payments()[SALE], paid.refunds()[REVERSAL]
    assert (payment.status, payment.refunded) == ("reversed", 49900)
    assert (reversal.kind, reversal.amount) == ("reversal", 49900)
    assert paid.subscription(BOB).paid_through == at("2026-02-20T10:00Z")


def test_nobody_is_written_to(paid: Teller) -> None:
    mails = set(paid.mails())
    paid.hear(sample("READ.REFUND"), sample(REVERSED))
    assert set(paid.mails()) == mails


def test_without_its_sale_it_waits_for_paypals_answer(tellers: Callable[..., Teller]) -> None:
    teller = tellers({("refund", REVERSAL): sample("READ.REFUND")["resource"]})
    teller.hear(sample("READ.SUBSCRIPTION"), sample("READ.SALE"), sample(REVERSED))
    assert teller.payments()[SALE].status == "completed"
    teller.ask()
    assert teller.payments()[SALE].status == "reversed"
    assert set(teller.states()) == {"handled"}


def test_one_that_names_its_sale_needs_no_answer(paid: Teller) -> None:
    paid.hear(sample(REVERSED, {"sale_id": SALE}))
    assert paid.payments()[SALE].status == "reversed"


def test_a_strangers_reversal_is_parked_without_credentials(teller: Teller) -> None:
    teller.hear(sample(REVERSED))
    assert teller.states() == ["parked"]
    assert (teller.payments(), teller.subscriptions()) == ({}, [])


def test_the_others_keep_what_they_paid(paid: Teller) -> None:
    paid.hear(
        sample("BILLING.SUBSCRIPTION.ACTIVATED"), sample("PAYMENT.SALE.COMPLETED"), sample(REVERSED, {"sale_id": SALE})
    )
    assert paid.subscription(ALICE).paid_through == at("2026-03-24T10:00Z")


def test_told_twice_it_is_once_also_under_another_id(paid: Teller) -> None:
    paid.hear(sample("READ.REFUND"), sample(REVERSED), sample(REVERSED), renamed(sample(REVERSED)))
    assert paid.payments()[SALE].refunded == 49900
    assert list(paid.refunds()) == [REVERSAL]
