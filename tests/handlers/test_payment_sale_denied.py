"""A pending payment was refused: it pays for nothing, and the customer is told."""

from itertools import permutations
from typing import Any

import pytest

from tests.support.event_feeder import Teller, at
from tests.support.example_people import ALICE, CHARLIE
from tests.support.sample_events import renamed, sample

ACTIVATED, UPDATED = "BILLING.SUBSCRIPTION.ACTIVATED", "BILLING.SUBSCRIPTION.UPDATED"
DENIED, PENDING, COMPLETED = "PAYMENT.SALE.DENIED", "PAYMENT.SALE.PENDING", "PAYMENT.SALE.COMPLETED"
SALE = "8CH77410296635520"


def test_it_is_denied_also_where_its_pending_comes_after(teller: Teller) -> None:
    pending = sample(DENIED)["resource"] | {"state": "pending", "update_time": "2026-02-21T10:32:11Z"}
    teller.hear(sample(DENIED), sample(PENDING, pending))
    assert teller.payments()[SALE].status == "denied"
    assert teller.subscription(CHARLIE).paid_through is None


def test_the_customer_is_told(teller: Teller) -> None:
    teller.hear(sample(DENIED))
    mail = teller.mail("payment_failed")
    assert mail.state == "queued"
    assert mail.facts == {
        "subscription": CHARLIE.subscription,
        "plan": "",
        "amount": {"amount": 4800, "currency": "JPY"},
        "failed_at": "2026-02-27T14:47:50Z",
        "retry_at": None,
        "reason": None,
    }


def renewal(type: str, on: str = "2026-03-24T11:13:00Z", total: str = "29.00", **more: Any) -> dict[str, Any]:
    """A later charge of Alice's, by eCheck."""
    money = {"total": total, "currency": "EUR"}
    told = {"id": "9AL00000000000001", "amount": money, "create_time": "2026-03-24T11:13:00Z", "update_time": on}
    return renamed(sample(type, sample(COMPLETED)["resource"] | told | more, at=on))


def counted_on() -> dict[str, Any]:
    """PayPal has moved its date on, although the money is still to come."""
    billing = sample(ACTIVATED)["resource"]["billing_info"]
    info = {**billing, "next_billing_time": "2026-04-24T10:00:00Z"}
    info["last_payment"] = billing["last_payment"] | {"time": "2026-03-24T11:13:00Z"}
    moved_on = {"update_time": "2026-03-24T11:13:01Z", "billing_info": info}
    return sample(UPDATED, sample(ACTIVATED)["resource"] | moved_on, at="2026-03-24T11:13:01Z")


BEGUN = [sample("READ.PLAN"), sample(ACTIVATED), sample(COMPLETED)]
CLEARED, REFUSED = (renewal(COMPLETED, "2026-03-25T09:00:00Z"), renewal(DENIED, "2026-03-30T09:00:00Z", state="denied"))


@pytest.mark.parametrize("told", [(CLEARED,), (counted_on(),), (CLEARED, counted_on())], ids=["us", "PayPal", "both"])
def test_the_period_that_it_was_counted_for_is_taken_back(teller: Teller, told: tuple[dict[str, Any], ...]) -> None:
    """Whoever had counted on it."""
    teller.hear(*BEGUN, renewal(PENDING), *told)
    assert teller.subscription(ALICE).paid_through == at("2026-04-24T10:00Z")
    teller.hear(REFUSED)
    assert teller.subscription(ALICE).paid_through == at("2026-03-24T10:00Z")


def test_it_comes_to_the_same_in_every_order(teller: Teller) -> None:
    for order in permutations([*BEGUN[1:], CLEARED, counted_on(), REFUSED]):
        teller.river.empty()
        teller = Teller(teller.river)
        teller.tell(BEGUN[0], *order)
        teller.work(batch=2)
        assert teller.payments()["9AL00000000000001"].status == "denied"
        assert teller.subscription(ALICE).paid_through == at("2026-03-24T10:00Z")


def test_who_never_paid_has_no_access(teller: Teller) -> None:
    first = sample(COMPLETED)["resource"] | {"state": "denied", "update_time": "2026-03-02T09:00:00Z"}
    teller.hear(sample("READ.PLAN"), sample(ACTIVATED), sample(PENDING, sample(COMPLETED)["resource"]))
    assert teller.subscription(ALICE).paid_through == at("2026-03-24T10:00Z")  # PayPal's word, until it is decided
    teller.hear(sample(DENIED, first, at="2026-03-02T09:00:01Z"))
    assert teller.subscription(ALICE).paid_through == at("2026-02-24T10:00Z")


def test_collected_after_all_it_is_paid_again(teller: Teller) -> None:
    collected = renewal(COMPLETED, "2026-04-02T09:00:00Z", id="9AL00000000000002", create_time="2026-04-02T09:00:00Z")
    teller.hear(*BEGUN, counted_on(), REFUSED, collected)
    assert teller.subscription(ALICE).paid_through == at("2026-04-24T10:00Z")


def test_paid_otherwise_since_it_is_no_news(teller: Teller) -> None:
    other = {"id": "9CH00000000000001", "create_time": "2026-02-27T15:00:00Z", "update_time": "2026-02-27T15:00:00Z"}
    teller.hear(sample(COMPLETED, sample(DENIED)["resource"] | other), sample(DENIED))
    assert teller.mail("payment_failed").state == "withheld"


def test_a_sale_that_is_no_subscriptions_tells_nobody(teller: Teller) -> None:
    teller.hear(sample(DENIED, {"billing_agreement_id": None}))
    assert teller.payments()[SALE].status == "denied"
    assert teller.mails() == {}


def test_told_twice_it_is_once_also_under_another_id(teller: Teller) -> None:
    teller.hear(sample(DENIED), sample(DENIED), renamed(sample(DENIED)))
    assert teller.owed() == ["payment_failed"]
