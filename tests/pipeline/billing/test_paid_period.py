"""A mail names a paid-through date only if it is certain when the mail is queued."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import orjson
import pytest

from pipeline.clock import format_time
from pipeline.db.models import Subscription
from pipeline.inbox.parsing import event_from_lookup
from pipeline.money import Money
from pipeline.simulator import shapes
from pipeline.simulator.people import PEOPLE
from pipeline.simulator.plans import CLOUD, CLOUD_TRIAL, Plan
from pipeline.simulator.subscription import SimulatedSubscription
from pipeline.simulator.timeline import Delivery
from tests.support.event_feeder import EventFeeder
from tests.support.pipeline_under_test import PipelineUnderTest

START = datetime(2026, 2, 1, 9, tzinfo=UTC)


class Scene:
    """A subscription to CLOUD, and a pipeline that gets its events."""

    def __init__(self, pipeline: PipelineUnderTest) -> None:
        pipeline.clock.move_to(START)
        self.subscription = SimulatedSubscription(PEOPLE[0], CLOUD, START, Random(3))
        self.feeder, self._told = EventFeeder(pipeline), 0
        self.read_plan(CLOUD)
        self.subscription.start()
        self.hear()

    def read_plan(self, plan: Plan) -> None:
        self.feeder.hear(orjson.loads(event_from_lookup("plan", shapes.plan(plan), self.feeder.pipeline.now)))

    def hear(self, only: str = "") -> list[Delivery]:
        """Deliver the new events, or those of one type."""
        new, self._told = self.subscription.deliveries[self._told :], len(self.subscription.deliveries)
        self.feeder.hear(*(each.event for each in new if each.type.startswith(only)))
        return new

    def read_again(self) -> None:
        self.feeder.pipeline.clock.advance(timedelta(minutes=1))
        body = event_from_lookup("subscription", self.subscription.snapshot(), self.feeder.pipeline.now)
        self.feeder.hear(orjson.loads(body))

    def receipt(self) -> dict[str, Any]:
        """Return the facts of the receipt of the last sale."""
        last = list(self.subscription.sales)[-1]
        return next(mail.facts for key, mail in self.feeder.mails().items() if key == f"receipt:{last}")

    def ends_at(self) -> str:
        assert self.subscription.due is not None
        return format_time(self.subscription.due)


@pytest.fixture
def scene(sqlite_pipeline: PipelineUnderTest) -> Scene:
    return Scene(sqlite_pipeline)


def larger(percent: int = 200) -> Plan:
    return replace(CLOUD, id="P-1LA29300AA1111111MZ7QT9Z", price=Money(29 * percent, "EUR"))


def test_first_payment_and_regular_renewals_name_the_date(scene: Scene) -> None:
    assert scene.receipt()["paid_through"] == scene.ends_at()
    for _ in range(3):
        scene.subscription.renew()
        scene.hear()
        assert scene.receipt()["paid_through"] == scene.ends_at()


def test_change_of_plan_at_once_names_the_date_only_with_paypals_report(scene: Scene) -> None:
    scene.read_plan(larger())
    scene.subscription.revise(START + timedelta(days=10), plan=larger(), at_once=True)
    scene.hear(only="PAYMENT.")
    assert scene.receipt()["paid_through"] is None, "the date of the old plan"


def test_charge_of_the_new_price_after_a_lost_change_names_no_date(scene: Scene) -> None:
    scene.subscription.revise(START + timedelta(days=10), quantity=3)
    scene.subscription.renew()
    scene.hear(only="PAYMENT.")
    assert scene.receipt()["paid_through"] is None


def test_part_of_a_balance_names_no_date(scene: Scene) -> None:
    scene.subscription.fail_payment()
    scene.subscription.fail_payment()
    scene.subscription.pay_balance(scene.subscription.now + timedelta(days=1), 2900)
    scene.hear()
    assert scene.receipt()["paid_through"] is None


def test_receipt_after_paypal_was_read_again_names_the_date(scene: Scene) -> None:
    """The receipt of a payment that was released late is queued when PayPal has confirmed the date already."""
    scene.subscription.fail_payment()
    scene.hear()
    scene.subscription.renew()
    scene.read_again()
    scene.hear(only="PAYMENT.")
    assert scene.receipt()["paid_through"] == scene.ends_at()


def test_past_date_that_paypal_did_not_report_is_not_named(scene: Scene) -> None:
    scene.subscription.renew()
    scene.hear()
    first, second = scene.subscription.sales.values()
    for sale in (second, first):
        scene.subscription.refund(sale, scene.subscription.now + timedelta(days=1))
    scene.subscription.suspend(scene.subscription.now + timedelta(days=1))
    scene.hear()
    [row] = scene.feeder.pipeline.rows(Subscription)
    assert row.paid_through
    assert row.paid_through < scene.subscription.now
    assert scene.feeder.mail("subscription_suspended").facts["paid_through"] is None


def test_suspension_within_the_paid_period_names_its_end(scene: Scene) -> None:
    until = scene.ends_at()
    scene.subscription.suspend(START + timedelta(days=5))
    scene.hear()
    assert scene.feeder.mail("subscription_suspended").facts["paid_through"] == until


def test_billing_time_that_paypal_reports_after_the_newest_payment_is_not_replaced(scene: Scene) -> None:
    """Two cycles are unpaid and one is paid: the payment alone would move the date beyond PayPal's."""
    scene.subscription.fail_payment(attempts=1)
    scene.subscription.fail_payment(attempts=1)
    scene.subscription.pay_balance(scene.subscription.now + timedelta(days=1), 2900)
    scene.hear()
    scene.read_again()
    [row] = scene.feeder.pipeline.rows(Subscription)
    assert row.next_billing_at == scene.subscription.next_billing


def test_part_of_a_balance_pays_no_time(scene: Scene) -> None:
    """Case of a vendor who captures a third of the debt: PayPal then reports the rest."""
    until = scene.ends_at()
    scene.subscription.fail_payment(attempts=1)
    scene.subscription.pay_balance(scene.subscription.now + timedelta(days=1), 1000)
    scene.hear()
    scene.read_again()
    [row] = scene.feeder.pipeline.rows(Subscription)
    assert row.outstanding == 1900
    assert row.paid_through
    assert format_time(row.paid_through) == until


def test_pause_of_a_free_trial_is_not_paid(sqlite_pipeline: PipelineUnderTest) -> None:
    """The subscription is active again after the trial. PayPal charges at the next billing time; until then nothing is paid."""
    sqlite_pipeline.clock.move_to(START)
    subscription = SimulatedSubscription(PEOPLE[0], CLOUD_TRIAL, START, Random(3))
    subscription.start()
    until = subscription.due
    subscription.suspend(START + timedelta(days=5))
    subscription.reactivate(START + timedelta(days=20))
    feeder = EventFeeder(sqlite_pipeline)
    feeder.hear(orjson.loads(event_from_lookup("plan", shapes.plan(CLOUD_TRIAL), START)))
    feeder.hear(*(each.event for each in subscription.deliveries))
    sqlite_pipeline.clock.advance(timedelta(minutes=1))
    feeder.hear(orjson.loads(event_from_lookup("subscription", subscription.snapshot(), sqlite_pipeline.now)))
    [row] = sqlite_pipeline.rows(Subscription)
    assert (row.paid_through, row.next_billing_at) == (until, subscription.next_billing)
