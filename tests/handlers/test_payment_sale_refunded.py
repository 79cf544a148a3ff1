"""PAYMENT.SALE.REFUNDED stores a refund once and queues one receipt, even if PayPal omits fields."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from tests.support.event_feeder import EventFeeder, at
from tests.support.example_people import ALICE
from tests.support.sample_events import GONE, renamed, sample

ACTIVATED, COMPLETED, REFUNDED = "BILLING.SUBSCRIPTION.ACTIVATED", "PAYMENT.SALE.COMPLETED", "PAYMENT.SALE.REFUNDED"
SALE, REFUND = "3AL51924877811803", "5AL88213640927754"
FULL = {"amount.total": "29.00", "total_refunded_amount.total": "29.00"}
REST = {
    "id": "5AL88213640927999", "amount.total": "20.00", "total_refunded_amount.total": "29.00",
    "create_time": "2026-02-28T09:00:00Z", "update_time": "2026-02-28T09:00:00Z",
}  # fmt: skip
WITHOUT_SALE = {"sale_id": GONE, "links": GONE}
NO_SALE = f"needs refund {REFUND} from PayPal, and no API credentials are set (SMT_PAYPAL_CLIENT_ID and …_SECRET)"


@pytest.fixture
def paid(feeder: EventFeeder) -> EventFeeder:
    """Return a `EventFeeder` after Alice has subscribed and paid 29.00 EUR."""
    feeder.hear(sample("READ.PLAN"), sample(ACTIVATED), sample(COMPLETED))
    return feeder


def test_partial_refund_keeps_the_period(paid: EventFeeder) -> None:
    paid.hear(sample(REFUNDED))
    payment, refund = paid.payments()[SALE], paid.refunds()[REFUND]
    assert (payment.status, payment.refunded) == ("partially_refunded", 900)
    assert (refund.payment_id, refund.kind, refund.amount, refund.currency) == (SALE, "refund", 900, "EUR")
    assert refund.occurred_at == at("2026-02-27T16:20:28Z")
    assert paid.subscription(ALICE).paid_through == at("2026-03-24T10:00Z")


def test_full_refund_takes_back_the_period(paid: EventFeeder) -> None:
    paid.hear(sample(REFUNDED, FULL))
    assert (paid.payments()[SALE].status, paid.payments()[SALE].refunded) == ("refunded", 2900)
    assert paid.subscription(ALICE).paid_through == at("2026-02-24T10:00Z")


def test_same_date_in_a_later_event_does_not_restore_the_period(paid: EventFeeder) -> None:
    paid.hear(sample(REFUNDED, FULL))
    paid.hear(
        sample("BILLING.SUBSCRIPTION.UPDATED", {"update_time": "2026-03-05T09:00:00Z"}, at="2026-03-05T09:00:00Z")
    )
    assert paid.subscription(ALICE).paid_through == at("2026-02-24T10:00Z")


def test_two_partial_refunds_make_a_full_refund(paid: EventFeeder) -> None:
    paid.hear(sample(REFUNDED), sample(REFUNDED, REST))
    assert (paid.payments()[SALE].status, paid.payments()[SALE].refunded) == ("refunded", 2900)
    in_full = {
        mail.facts["refund"]: mail.facts["in_full"] for mail in paid.mails().values() if mail.kind == "refund_receipt"
    }
    assert in_full == {REFUND: False, REST["id"]: True}


def test_larger_total_from_paypal_counts(paid: EventFeeder) -> None:
    paid.hear(sample(REFUNDED, REST))  # the event of the first part is lost
    assert (paid.payments()[SALE].status, paid.payments()[SALE].refunded) == ("refunded", 2900)


def test_customer_gets_a_refund_receipt(paid: EventFeeder) -> None:
    paid.hear(sample(REFUNDED))
    mail = paid.mail("refund_receipt")
    assert mail.state == "queued"
    assert mail.facts == {
        "subscription": ALICE.subscription,
        "plan": "SMT-CRM managed cloud, monthly",
        "refund": REFUND,
        "payment": SALE,
        "amount": {"amount": 900, "currency": "EUR"},
        "paid": {"amount": 2900, "currency": "EUR"},
        "refunded_at": "2026-02-27T16:20:28Z",
        "in_full": False,
    }


@pytest.mark.parametrize("changes", [
    {"amount.total": "-9.00"}, {"sale_id": GONE}, {"links": GONE}, {"create_time": "2026-02-27T08:20:28-08:00"},
])  # fmt: skip
def test_all_formats_of_paypal_give_the_same_refund(paid: EventFeeder, changes: dict[str, object]) -> None:
    paid.hear(sample(REFUNDED, changes))
    refund = paid.refunds()[REFUND]
    assert (refund.payment_id, refund.amount) == (SALE, 900)
    assert refund.occurred_at == at("2026-02-27T16:20:28Z")


def test_refund_before_its_sale_gets_its_receipt_later(feeder: EventFeeder) -> None:
    feeder.hear(sample(REFUNDED))
    assert feeder.payments()[SALE].status is None
    assert feeder.mails() == {}
    feeder.hear(sample(COMPLETED), sample(ACTIVATED))
    assert (feeder.payments()[SALE].status, feeder.payments()[SALE].refunded) == ("partially_refunded", 900)
    assert feeder.owed() == ["account_setup", "receipt", "refund_receipt"]


def test_refund_without_sale_is_parked_without_credentials(paid: EventFeeder) -> None:
    paid.hear(sample(REFUNDED, WITHOUT_SALE))
    assert paid.reasons() == [NO_SALE]
    assert paid.refunds() == {}


def test_refund_without_sale_is_looked_up_and_stored(feeders: Callable[..., EventFeeder]) -> None:
    feeder = feeders({("refund", REFUND): sample(REFUNDED)["resource"]})
    feeder.hear(sample(ACTIVATED), sample(COMPLETED), sample(REFUNDED, WITHOUT_SALE))
    assert feeder.reasons() == [f"waits for refund {REFUND} from PayPal"]
    feeder.ask()
    assert set(feeder.states()) == {"handled"}
    assert feeder.payments()[SALE].refunded == 900
    assert feeder.owed() == ["account_setup", "receipt", "refund_receipt"]


def test_refund_that_paypal_does_not_know_is_parked(feeders: Callable[..., EventFeeder]) -> None:
    feeder = feeders({})
    feeder.hear(sample(REFUNDED, WITHOUT_SALE))
    for _ in range(6):
        feeder.ask(timedelta(days=1))
    feeder.work()
    assert feeder.reasons() == [f"needs refund {REFUND} from PayPal, which does not have it"]


@pytest.mark.parametrize("state", ["pending", "failed"])
def test_pending_or_failed_refund_is_neither_counted_nor_mailed(paid: EventFeeder, state: str) -> None:
    paid.hear(sample(REFUNDED, FULL | {"state": state}))
    assert (paid.payments()[SALE].status, paid.payments()[SALE].refunded) == ("completed", 0)
    assert paid.owed() == ["account_setup", "receipt"]
    done = {"state": "completed", "update_time": "2026-02-28T10:00:00Z"}
    paid.hear(sample(REFUNDED, FULL | done))
    assert paid.payments()[SALE].status == "refunded"
    assert paid.owed() == ["account_setup", "receipt", "refund_receipt"]


def test_repeated_event_changes_nothing_even_under_another_id(paid: EventFeeder) -> None:
    paid.hear(sample(REFUNDED), sample(REFUNDED), renamed(sample(REFUNDED)))
    assert paid.payments()[SALE].refunded == 900
    assert paid.owed() == ["account_setup", "receipt", "refund_receipt"]


def test_refund_of_an_unknown_sale_looks_the_sale_up(feeders: Callable[..., EventFeeder]) -> None:
    feeder = feeders({("sale", SALE): sample(COMPLETED)["resource"]})
    feeder.hear(sample(REFUNDED, FULL))
    assert feeder.questions() == [("sale", SALE)]
    feeder.ask(timedelta(hours=1))
    row = feeder.payments()[SALE]
    assert (row.subscription_id, row.status, row.refunded) == (ALICE.subscription, "refunded", 2900)
