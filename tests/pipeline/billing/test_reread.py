"""After each event about money, plan, quantity or status the subscription is read from PayPal once."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import delete

from handlers import HANDLERS
from pipeline.billing.subscription import REREAD_DELAY
from pipeline.db.models import PaypalLookup, Subscription
from pipeline.paypal.requests import LookupKind
from tests.support.event_feeder import EventFeeder
from tests.support.example_people import ALICE
from tests.support.pipeline_under_test import PipelineUnderTest
from tests.support.sample_events import sample

SNAPSHOT: dict[tuple[LookupKind, str], dict[str, Any]] = {
    ("subscription", ALICE.subscription): sample(
        "READ.SUBSCRIPTION",
        {"id": ALICE.subscription, "billing_info.last_payment.time": sample("PAYMENT.SALE.COMPLETED")["create_time"]},
    )["resource"]
}
SALE = "PAYMENT.SALE.COMPLETED"


@pytest.mark.parametrize(
    "event", sorted(each for each in HANDLERS if each.startswith(("BILLING.SUBSCRIPTION.", "PAYMENT.SALE.")))
)
def test_event_requests_to_read_its_subscription(sqlite_pipeline: PipelineUnderTest, event: str) -> None:
    feeder = EventFeeder(sqlite_pipeline, {})
    feeder.hear(sample("READ.PLAN"))
    sale = "3AL51924877811803" if event in ("PAYMENT.SALE.REFUNDED", "PAYMENT.SALE.REVERSED") else None
    if sale:
        feeder.hear(sample(SALE, {"id": sale}))
        with sqlite_pipeline.database.transaction() as session:
            session.execute(delete(PaypalLookup))
    feeder.hear(sample(event, {} if sale is None else {"sale_id": sale}))
    subscriptions = {row.id for row in sqlite_pipeline.rows(Subscription)}
    assert subscriptions
    assert {id for kind, id in feeder.questions() if kind == "subscription"} == subscriptions


@pytest.mark.parametrize("event", ["BILLING.SUBSCRIPTION.ACTIVATED", SALE])
def test_without_credentials_nothing_is_requested(sqlite_pipeline: PipelineUnderTest, event: str) -> None:
    feeder = EventFeeder(sqlite_pipeline)
    feeder.hear(sample("READ.PLAN"), sample(event))
    assert feeder.questions() == []


def test_events_within_seconds_share_one_read_and_its_answer_requests_none(sqlite_pipeline: PipelineUnderTest) -> None:
    feeder = EventFeeder(sqlite_pipeline, SNAPSHOT)
    feeder.hear(sample("READ.PLAN"), sample("BILLING.SUBSCRIPTION.ACTIVATED"), sample(SALE))
    assert feeder.questions() == [("subscription", ALICE.subscription)]
    feeder.ask(REREAD_DELAY)
    assert feeder.questions() == []
    assert len([state for state in feeder.states() if state == "handled"]) == 4
    feeder.ask(timedelta(days=1))
    assert len(feeder.states()) == 4


def test_payment_of_a_pending_subscription_finds_the_lost_activation(sqlite_pipeline: PipelineUnderTest) -> None:
    """The ACTIVATED event was lost. The customer pays, so PayPal is asked, and the account is set up."""
    active = sample("BILLING.SUBSCRIPTION.ACTIVATED")["resource"]
    feeder = EventFeeder(sqlite_pipeline, {("subscription", ALICE.subscription): active})
    feeder.hear(sample("READ.PLAN"), sample("BILLING.SUBSCRIPTION.CREATED"), sample(SALE))
    assert feeder.subscription(ALICE).status == "APPROVAL_PENDING"
    assert not feeder.mail("receipt").due
    feeder.ask(REREAD_DELAY)
    assert feeder.subscription(ALICE).status == "ACTIVE"
    assert feeder.mail("receipt").due
    assert feeder.mail("account_setup").due
