"""Each mail is queued once, and withheld if it is superseded or too old."""

from datetime import timedelta
from typing import Any

import pytest

from pipeline.clock import format_time
from tests.support.event_feeder import EventFeeder, at
from tests.support.example_people import ALICE
from tests.support.pipeline_under_test import PipelineUnderTest
from tests.support.sample_events import GONE, sample

ACTIVATED, CANCELLED = "BILLING.SUBSCRIPTION.ACTIVATED", "BILLING.SUBSCRIPTION.CANCELLED"
SUSPENDED, REACTIVATED = "BILLING.SUBSCRIPTION.SUSPENDED", "BILLING.SUBSCRIPTION.RE-ACTIVATED"
FAILED, COMPLETED = "BILLING.SUBSCRIPTION.PAYMENT.FAILED", "PAYMENT.SALE.COMPLETED"
REFUNDED, DENIED = "PAYMENT.SALE.REFUNDED", "PAYMENT.SALE.DENIED"
# Event type -> idempotency key of the mail that it queues.
KEYS = {
    ACTIVATED: f"account_setup:{ALICE.subscription}",
    CANCELLED: f"subscription_cancelled:{ALICE.subscription}",
    SUSPENDED: f"subscription_suspended:{ALICE.subscription}:2026-04-03T10:41:50Z",
    FAILED: f"payment_failed:{ALICE.subscription}:2026-03-24T11:13:07Z",
    COMPLETED: "receipt:3AL51924877811803",
    DENIED: "payment_failed:8CH77410296635520",
}


@pytest.mark.parametrize("kind", KEYS)
def test_key_consists_of_ids_and_paypals_times(sqlite_pipeline: PipelineUnderTest, kind: str) -> None:
    feeder = EventFeeder(sqlite_pipeline)
    feeder.hear(sample(kind))
    assert KEYS[kind] in feeder.mails()


@pytest.mark.parametrize("kind", KEYS)
def test_mail_is_queued_for_seven_days_and_then_withheld(sqlite_pipeline: PipelineUnderTest, kind: str) -> None:
    resource = sample(kind)["resource"]
    earlier = at(resource["billing_info"]["last_failed_payment"]["time"] if kind == FAILED else _moment(resource))
    for seconds, state in ((0, "queued"), (1, "withheld")):
        sqlite_pipeline.empty()
        sqlite_pipeline.clock.move_to(earlier + timedelta(days=7, seconds=seconds))
        feeder = EventFeeder(sqlite_pipeline)
        feeder.hear(sample(kind, at=earlier.isoformat()))
        mail = feeder.mails()[KEYS[kind]]
        assert mail.state == state, mail.reason


@pytest.mark.parametrize(("earlier", "late", "mail"), [
    ([CANCELLED], ACTIVATED, "account_setup"),
    ([SUSPENDED], ACTIVATED, "account_setup"),
    ([REACTIVATED], SUSPENDED, "subscription_suspended"),
    ([CANCELLED], SUSPENDED, "subscription_suspended"),
    ([SUSPENDED], FAILED, "payment_failed"),
])  # fmt: skip
def test_superseded_mail_is_withheld_with_its_reason(
    sqlite_pipeline: PipelineUnderTest, earlier: list[str], late: str, mail: str
) -> None:
    feeder = EventFeeder(sqlite_pipeline)
    feeder.hear(*[sample(kind) for kind in earlier], sample(late))
    found = feeder.mail(mail)
    assert (found.state, found.due) == ("withheld", False)
    assert str(found.reason).startswith("superseded: the subscription is ")


@pytest.mark.parametrize("event_type", [REACTIVATED, ACTIVATED])
def test_failure_is_mailed_after_reactivation_without_payment(
    sqlite_pipeline: PipelineUnderTest, event_type: str
) -> None:
    feeder = EventFeeder(sqlite_pipeline)
    after = "2026-03-25T08:00:00Z"  # the charge failed the day before
    feeder.hear(sample(event_type, {"status_update_time": after, "update_time": after}, at=after), sample(FAILED))
    assert feeder.subscription(ALICE).status == "ACTIVE"
    mail = feeder.mail("payment_failed")
    assert (mail.state, mail.reason) == ("queued", None)


def test_only_the_later_of_two_suspensions_is_mailed(sqlite_pipeline: PipelineUnderTest) -> None:
    feeder = EventFeeder(sqlite_pipeline)
    later = {"status_update_time": "2026-04-05T10:41:50Z", "update_time": "2026-04-05T10:41:50Z"}
    feeder.hear(sample(SUSPENDED, later), sample(SUSPENDED))
    assert [mail.state for _, mail in sorted(feeder.mails().items())] == ["withheld", "queued"]


def test_receipt_of_late_released_payment_is_queued(sqlite_pipeline: PipelineUnderTest) -> None:
    feeder = EventFeeder(sqlite_pipeline)
    held = sample(COMPLETED, {"payment_hold_status": "HELD"})["resource"]
    feeder.hear(sample(ACTIVATED), sample("PAYMENT.SALE.PENDING", held))
    feeder.hear(sample(COMPLETED, {"payment_hold_status": "RELEASED"}, at="2026-03-17T09:16:40Z"))
    assert feeder.mail("receipt").state == "queued"


def test_receipts_are_queued_after_cancellation(sqlite_pipeline: PipelineUnderTest) -> None:
    feeder = EventFeeder(sqlite_pipeline)
    feeder.hear(sample(CANCELLED), sample(REFUNDED), at="2026-02-28T12:00:00Z")
    feeder.hear(sample(COMPLETED), at="2026-02-28T12:00:01Z")
    assert [feeder.mail(kind).state for kind in ("receipt", "refund_receipt")] == ["queued", "queued"]


def test_waiting_mails_become_due_when_an_address_arrives(sqlite_pipeline: PipelineUnderTest) -> None:
    feeder = EventFeeder(sqlite_pipeline)
    without_subscriber = {"subscriber": GONE}
    feeder.hear(sample(ACTIVATED, without_subscriber), sample(COMPLETED), sample(REFUNDED))
    assert [mail.due for mail in feeder.mails().values()] == [False, False, False]
    feeder.hear(sample("BILLING.SUBSCRIPTION.UPDATED"))
    assert [mail.due for mail in feeder.mails().values()] == [True, True, True]


def test_mail_is_due_if_its_batch_supplies_the_address(sqlite_pipeline: PipelineUnderTest) -> None:
    feeder = EventFeeder(sqlite_pipeline)
    feeder.tell(sample(COMPLETED), sample(ACTIVATED))
    feeder.work()
    assert feeder.mail("receipt").due


def test_mail_facts_contain_no_personal_data(sqlite_pipeline: PipelineUnderTest) -> None:
    feeder = EventFeeder(sqlite_pipeline)
    for kind in KEYS:
        feeder.hear(sample(kind))
    texts = repr([mail.facts for mail in feeder.mails().values()])
    assert not [
        word for word in ("Alice", "Andersson", "example.com", ALICE.payer_id, ALICE.custom_id) if word in texts
    ]


def test_receipt_has_no_paid_through_date_before_its_payment(sqlite_pipeline: PipelineUnderTest) -> None:
    feeder = EventFeeder(sqlite_pipeline)
    on = "2026-03-24T11:13:00Z"
    feeder.hear(sample(ACTIVATED), sample(COMPLETED, {"create_time": on, "update_time": on}, at=on))
    assert feeder.mail("receipt").facts["paid_through"] is None  # the plan is unknown, so the period is too


def test_only_last_refund_is_marked_in_full_in_any_order(sqlite_pipeline: PipelineUnderTest) -> None:
    rest: dict[str, Any] = {
        "id": "5AL88213640927999", "amount.total": "20.00", "total_refunded_amount.total": "29.00",
        "create_time": "2026-02-28T09:00:00Z", "update_time": "2026-02-28T09:00:00Z",
    }  # fmt: skip
    for order in ([sample(REFUNDED), sample(REFUNDED, rest)], [sample(REFUNDED, rest), sample(REFUNDED)]):
        sqlite_pipeline.empty()
        feeder = EventFeeder(sqlite_pipeline)
        feeder.hear(sample(COMPLETED), *order)
        mails = [mail.facts for mail in feeder.mails().values() if mail.kind == "refund_receipt"]
        assert {mail["refund"]: mail["in_full"] for mail in mails} == {"5AL88213640927754": False, rest["id"]: True}


def test_receipt_names_the_balance_that_it_settles(sqlite_pipeline: PipelineUnderTest) -> None:
    feeder, on = EventFeeder(sqlite_pipeline), "2026-04-24T11:13:00Z"
    paid = {"create_time": on, "update_time": on, "amount.total": "58.00"}
    feeder.hear(sample("READ.PLAN"), sample(ACTIVATED), sample(FAILED), sample(COMPLETED, paid, at=on))
    facts, half = feeder.mail("receipt").facts, {"amount": 2900, "currency": "EUR"}
    assert (facts["regular"], facts["balance"], facts["past_due"]) == (half, half, False)


def test_receipt_of_part_of_the_balance_names_no_balance(sqlite_pipeline: PipelineUnderTest) -> None:
    feeder, on = EventFeeder(sqlite_pipeline), "2026-04-24T11:13:00Z"
    paid = {"create_time": on, "update_time": on, "amount.total": "10.00"}
    feeder.hear(sample("READ.PLAN"), sample(ACTIVATED), sample(FAILED), sample(COMPLETED, paid, at=on))
    facts = feeder.mail("receipt").facts
    assert (facts["regular"], facts["balance"]) == (None, None)


def test_payment_of_nothing_gets_no_receipt_and_pays_no_cycle(sqlite_pipeline: PipelineUnderTest) -> None:
    feeder, on = EventFeeder(sqlite_pipeline), "2026-03-24T11:13:00Z"
    zero = {"create_time": on, "update_time": on, "amount.total": "0.00"}
    feeder.hear(sample("READ.PLAN"), sample(ACTIVATED), sample(COMPLETED, zero, at=on))
    assert feeder.owed() == ["account_setup"]
    assert feeder.subscription(ALICE).paid_through == at("2026-03-24T10:00:00Z")


def test_cancellation_names_the_open_balance(sqlite_pipeline: PipelineUnderTest) -> None:
    feeder, on = EventFeeder(sqlite_pipeline), "2026-03-25T11:00:00Z"
    cancelled = {"status_update_time": on, "update_time": on, "billing_info.outstanding_balance.value": "29.0"}
    feeder.hear(sample(ACTIVATED), sample(FAILED), sample(CANCELLED, cancelled, at=on))
    assert feeder.mail("subscription_cancelled").facts["balance"] == {"amount": 2900, "currency": "EUR"}


def test_setup_mail_names_no_doubtful_billing_date(sqlite_pipeline: PipelineUnderTest) -> None:
    feeder = EventFeeder(sqlite_pipeline)
    feeder.hear(sample(ACTIVATED, {"billing_info.next_billing_time": "2026-02-24T10:00:00Z"}))
    assert feeder.mail("account_setup").facts["next_billing_at"] is None
    sqlite_pipeline.empty()
    feeder.hear(sample(ACTIVATED))
    assert feeder.mail("account_setup").facts["next_billing_at"] == "2026-03-24T10:00:00Z"


def _moment(resource: dict[str, Any]) -> str:
    return str(resource.get("status_update_time") or resource["update_time"])


@pytest.mark.parametrize("kind", ["BILLING.SUBSCRIPTION.UPDATED", FAILED])
def test_setup_mail_for_old_activation_is_withheld(sqlite_pipeline: PipelineUnderTest, kind: str) -> None:
    year_old = {"status_update_time": "2025-02-24T09:16:40Z"}
    feeder = EventFeeder(sqlite_pipeline)
    feeder.hear(sample(kind, year_old))
    assert feeder.subscription(ALICE).status == "ACTIVE"
    assert feeder.mail("account_setup").state == "withheld"


@pytest.mark.parametrize(
    "kind", ["BILLING.SUBSCRIPTION.RE-ACTIVATED", "BILLING.SUBSCRIPTION.UPDATED", "READ.SUBSCRIPTION"]
)
@pytest.mark.parametrize(("days", "state"), [(1000, "withheld"), (8, "withheld"), (6, "queued")])
def test_subscriber_since_long_ago_is_not_welcomed(
    sqlite_pipeline: PipelineUnderTest, kind: str, days: int, state: str
) -> None:
    """The vendor takes over existing subscribers: the first event about them is no activation, but their status is active."""
    sqlite_pipeline.clock.move_to(at("2026-06-01T12:00Z"))
    now = sqlite_pipeline.now
    began, recent = format_time(now - timedelta(days=days)), format_time(now)
    times = {"status": "ACTIVE", "start_time": began, "status_update_time": recent, "update_time": recent}
    feeder = EventFeeder(sqlite_pipeline)
    feeder.hear(sample(kind, times))
    mail = feeder.mail("account_setup")
    assert mail.state == state, mail.reason


def test_status_in_another_event_queues_the_missed_mail(sqlite_pipeline: PipelineUnderTest) -> None:
    feeder = EventFeeder(sqlite_pipeline)
    suspended = {"status": "SUSPENDED", "status_update_time": "2026-03-24T11:13:08Z"}
    feeder.hear(sample(ACTIVATED), sample(FAILED, suspended))
    assert feeder.owed() == ["account_setup", "subscription_suspended"]
