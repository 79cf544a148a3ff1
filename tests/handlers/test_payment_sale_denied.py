"""PAYMENT.SALE.DENIED: a refused payment pays for nothing, and the customer gets a mail."""

from itertools import permutations
from typing import Any

import pytest

from tests.support.event_feeder import EventFeeder, at
from tests.support.example_people import ALICE, CHARLIE
from tests.support.sample_events import renamed, sample

ACTIVATED, UPDATED = "BILLING.SUBSCRIPTION.ACTIVATED", "BILLING.SUBSCRIPTION.UPDATED"
DENIED, PENDING, COMPLETED = "PAYMENT.SALE.DENIED", "PAYMENT.SALE.PENDING", "PAYMENT.SALE.COMPLETED"
SALE = "8CH77410296635520"


def test_payment_stays_denied_if_pending_arrives_later(feeder: EventFeeder) -> None:
    pending = sample(DENIED)["resource"] | {"state": "pending", "update_time": "2026-02-21T10:32:11Z"}
    feeder.hear(sample(DENIED), sample(PENDING, pending))
    assert feeder.payments()[SALE].status == "denied"
    assert feeder.subscription(CHARLIE).paid_through is None


def test_customer_gets_a_mail(feeder: EventFeeder) -> None:
    feeder.hear(sample(DENIED))
    mail = feeder.mail("payment_failed")
    assert mail.state == "queued"
    assert mail.facts == {
        "subscription": CHARLIE.subscription,
        "plan": "",
        "amount": {"amount": 4800, "currency": "JPY"},
        "balance": None,
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
def test_denial_takes_back_the_counted_period(feeder: EventFeeder, events: tuple[dict[str, Any], ...]) -> None:
    """It does not matter whether this program, PayPal or both had counted the payment."""
    feeder.hear(*STARTED, renewal(PENDING), *events)
    assert feeder.subscription(ALICE).paid_through == at("2026-04-24T10:00Z")
    feeder.hear(REFUSED)
    assert feeder.subscription(ALICE).paid_through == at("2026-03-24T10:00Z")


@pytest.mark.slow
def test_result_is_the_same_in_every_order(feeder: EventFeeder) -> None:
    for order in permutations([*STARTED[1:], CLEARED, paypal_counts_payment(), REFUSED]):
        feeder.pipeline.empty()
        feeder = EventFeeder(feeder.pipeline)
        feeder.tell(STARTED[0], *order)
        feeder.work(batch=2)
        assert feeder.payments()["9AL00000000000001"].status == "denied"
        assert feeder.subscription(ALICE).paid_through == at("2026-03-24T10:00Z")


def test_denied_first_payment_gives_no_access(feeder: EventFeeder) -> None:
    first = sample(COMPLETED)["resource"] | {"state": "denied", "update_time": "2026-03-02T09:00:00Z"}
    feeder.hear(sample("READ.PLAN"), sample(ACTIVATED), sample(PENDING, sample(COMPLETED)["resource"]))
    assert feeder.subscription(ALICE).paid_through == at(
        "2026-03-24T10:00Z"
    )  # PayPal's date, until the payment is final
    feeder.hear(sample(DENIED, first, at="2026-03-02T09:00:01Z"))
    assert feeder.subscription(ALICE).paid_through == at("2026-02-24T10:00Z")


def test_later_collection_pays_the_period_again(feeder: EventFeeder) -> None:
    collected = renewal(COMPLETED, "2026-04-02T09:00:00Z", id="9AL00000000000002", create_time="2026-04-02T09:00:00Z")
    feeder.hear(*STARTED, paypal_counts_payment(), REFUSED, collected)
    assert feeder.subscription(ALICE).paid_through == at("2026-04-24T10:00Z")


def test_mail_is_withheld_after_another_payment(feeder: EventFeeder) -> None:
    other = {"id": "9CH00000000000001", "create_time": "2026-02-27T15:00:00Z", "update_time": "2026-02-27T15:00:00Z"}
    feeder.hear(sample(COMPLETED, sample(DENIED)["resource"] | other), sample(DENIED))
    assert feeder.mail("payment_failed").state == "withheld"


def test_denied_sale_without_subscription_queues_no_mail(feeder: EventFeeder) -> None:
    feeder.hear(sample(DENIED, {"billing_agreement_id": None}))
    assert feeder.payments()[SALE].status == "denied"
    assert feeder.mails() == {}


def test_repeated_event_queues_one_mail_even_under_another_id(feeder: EventFeeder) -> None:
    feeder.hear(sample(DENIED), sample(DENIED), renamed(sample(DENIED)))
    assert feeder.owed() == ["payment_failed"]
