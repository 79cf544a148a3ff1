"""CUSTOMER.DISPUTE.RESOLVED: money that PayPal returned after a won dispute restores the payment and the access."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from pipeline.db.models import Dispute
from tests.support.event_feeder import EventFeeder
from tests.support.example_people import ALICE
from tests.support.sample_events import GONE, sample

EVENT = "CUSTOMER.DISPUTE.RESOLVED"
SALE, REVERSAL = "3AL51924877811803", "6CL88213640927754"


def sale() -> dict[str, Any]:
    resource: dict[str, Any] = sample("PAYMENT.SALE.COMPLETED", {"id": SALE})["resource"]
    return resource


def test_won_dispute_restores_payment_and_access(feeders: Callable[..., EventFeeder]) -> None:
    taken = sample(
        "PAYMENT.SALE.REVERSED", {"id": REVERSAL, "sale_id": SALE, "amount.total": "-29.00", "amount.currency": "EUR"}
    )
    returned = taken["resource"] | {"state": "cancelled", "update_time": "2026-03-25T07:00:00Z"}
    feeder = feeders({("refund", REVERSAL): returned, ("sale", SALE): sale()})
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


def test_event_that_names_no_payment_ends_the_stored_dispute(feeder: EventFeeder) -> None:
    feeder.hear(sample("PAYMENT.SALE.COMPLETED", {"id": SALE}), sample("CUSTOMER.DISPUTE.CREATED"))
    feeder.hear(sample(EVENT, {"disputed_transactions": GONE}))
    assert set(feeder.states()) == {"handled"}
    [row] = feeder.pipeline.rows(Dispute)
    assert (row.payment_id, row.outcome) == (SALE, "RESOLVED_SELLER_FAVOUR")
    assert [mail.facts["payment"] for mail in feeder.mails().values() if mail.kind == "dispute"] == [SALE, SALE]


def test_outcome_before_the_opening_looks_the_payment_up(feeders: Callable[..., EventFeeder]) -> None:
    """The outcome names no payment here, and the event that opened the dispute has not arrived yet."""
    answer = sample("CUSTOMER.DISPUTE.RESOLVED")["resource"]
    feeder = feeders({("dispute", answer["dispute_id"]): answer, ("sale", SALE): sale()})
    feeder.hear(sample(EVENT, {"disputed_transactions": GONE}))
    assert feeder.questions() == [("dispute", answer["dispute_id"])]
    feeder.ask()
    [row] = feeder.pipeline.rows(Dispute)
    assert row.payment_id == SALE
    feeder.ask(timedelta(hours=2))
    assert feeder.payments()[SALE].subscription_id == ALICE.subscription
    assert ("dispute", answer["dispute_id"]) not in feeder.questions()
