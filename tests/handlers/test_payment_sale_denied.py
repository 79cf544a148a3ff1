"""PAYMENT.SALE.DENIED: a refused payment pays for nothing, and the customer gets a mail."""

from itertools import permutations
from typing import Any

import pytest

from tests.support.event_feeder import Teller, at
from tests.support.example_people import ALICE, CHARLIE
from tests.support.sample_events import renamed, sample

ACTIVATED, UPDATED = "BILLING.SUBSCRIPTION.ACTIVATED", "BILLING.SUBSCRIPTION.UPDATED"
DENIED, PENDING, COMPLETED = "PAYMENT.SALE.DENIED", "PAYMENT.SALE.PENDING", "PAYMENT.SALE.COMPLETED"
SALE = "8CH77410296635520"


def test_payment_stays_denied_if_pending_arrives_later(teller: Teller) -> None:
    pending = sample(DENIED)["resource"] | {"state": "pending", "update_time": "2026-02-21T10:32:11Z"}
    teller.hear(sample(DENIED), sample(PENDING, pending))
    assert teller.payments()[SALE].status == "denied"
    assert teller.subscription(CHARLIE).paid_through is None


def test_customer_gets_a_mail(teller: Teller) -> None:
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
    """Return an event of a later eCheck payment by Alice."""
    money = {"total": total, "currency": "EUR"}
    events = {"id": "9AL00000000000001", "amount": money, "create_time": "2026-03-24T11:13:00Z", "update_time": on}
    return renamed(sample(type, sample(COMPLETED)["resource"] | events | more, at=on))


def paypal_counts_payment() -> dict[str, Any]:
    """Return an UPDATED event in which PayPal has advanced its date, although the payment is still pending."""
    billing = sample(ACTIVATED)["resource"]["billing_info"]
    info = {**billing, "next_billing_time": "2026-04-24T10:00:00Z"}
    info["last_payment"] = billing["last_payment"] | {"time": "2026-03-24T11:13:00Z"}
    changes = {"update_time": "2026-03-24T11:13:01Z", "billing_info": info}
    return sample(UPDATED, sample(ACTIVATED)["resource"] | changes, at="2026-03-24T11:13:01Z")


STARTED = [sample("READ.PLAN"), sample(ACTIVATED), sample(COMPLETED)]
CLEARED, REFUSED = (renewal(COMPLETED, "2026-03-25T09:00:00Z"), renewal(DENIED, "2026-03-30T09:00:00Z", state="denied"))


@pytest.mark.parametrize(
    "events",
    [(CLEARED,), (paypal_counts_payment(),), (CLEARED, paypal_counts_payment())],
    ids=["completed", "PayPal", "both"],
)
def test_denial_takes_back_the_counted_period(teller: Teller, events: tuple[dict[str, Any], ...]) -> None:
    """It does not matter whether this program, PayPal or both had counted the payment."""
    teller.hear(*STARTED, renewal(PENDING), *events)
    assert teller.subscription(ALICE).paid_through == at("2026-04-24T10:00Z")
    teller.hear(REFUSED)
    assert teller.subscription(ALICE).paid_through == at("2026-03-24T10:00Z")


@pytest.mark.slow
def test_result_is_the_same_in_every_order(teller: Teller) -> None:
    for order in permutations([*STARTED[1:], CLEARED, paypal_counts_payment(), REFUSED]):
        teller.river.empty()
        teller = Teller(teller.river)
        teller.tell(STARTED[0], *order)
        teller.work(batch=2)
        assert teller.payments()["9AL00000000000001"].status == "denied"
        assert teller.subscription(ALICE).paid_through == at("2026-03-24T10:00Z")


def test_denied_first_payment_gives_no_access(teller: Teller) -> None:
    first = sample(COMPLETED)["resource"] | {"state": "denied", "update_time": "2026-03-02T09:00:00Z"}
    teller.hear(sample("READ.PLAN"), sample(ACTIVATED), sample(PENDING, sample(COMPLETED)["resource"]))
    assert teller.subscription(ALICE).paid_through == at(
        "2026-03-24T10:00Z"
    )  # PayPal's date, until the payment is final
    teller.hear(sample(DENIED, first, at="2026-03-02T09:00:01Z"))
    assert teller.subscription(ALICE).paid_through == at("2026-02-24T10:00Z")


def test_later_collection_pays_the_period_again(teller: Teller) -> None:
    collected = renewal(COMPLETED, "2026-04-02T09:00:00Z", id="9AL00000000000002", create_time="2026-04-02T09:00:00Z")
    teller.hear(*STARTED, paypal_counts_payment(), REFUSED, collected)
    assert teller.subscription(ALICE).paid_through == at("2026-04-24T10:00Z")


def test_mail_is_withheld_after_another_payment(teller: Teller) -> None:
    other = {"id": "9CH00000000000001", "create_time": "2026-02-27T15:00:00Z", "update_time": "2026-02-27T15:00:00Z"}
    teller.hear(sample(COMPLETED, sample(DENIED)["resource"] | other), sample(DENIED))
    assert teller.mail("payment_failed").state == "withheld"


def test_denied_sale_without_subscription_queues_no_mail(teller: Teller) -> None:
    teller.hear(sample(DENIED, {"billing_agreement_id": None}))
    assert teller.payments()[SALE].status == "denied"
    assert teller.mails() == {}


def test_repeated_event_queues_one_mail_even_under_another_id(teller: Teller) -> None:
    teller.hear(sample(DENIED), sample(DENIED), renamed(sample(DENIED)))
    assert teller.owed() == ["payment_failed"]
