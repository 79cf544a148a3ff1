"""PAYMENT.SALE.COMPLETED stores the payment, queues one receipt per sale, and extends the paid-through date."""

import pytest

from tests.support.event_feeder import EventFeeder, at
from tests.support.example_people import ALICE, CHARLIE
from tests.support.sample_events import GONE, renamed, sample

ACTIVATED, COMPLETED = "BILLING.SUBSCRIPTION.ACTIVATED", "PAYMENT.SALE.COMPLETED"
FAILED = "BILLING.SUBSCRIPTION.PAYMENT.FAILED"
SALE = "3AL51924877811803"


def renewal(on: str, total: str = "29.00", id: str = "9AL00000000000001") -> dict[str, object]:
    """Return the event of a later charge to Alice."""
    money = {"total": total, "currency": "EUR"}
    return sample(COMPLETED, {"id": id, "amount": money, "create_time": on, "update_time": on}, at=on)


def test_sale_is_stored_with_its_fee(feeder: EventFeeder) -> None:
    feeder.hear(sample(COMPLETED))
    row = feeder.payments()[SALE]
    assert (row.subscription_id, row.status, row.refunded) == (ALICE.subscription, "completed", 0)
    assert (row.amount, row.currency, row.fee) == (2900, "EUR", 150)
    assert row.occurred_at == at("2026-02-24T09:16:38Z")


def test_receipt_contains_amount_and_paid_through_date(feeder: EventFeeder) -> None:
    feeder.hear(sample("READ.PLAN"), sample(ACTIVATED), sample(COMPLETED))
    mail = feeder.mail("receipt")
    assert (mail.state, mail.due, mail.key) == ("queued", True, f"receipt:{SALE}")
    assert mail.facts == {
        "subscription": ALICE.subscription,
        "plan": "SMT-CRM managed cloud, monthly",
        "payment": SALE,
        "amount": {"amount": 2900, "currency": "EUR"},
        "regular": None,
        "balance": None,
        "past_due": False,
        "paid_at": "2026-02-24T09:16:38Z",
        "paid_through": "2026-03-24T10:00:00Z",
    }


def test_receipt_of_payment_before_activation_waits_for_an_address(feeder: EventFeeder) -> None:
    feeder.hear(sample(COMPLETED))
    row = feeder.subscription(ALICE)
    assert (row.status, row.paid_through) == (None, None)
    assert not feeder.mail("receipt").due
    feeder.hear(sample(ACTIVATED))
    assert feeder.subscription(ALICE).paid_through == at("2026-03-24T10:00Z")
    assert feeder.mail("receipt").due


def test_payment_before_activation_pays_a_cycle_of_a_known_plan(feeder: EventFeeder) -> None:
    created = sample("BILLING.SUBSCRIPTION.CREATED")
    feeder.hear(sample("READ.PLAN"), created, sample(COMPLETED))
    assert feeder.subscription(ALICE).paid_through == at("2026-03-24T09:16:38Z")


def test_renewal_extends_access_and_next_billing_date(feeder: EventFeeder) -> None:
    feeder.hear(sample("READ.PLAN"), sample(ACTIVATED), sample(COMPLETED), renewal("2026-03-24T11:13:00Z"))
    row = feeder.subscription(ALICE)
    assert row.paid_through == row.next_billing_at == at("2026-04-24T10:00Z")
    assert row.remind_at == at("2026-04-21T10:00Z")


@pytest.mark.parametrize("amount", ["58.00", "290.00", "29.00", "10.00"])
def test_charge_pays_one_cycle_if_nothing_was_open(feeder: EventFeeder, amount: str) -> None:
    """A raised price or a fee does not buy time."""
    feeder.hear(sample("READ.PLAN"), sample(ACTIVATED), sample(COMPLETED), renewal("2026-03-24T11:13:00Z", amount))
    assert feeder.subscription(ALICE).paid_through == at("2026-04-24T10:00Z")


def test_receipt_names_no_date_if_the_number_of_cycles_is_not_certain(feeder: EventFeeder) -> None:
    feeder.hear(sample("READ.PLAN"), sample(ACTIVATED), sample(COMPLETED), sample(FAILED))
    feeder.hear(renewal("2026-04-24T11:13:00Z", "70.00"))
    receipts = [mail.facts for mail in feeder.mails().values() if mail.kind == "receipt"]
    assert {facts["amount"]["amount"]: facts["paid_through"] is None for facts in receipts} == {2900: False, 7000: True}


def test_one_charge_can_pay_two_cycles(feeder: EventFeeder) -> None:
    feeder.hear(sample("READ.PLAN"), sample(ACTIVATED), sample(COMPLETED), sample(FAILED))
    feeder.hear(renewal("2026-04-24T11:13:00Z", "58.00"))
    assert feeder.subscription(ALICE).paid_through == at("2026-05-24T10:00Z")


def test_renewal_extends_access_once_the_plan_is_known(feeder: EventFeeder) -> None:
    feeder.hear(sample(ACTIVATED), sample(COMPLETED), renewal("2026-03-24T11:13:00Z"))
    assert feeder.subscription(ALICE).paid_through == at("2026-03-24T10:00Z")
    feeder.hear(sample("READ.PLAN"))
    assert feeder.subscription(ALICE).paid_through == at("2026-04-24T10:00Z")


def test_held_payment_gets_one_receipt_when_released(feeder: EventFeeder) -> None:
    held = {"payment_hold_status": "HELD"}
    released = {"payment_hold_status": "RELEASED", "update_time": "2026-03-17T09:16:38Z"}
    feeder.hear(sample(ACTIVATED), sample("PAYMENT.SALE.PENDING", sample(COMPLETED, held)["resource"]))
    assert feeder.payments()[SALE].status == "pending"
    assert feeder.owed() == ["account_setup"]
    feeder.hear(sample(COMPLETED, held), sample(COMPLETED, released, at="2026-03-17T09:16:40Z"))
    assert feeder.payments()[SALE].status == "completed"
    assert feeder.owed() == ["account_setup", "receipt"]
    assert feeder.subscription(ALICE).paid_through == at("2026-03-24T10:00Z")


def test_repeated_event_changes_nothing_even_under_another_id(feeder: EventFeeder) -> None:
    feeder.hear(sample(COMPLETED), sample(COMPLETED), renamed(sample(COMPLETED)))
    assert feeder.states() == ["handled", "handled"]
    assert list(feeder.payments()) == [SALE]
    assert feeder.owed() == ["receipt"]


def test_sale_without_subscription_is_stored_without_mail(feeder: EventFeeder) -> None:
    feeder.hear(sample(COMPLETED, {"billing_agreement_id": GONE}))
    assert feeder.payments()[SALE].subscription_id is None
    assert (feeder.subscriptions(), feeder.mails()) == ([], {})


def test_missing_subscription_is_looked_up_and_receipt_is_queued(feeder: EventFeeder) -> None:
    feeder.hear(sample(ACTIVATED), sample(COMPLETED, {"billing_agreement_id": GONE}))
    assert ("sale", SALE) in feeder.questions()
    feeder.hear(sample("READ.SALE", sample(COMPLETED)["resource"]))
    assert feeder.payments()[SALE].subscription_id == ALICE.subscription
    assert feeder.owed() == ["account_setup", "receipt"]


def test_sale_identifies_customer_by_custom_id(feeder: EventFeeder) -> None:
    feeder.hear(sample(COMPLETED), sample(ACTIVATED, {"custom_id": GONE}))
    assert str(feeder.subscription(ALICE).customer_id).startswith("c")


def test_sale_alone_has_no_customer(feeder: EventFeeder) -> None:
    feeder.hear(sample(COMPLETED))
    assert feeder.subscription(ALICE).customer_id is None, "the PayPal account is not known yet"


def test_customer_is_the_payer_without_custom_id(feeder: EventFeeder) -> None:
    feeder.hear(sample(ACTIVATED, {"id": CHARLIE.subscription, "custom_id": GONE}))
    assert str(feeder.subscription(CHARLIE).customer_id).startswith("p")


@pytest.mark.parametrize(("total", "currency", "minor"), [
    ("4800", "JPY", 4800), ("1290", "HUF", 1290), ("300", "TWD", 300),
    ("5", "USD", 500), (".5", "USD", 50), ("5.0", "EUR", 500),
])  # fmt: skip
def test_amount_is_read_in_minor_units(feeder: EventFeeder, total: str, currency: str, minor: int) -> None:
    feeder.hear(sample(COMPLETED, {"amount": {"total": total, "currency": currency}}))
    assert feeder.payments()[SALE].amount == minor


@pytest.mark.parametrize("total", ["29,00", "alice@example.com", "12.345", "-29.00"])
def test_invalid_amount_parks_without_quoting_its_value(feeder: EventFeeder, total: str) -> None:
    feeder.hear(sample(COMPLETED, {"amount.total": total}))
    assert (feeder.states(), feeder.payments(), feeder.subscriptions()) == (["parked"], {}, [])
    (reason,) = feeder.reasons()
    assert "amount" in reason
    assert total not in reason
