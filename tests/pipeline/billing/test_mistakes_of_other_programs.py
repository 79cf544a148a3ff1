"""Mistakes that users of other PayPal integrations have reported, with our own data."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import orjson
import pytest

from pipeline.db.models import Mail, Payment, Subscription
from pipeline.inbox.parsing import event_from_lookup
from pipeline.money import Money, format_money
from pipeline.simulator import shapes
from pipeline.simulator.people import PEOPLE
from pipeline.simulator.plans import CLOUD, ONBOARDING, Plan
from pipeline.simulator.subscription import SimulatedSubscription
from pipeline.simulator.varied_plans import FORINT, SHIPPED, TAIWAN
from tests.support.event_feeder import EventFeeder
from tests.support.pipeline_under_test import PipelineUnderTest

START = datetime(2026, 2, 3, 9, tzinfo=UTC)
DAY = timedelta(days=1)


class Scene:
    """A subscription and a pipeline that gets its events, in order."""

    def __init__(self, pipeline: PipelineUnderTest, plan: Plan = CLOUD) -> None:
        pipeline.clock.move_to(START)
        self.pipeline, self.feeder, self._told = pipeline, EventFeeder(pipeline), 0
        self.subscription = SimulatedSubscription(PEOPLE[0], plan, START, Random(5))
        self.feeder.hear(orjson.loads(event_from_lookup("plan", shapes.plan(plan), START)))
        self.subscription.start()
        self.hear()

    def hear(self) -> None:
        new, self._told = self.subscription.deliveries[self._told :], len(self.subscription.deliveries)
        self.feeder.hear(*(each.event for each in new))

    @property
    def row(self) -> Subscription:
        [row] = self.pipeline.rows(Subscription)
        return row

    @property
    def payment(self) -> Payment:
        return self.pipeline.rows(Payment)[-1]

    def mails(self) -> Counter[str]:
        return Counter(row.kind for row in self.pipeline.rows(Mail) if row.state != "withheld")


def test_access_lasts_to_the_end_of_the_period_that_the_last_charge_paid(sqlite_pipeline: PipelineUnderTest) -> None:
    scene = Scene(sqlite_pipeline, ONBOARDING)
    for _ in range(2):
        scene.subscription.renew()
    scene.hear()
    assert (scene.subscription.status, scene.row.status) == ("EXPIRED", "EXPIRED")
    assert scene.row.paid_through == datetime(2026, 5, 3, 10, tzinfo=UTC)
    assert (scene.row.next_billing_at, scene.row.remind_at, scene.mails()["receipt"]) == (None, None, 3)


@pytest.mark.parametrize("percent", [50, 110, 250])
def test_charge_at_a_changed_price_pays_one_cycle(sqlite_pipeline: PipelineUnderTest, percent: int) -> None:
    scene = Scene(sqlite_pipeline)
    changed = replace(CLOUD, price=Money(29 * percent, "EUR"), version=2, priced_at=START)
    scene.subscription.change_price(changed, START)
    scene.subscription.renew()
    scene.hear()
    assert scene.row.paid_through == datetime(2026, 4, 3, 10, tzinfo=UTC)


def test_charge_with_the_open_balance_is_one_payment_with_one_receipt(sqlite_pipeline: PipelineUnderTest) -> None:
    scene = Scene(sqlite_pipeline)
    scene.subscription.fail_payment()
    scene.subscription.renew()
    scene.hear()
    assert (len(scene.pipeline.rows(Payment)), scene.mails()["receipt"]) == (2, 2)
    assert scene.row.paid_through == datetime(2026, 5, 3, 10, tzinfo=UTC)


def test_failed_attempt_in_two_events_is_one_mail_and_its_retry_another(sqlite_pipeline: PipelineUnderTest) -> None:
    scene = Scene(sqlite_pipeline)
    scene.subscription.fail_payment(attempts=2)
    first, second = (each.event for each in scene.subscription.deliveries[-2:])
    scene.feeder.hear(first, first | {"id": "WH-2", "create_time": first["create_time"]})
    assert scene.mails()["payment_failed"] == 1
    scene.feeder.hear(second)
    assert scene.mails()["payment_failed"] == 2


def test_sale_that_is_reported_again_days_later_counts_once(sqlite_pipeline: PipelineUnderTest) -> None:
    scene = Scene(sqlite_pipeline)
    until, sale = scene.row.paid_through, scene.subscription.deliveries[-1].event
    later = (START + 5 * DAY).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    scene.feeder.hear(sale | {"id": "WH-LATER", "create_time": later})
    assert (len(scene.pipeline.rows(Payment)), scene.mails()["receipt"], scene.row.paid_through) == (1, 1, until)


def test_charge_of_a_reference_transaction_belongs_to_no_subscription(sqlite_pipeline: PipelineUnderTest) -> None:
    scene = Scene(sqlite_pipeline)
    sale = scene.subscription.deliveries[-1].event
    resource = sale["resource"] | {"id": "9RT00000000000001", "billing_agreement_id": "B-7XY11122ZZ3334445"}
    scene.feeder.hear(sale | {"id": "WH-REFERENCE", "resource": resource})
    assert [row.id for row in scene.pipeline.rows(Subscription)] == [scene.subscription.id]
    assert scene.mails()["receipt"] == 1


@pytest.mark.parametrize("plan", [FORINT, TAIWAN, replace(CLOUD, price=Money(500, "JPY"))], ids=["HUF", "TWD", "JPY"])
@pytest.mark.parametrize("decimals", ["", ".00"])
def test_currency_without_decimals_is_read_in_both_spellings(
    sqlite_pipeline: PipelineUnderTest, plan: Plan, decimals: str
) -> None:
    scene = Scene(sqlite_pipeline, plan)
    sale = scene.subscription.renew()
    event: dict[str, Any] = scene.subscription.deliveries[-1].event
    amount = event["resource"]["amount"] | {"total": f"{sale.amount.amount}{decimals}"}
    scene.feeder.hear(event | {"resource": event["resource"] | {"amount": amount}})
    stored = {(row.amount, row.currency) for row in scene.pipeline.rows(Payment) if row.id == sale.id}
    assert stored == {(sale.amount.amount, plan.currency)}
    assert "." not in format_money(sale.amount).replace(",", "")


def test_part_that_is_reversed_keeps_the_access_and_mails_nobody(sqlite_pipeline: PipelineUnderTest) -> None:
    scene = Scene(sqlite_pipeline)
    until, mails = scene.row.paid_through, scene.mails()
    [sale] = scene.subscription.sales.values()
    refund = scene.subscription.refund(sale, START + DAY, 900)
    assert refund
    scene.subscription.reverse(sale, START + 2 * DAY, 500)
    events = [each.event for each in scene.subscription.deliveries[-2:]]
    events[1] = events[1] | {"resource": events[1]["resource"] | {"sale_id": sale.id}}
    scene.feeder.hear(*events)
    assert (scene.payment.status, scene.payment.refunded, scene.row.paid_through) == ("partially_refunded", 1400, until)
    assert scene.mails() - mails == Counter({"refund_receipt": 1})


def test_payment_that_is_refunded_and_reversed_is_returned_once(sqlite_pipeline: PipelineUnderTest) -> None:
    scene = Scene(sqlite_pipeline)
    [sale] = scene.subscription.sales.values()
    scene.subscription.refund(sale, START + DAY)
    scene.hear()
    reversal = shapes.reversal("7RV00000000000001", sale.amount, START + 2 * DAY) | {"sale_id": sale.id}
    event = shapes.envelope("WH-REVERSAL", "PAYMENT.SALE.REVERSED", START + 2 * DAY, "refund", reversal, sale.amount)
    scene.feeder.hear(event)
    assert scene.payment.refunded == sale.amount.amount
    assert scene.row.paid_through
    assert scene.row.paid_through <= START + 2 * DAY


def test_customer_who_pays_the_debt_of_a_suspended_subscription_is_not_welcomed_again(
    sqlite_pipeline: PipelineUnderTest,
) -> None:
    scene = Scene(sqlite_pipeline)
    for _ in range(2):
        scene.subscription.fail_payment()
    scene.subscription.pay_balance(scene.subscription.now + DAY)
    scene.subscription.reactivate(scene.subscription.now + DAY)
    scene.hear()
    assert (scene.row.status, scene.mails()["account_setup"], scene.mails()["subscription_suspended"]) == (
        "ACTIVE",
        1,
        1,
    )
    assert scene.mails()["receipt"] == 2
    assert scene.row.paid_through
    assert scene.row.paid_through > scene.subscription.now


def test_charge_with_shipping_and_tax_pays_one_cycle(sqlite_pipeline: PipelineUnderTest) -> None:
    scene = Scene(sqlite_pipeline, SHIPPED)
    scene.subscription.renew()
    scene.hear()
    assert scene.row.paid_through == datetime(2028, 2, 3, 10, tzinfo=UTC)


def test_payment_of_nothing_has_no_receipt_and_pays_no_time(sqlite_pipeline: PipelineUnderTest) -> None:
    scene = Scene(sqlite_pipeline)
    until, sale = scene.row.paid_through, scene.subscription.deliveries[-1].event
    resource = sale["resource"] | {"id": "0ZE00000000000001", "amount": {"total": "0.00", "currency": "EUR"}}
    scene.feeder.hear(sale | {"id": "WH-ZERO", "resource": resource})
    assert (scene.mails()["receipt"], scene.row.paid_through) == (1, until)
