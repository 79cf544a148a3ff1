"""Final for billing; what was paid stays paid, and the customer is told until when."""

from tests.support.event_feeder import Teller, at
from tests.support.example_people import ALICE
from tests.support.sample_events import renamed, sample

ACTIVATED, CANCELLED = "BILLING.SUBSCRIPTION.ACTIVATED", "BILLING.SUBSCRIPTION.CANCELLED"


def test_without_a_next_billing_time_the_date_known_before_stays(teller: Teller) -> None:
    assert "next_billing_time" not in sample(CANCELLED)["resource"]["billing_info"]
    teller.hear(sample(ACTIVATED), sample(CANCELLED))
    row = teller.subscription(ALICE)
    assert (row.status, row.paid_through) == ("CANCELLED", at("2026-03-24T10:00Z"))
    assert (row.next_billing_at, row.remind_at) == (None, None)


def test_the_customer_is_told_until_when(teller: Teller) -> None:
    teller.hear(sample(ACTIVATED), sample(CANCELLED))
    mail = teller.mail("subscription_cancelled")
    assert mail.state == "queued"
    assert mail.facts == {
        "subscription": ALICE.subscription,
        "plan": "",
        "cancelled_at": "2026-03-10T18:22:31Z",
        "paid_through": "2026-03-24T10:00:00Z",
    }


def test_of_a_stranger_we_note_the_end(teller: Teller) -> None:
    teller.hear(sample(CANCELLED))
    assert teller.subscription(ALICE).status == "CANCELLED"
    assert teller.mail("subscription_cancelled").facts["paid_through"] is None


def test_the_simulators_next_billing_time_does_no_harm(teller: Teller) -> None:
    teller.hear(sample(CANCELLED, {"billing_info.next_billing_time": "2026-03-24T10:00:00Z"}))
    row = teller.subscription(ALICE)
    assert (row.paid_through, row.next_billing_at) == (at("2026-03-24T10:00Z"), None)


def test_money_that_comes_later_is_still_booked(teller: Teller) -> None:
    teller.hear(sample(ACTIVATED), sample(CANCELLED))
    teller.hear(sample("PAYMENT.SALE.COMPLETED", {"payment_hold_status": "RELEASED"}, at="2026-03-17T09:00:00Z"))
    assert teller.subscription(ALICE).status == "CANCELLED"
    assert teller.payments()["3AL51924877811803"].status == "completed"


def test_told_twice_it_is_once_also_under_another_id(teller: Teller) -> None:
    teller.hear(sample(CANCELLED), sample(CANCELLED), renamed(sample(CANCELLED)))
    assert teller.moves() == [(None, "CANCELLED")]
    assert teller.owed() == ["subscription_cancelled"]
