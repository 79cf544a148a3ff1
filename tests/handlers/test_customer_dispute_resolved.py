"""CUSTOMER.DISPUTE.RESOLVED: money that PayPal returned after a won dispute restores the payment and the access."""

from collections.abc import Callable
from datetime import timedelta

from tests.support.event_feeder import EventFeeder
from tests.support.example_people import ALICE
from tests.support.sample_events import sample

SALE, REVERSAL = "3AL51924877811803", "6CL88213640927754"


def test_won_dispute_restores_payment_and_access(feeders: Callable[..., EventFeeder]) -> None:
    taken = sample(
        "PAYMENT.SALE.REVERSED", {"id": REVERSAL, "sale_id": SALE, "amount.total": "-29.00", "amount.currency": "EUR"}
    )
    returned = taken["resource"] | {"state": "cancelled", "update_time": "2026-03-25T07:00:00Z"}
    feeder = feeders(
        {("refund", REVERSAL): returned, ("sale", SALE): sample("PAYMENT.SALE.COMPLETED")["resource"] | {"id": SALE}}
    )
    feeder.hear(
        sample("READ.PLAN"), sample("BILLING.SUBSCRIPTION.ACTIVATED"), sample("PAYMENT.SALE.COMPLETED", {"id": SALE})
    )
    before = feeder.subscription(ALICE).paid_through
    feeder.hear(taken)
    assert feeder.payments()[SALE].status == "reversed"
    feeder.hear(sample("CUSTOMER.DISPUTE.RESOLVED"))
    feeder.ask(timedelta(hours=2))
    assert (feeder.payments()[SALE].status, feeder.payments()[SALE].refunded) == ("completed", 0)
    assert feeder.subscription(ALICE).paid_through == before
    assert feeder.mail("dispute").facts["outcome"] == "resolved seller favour"
