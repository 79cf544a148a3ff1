"""No charges for now: the customer is told, each time anew, and keeps what was paid."""

from tests.support.event_feeder import Teller, at
from tests.support.example_people import ALICE
from tests.support.sample_events import renamed, sample

ACTIVATED, SUSPENDED = "BILLING.SUBSCRIPTION.ACTIVATED", "BILLING.SUBSCRIPTION.SUSPENDED"
BACK = "BILLING.SUBSCRIPTION.RE-ACTIVATED"


def test_the_status_moves_and_what_was_paid_stays(teller: Teller) -> None:
    teller.hear(sample(ACTIVATED), sample(SUSPENDED))
    row = teller.subscription(ALICE)
    assert (row.status, row.paid_through, row.remind_at) == ("SUSPENDED", at("2026-03-24T10:00Z"), None)
    assert teller.moves() == [(None, "ACTIVE"), ("ACTIVE", "SUSPENDED")]


def test_the_customer_is_told_with_the_balance(teller: Teller) -> None:
    teller.hear(sample(ACTIVATED), sample(SUSPENDED))
    mail = teller.mail("subscription_suspended")
    assert mail.state == "queued"
    assert mail.facts == {
        "subscription": ALICE.subscription,
        "plan": "",
        "suspended_at": "2026-04-03T10:41:50Z",
        "paid_through": "2026-03-24T10:00:00Z",
        "balance": {"amount": 2900, "currency": "EUR"},
    }


def test_a_next_date_told_while_a_charge_is_unpaid_buys_no_time(teller: Teller) -> None:
    teller.hear(sample(ACTIVATED), sample(SUSPENDED, {"billing_info.next_billing_time": "2026-05-24T10:00:00Z"}))
    assert teller.subscription(ALICE).paid_through == at("2026-03-24T10:00Z")


def test_suspended_by_the_buyer_there_is_no_balance_to_tell(teller: Teller) -> None:
    quiet = {"billing_info.failed_payments_count": 0, "billing_info.outstanding_balance.value": "0.0"}
    teller.hear(sample(ACTIVATED), sample(SUSPENDED, quiet))
    assert teller.mail("subscription_suspended").facts["balance"] is None


def test_a_second_suspension_is_told_again(teller: Teller) -> None:
    later = {"status_update_time": "2026-05-03T10:41:50Z", "update_time": "2026-05-03T10:41:50Z"}
    teller.hear(sample(SUSPENDED), sample(BACK), sample(SUSPENDED, later, at="2026-05-03T10:41:55Z"))
    assert teller.owed().count("subscription_suspended") == 2


def test_once_it_goes_on_a_late_suspension_is_no_news(teller: Teller) -> None:
    teller.hear(sample(BACK), sample(SUSPENDED))
    assert teller.subscription(ALICE).status == "ACTIVE"
    assert teller.mail("subscription_suspended").state == "withheld"


def test_told_twice_it_is_once_also_under_another_id(teller: Teller) -> None:
    teller.hear(sample(SUSPENDED), sample(SUSPENDED), renamed(sample(SUSPENDED)))
    assert teller.moves() == [(None, "SUSPENDED")]
    assert teller.owed() == ["subscription_suspended"]
