"""A payment that PayPal does not know does not stand, even if its event was signed: keys and credentials can leak."""

from datetime import timedelta
from itertools import permutations
from typing import Any

import pytest

from pipeline.billing.subscription import REREAD_DELAY
from pipeline.db.models import PaypalLookup
from pipeline.inbox.lookup_fetcher import MISSING_AFTER
from pipeline.inbox.parsing import NOT_FOUND
from pipeline.paypal.requests import LookupKind
from tests.support.event_feeder import EventFeeder
from tests.support.example_people import ALICE
from tests.support.pipeline_under_test import PipelineUnderTest
from tests.support.sample_events import sample

ACTIVATED, SALE = "BILLING.SUBSCRIPTION.ACTIVATED", "PAYMENT.SALE.COMPLETED"
FORGED = "9FORGED1111111111"
Answers = dict[tuple[LookupKind, str], dict[str, Any]]


def known_to_paypal() -> Answers:
    """PayPal knows the subscription and its one genuine payment."""
    return {
        ("subscription", ALICE.subscription): sample(ACTIVATED)["resource"],
        ("plan", ALICE.plan): sample("READ.PLAN")["resource"],
        ("sale", sample(SALE)["resource"]["id"]): sample(SALE)["resource"],
    }


def forged(at: str, **changes: Any) -> dict[str, Any]:
    times = {"create_time": at, "update_time": at}
    return sample(SALE, {"id": FORGED, "billing_agreement_id": ALICE.subscription, **times, **changes}, at=at)


def days_of_look_ups(feeder: EventFeeder) -> None:
    """Run all look-ups until PayPal's 404 counts as an answer."""
    feeder.ask(REREAD_DELAY)
    for _ in range(12):
        feeder.ask(MISSING_AFTER / 4)


def genuine(feeder: EventFeeder) -> None:
    feeder.hear(sample("READ.PLAN"), sample(ACTIVATED), sample(SALE))
    feeder.ask(REREAD_DELAY)


def test_forged_payment_of_a_real_subscription_does_not_stand(pipeline: PipelineUnderTest) -> None:
    feeder = EventFeeder(pipeline, known_to_paypal())
    genuine(feeder)
    before = feeder.subscription(ALICE)
    later = (pipeline.now + timedelta(hours=20)).isoformat()
    feeder.hear(forged(later), at=pipeline.now.isoformat())
    days_of_look_ups(feeder)
    assert feeder.payments()[FORGED].status == "unconfirmed"
    after = feeder.subscription(ALICE)
    assert (after.status, after.paid_through) == (before.status, before.paid_through)
    others = {id: row.status for id, row in feeder.payments().items() if id != FORGED}
    assert set(others.values()) == {"completed"}


def test_forged_payment_is_a_task_of_the_operator(sqlite_pipeline: PipelineUnderTest) -> None:
    feeder = EventFeeder(sqlite_pipeline, known_to_paypal())
    genuine(feeder)
    feeder.hear(forged((sqlite_pipeline.now + timedelta(hours=20)).isoformat()), at=sqlite_pipeline.now.isoformat())
    days_of_look_ups(feeder)
    assert [(row.kind, row.id, row.due_at) for row in sqlite_pipeline.rows(PaypalLookup)] == [("sale", FORGED, None)]


def test_forged_payment_of_a_subscription_that_paypal_does_not_know_does_not_stand(
    pipeline: PipelineUnderTest,
) -> None:
    feeder = EventFeeder(pipeline, {})
    feeder.hear(forged("2026-03-24T10:00:00Z"))
    assert feeder.payments()[FORGED].status == "completed"
    for _ in range(24):
        feeder.ask(MISSING_AFTER / 4)
    assert feeder.payments()[FORGED].status == "unconfirmed"
    assert feeder.subscription(ALICE).paid_through is None


def test_payment_that_paypal_knows_after_all_counts_again(sqlite_pipeline: PipelineUnderTest) -> None:
    knows: Answers = {}
    feeder = EventFeeder(sqlite_pipeline, knows)
    feeder.hear(sample(SALE))
    sale = sample(SALE)["resource"]
    for _ in range(24):
        feeder.ask(MISSING_AFTER / 4)
    assert feeder.payments()[sale["id"]].status == "unconfirmed"
    knows["sale", sale["id"]] = sale
    feeder.hear(sample("READ.SALE", sale))
    assert feeder.payments()[sale["id"]].status == "completed"


def test_status_does_not_depend_on_the_order(sqlite_pipeline: PipelineUnderTest) -> None:
    sale = sample(SALE)
    missing = sample("READ.SALE", {"id": sale["resource"]["id"], "state": NOT_FOUND}, at="2026-06-01T00:00:00Z")
    read = sample("READ.SALE", sale["resource"])
    for events, expected in (([sale, missing], "unconfirmed"), ([sale, missing, read], "completed")):
        for order in permutations(events):
            sqlite_pipeline.empty()
            feeder = EventFeeder(sqlite_pipeline)
            feeder.hear(*order)
            assert {row.status for row in feeder.payments().values()} == {expected}


@pytest.mark.parametrize("hours", [0, 20])
def test_genuine_payment_is_confirmed_by_one_look_up_at_most(sqlite_pipeline: PipelineUnderTest, hours: int) -> None:
    """PayPal may report the last payment late. Then one look-up confirms the payment, and no more are made."""
    answers = known_to_paypal()
    feeder = EventFeeder(sqlite_pipeline, answers)
    genuine(feeder)
    at = (sqlite_pipeline.now + timedelta(hours=hours)).isoformat()
    event = forged(at)
    answers["sale", FORGED] = event["resource"]
    feeder.hear(event, at=at)
    days_of_look_ups(feeder)
    assert feeder.payments()[FORGED].status == "completed"
    assert feeder.questions() == []


def test_unchanged_answer_is_a_reason_to_look_the_forged_payment_up(pipeline: PipelineUnderTest) -> None:
    """PayPal's second answer equals the first, and was given after the forged payment, which it lacks. PayPal's API may be
    some seconds behind, so the payment counts until PayPal has answered 404 for a day."""
    feeder = EventFeeder(pipeline, known_to_paypal())
    genuine(feeder)
    before = feeder.subscription(ALICE).paid_through
    due = "2026-03-24T12:00:00Z"  # the charge of 10:00 has not come
    feeder.hear(forged(due), at=due)
    assert feeder.subscription(ALICE).paid_through != before
    feeder.ask(REREAD_DELAY)
    assert ("sale", FORGED) in feeder.questions()
    days_of_look_ups(feeder)
    assert feeder.payments()[FORGED].status == "unconfirmed"
    assert feeder.subscription(ALICE).paid_through == before
