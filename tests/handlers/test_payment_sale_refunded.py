"""Money was given back, in part or in full: booked once, receipted once, whatever of it PayPal leaves out."""

from collections.abc import Callable

import pytest

from tests.support.event_feeder import Teller, at
from tests.support.example_people import ALICE
from tests.support.sample_events import GONE, renamed, sample

ACTIVATED, COMPLETED, REFUNDED = "BILLING.SUBSCRIPTION.ACTIVATED", "PAYMENT.SALE.COMPLETED", "PAYMENT.SALE.REFUNDED"
SALE, REFUND = "3AL51924877811803", "5AL88213640927754"
FULL = {"amount.total": "29.00", "total_refunded_amount.total": "29.00"}
REST = {
    "id": "5AL88213640927999", "amount.total": "20.00", "total_refunded_amount.total": "29.00",
    "create_time": "2026-02-28T09:00:00Z", "update_time": "2026-02-28T09:00:00Z",
}  # fmt: skip
SILENT = {"sale_id": GONE, "links": GONE}
NO_SALE = f"needs refund {REFUND} from PayPal, and no API credentials are set (SMT_PAYPAL_CLIENT_ID and …_SECRET)"


@pytest.fixture
def paid(teller: Teller) -> Teller:
    """Alice has subscribed and paid 29.00 EUR."""
    teller.hear(sample("READ.PLAN"), sample(ACTIVATED), sample(COMPLETED))
    return teller


def test_a_part_given_back_leaves_the_period_paid(paid: Teller) -> None:
    paid.hear(sample(REFUNDED))
    payment, refund = paid.payments()[SALE], paid.refunds()[REFUND]
    assert (payment.status, payment.refunded) == ("partially_refunded", 900)
    assert (refund.payment_id, refund.kind, refund.amount, refund.currency) == (SALE, "refund", 900, "EUR")
    assert refund.occurred_at == at("2026-02-27T16:20:28Z")
    assert paid.subscription(ALICE).paid_through == at("2026-03-24T10:00Z")


def test_all_given_back_takes_the_period_back(paid: Teller) -> None:
    paid.hear(sample(REFUNDED, FULL))
    assert (paid.payments()[SALE].status, paid.payments()[SALE].refunded) == ("refunded", 2900)
    assert paid.subscription(ALICE).paid_through == at("2026-02-24T10:00Z")


def test_the_same_date_told_again_later_does_not_bring_it_back(paid: Teller) -> None:
    paid.hear(sample(REFUNDED, FULL))
    paid.hear(
        sample("BILLING.SUBSCRIPTION.UPDATED", {"update_time": "2026-03-05T09:00:00Z"}, at="2026-03-05T09:00:00Z")
    )
    assert paid.subscription(ALICE).paid_through == at("2026-02-24T10:00Z")


def test_two_parts_make_a_whole(paid: Teller) -> None:
    paid.hear(sample(REFUNDED), sample(REFUNDED, REST))
    assert (paid.payments()[SALE].status, paid.payments()[SALE].refunded) == ("refunded", 2900)
    said = {
        mail.facts["refund"]: mail.facts["in_full"] for mail in paid.mails().values() if mail.kind == "refund_receipt"
    }
    assert said == {REFUND: False, REST["id"]: True}


def test_what_paypals_running_sum_says_more_was_given_back_too(paid: Teller) -> None:
    paid.hear(sample(REFUNDED, REST))  # and the first part's own event is lost
    assert (paid.payments()[SALE].status, paid.payments()[SALE].refunded) == ("refunded", 2900)


def test_the_customer_gets_a_receipt_for_it(paid: Teller) -> None:
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
def test_however_paypal_writes_it_the_same_is_booked(paid: Teller, changes: dict[str, object]) -> None:
    paid.hear(sample(REFUNDED, changes))
    refund = paid.refunds()[REFUND]
    assert (refund.payment_id, refund.amount) == (SALE, 900)
    assert refund.occurred_at == at("2026-02-27T16:20:28Z")


def test_before_its_sale_it_waits_for_it(teller: Teller) -> None:
    teller.hear(sample(REFUNDED))
    assert teller.payments()[SALE].status is None
    assert teller.mails() == {}
    teller.hear(sample(COMPLETED), sample(ACTIVATED))
    assert (teller.payments()[SALE].status, teller.payments()[SALE].refunded) == ("partially_refunded", 900)
    assert teller.owed() == ["account_setup", "receipt", "refund_receipt"]


def test_without_its_sale_and_without_credentials_it_is_parked(paid: Teller) -> None:
    paid.hear(sample(REFUNDED, SILENT))
    assert paid.reasons() == [NO_SALE]
    assert paid.refunds() == {}


def test_without_its_sale_paypal_is_asked_and_then_it_is_booked(tellers: Callable[..., Teller]) -> None:
    teller = tellers({("refund", REFUND): sample(REFUNDED)["resource"]})
    teller.hear(sample(ACTIVATED), sample(COMPLETED), sample(REFUNDED, SILENT))
    assert teller.reasons() == [f"waits for refund {REFUND} from PayPal"]
    teller.ask()
    assert set(teller.states()) == {"handled"}
    assert teller.payments()[SALE].refunded == 900
    assert teller.owed() == ["account_setup", "receipt", "refund_receipt"]


def test_what_paypal_does_not_know_either_is_parked(tellers: Callable[..., Teller]) -> None:
    teller = tellers({})
    teller.hear(sample(REFUNDED, SILENT))
    teller.ask()
    teller.river.clock.move_to(at("2026-03-01T00:00Z"))
    teller.work()
    assert teller.reasons() == [f"needs refund {REFUND} from PayPal, which does not know it"]


@pytest.mark.parametrize("state", ["pending", "failed"])
def test_money_that_is_not_on_its_way_is_neither_counted_nor_told(paid: Teller, state: str) -> None:
    paid.hear(sample(REFUNDED, FULL | {"state": state}))
    assert (paid.payments()[SALE].status, paid.payments()[SALE].refunded) == ("completed", 0)
    assert paid.owed() == ["account_setup", "receipt"]
    done = {"state": "completed", "update_time": "2026-02-28T10:00:00Z"}
    paid.hear(sample(REFUNDED, FULL | done))
    assert paid.payments()[SALE].status == "refunded"
    assert paid.owed() == ["account_setup", "receipt", "refund_receipt"]


def test_told_twice_it_is_once_also_under_another_id(paid: Teller) -> None:
    paid.hear(sample(REFUNDED), sample(REFUNDED), renamed(sample(REFUNDED)))
    assert paid.payments()[SALE].refunded == 900
    assert paid.owed() == ["account_setup", "receipt", "refund_receipt"]
