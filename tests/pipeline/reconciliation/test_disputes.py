"""The money of disputes follows PayPal's decision, in whatever order its events arrive, and however late it returns."""

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from itertools import permutations
from random import Random

import pytest

from pipeline.db.models import Dispute, Mail, Payment, Subscription
from pipeline.simulator.dispute import SimulatedDispute
from pipeline.simulator.people import PEOPLE
from pipeline.simulator.plans import CLOUD
from pipeline.simulator.subscription import SimulatedSubscription
from pipeline.simulator.timeline import Delivery, by_time
from tests.pipeline.reconciliation.test_reconciliation import DAY, START, Vendor
from tests.support.pipeline_under_test import PipelineUnderTest


@pytest.fixture
def vendor(sqlite_pipeline: PipelineUnderTest) -> Iterator[Vendor]:
    sqlite_pipeline.clock.move_to(START)
    with ExitStack() as stack:
        yield Vendor(sqlite_pipeline, stack)


def chargeback() -> tuple[list[Delivery], list[Delivery], list[Delivery]]:
    """Return the events of a new subscription, of a chargeback about its sale, and of PayPal's decision for the seller."""
    subscription = SimulatedSubscription(PEOPLE[0], CLOUD, START, Random(1))
    subscription.start("instant")
    before = list(subscription.deliveries)
    [sale] = subscription.sales.values()
    dispute = SimulatedDispute(subscription, sale, START + DAY, stage="CHARGEBACK")
    opened = [each for each in subscription.deliveries if each not in before]
    dispute.resolve("RESOLVED_SELLER_FAVOUR", START + 9 * DAY)
    ended = [each for each in subscription.deliveries if each not in before and each not in opened]
    return by_time(before), by_time(opened), by_time(ended)


def test_lost_outcome_is_found_by_the_next_run(vendor: Vendor) -> None:
    before, opened, ended = chargeback()
    vendor.receive(*before, *opened)
    vendor.receive(*ended, lost=True)
    vendor.pipeline.clock.advance(DAY)
    assert vendor.reconcile().disputes_looked_up == 1
    [dispute] = vendor.pipeline.rows(Dispute)
    assert dispute.outcome == "RESOLVED_SELLER_FAVOUR"
    vendor.pipeline.clock.advance(2 * timedelta(hours=1))
    vendor.work()
    [payment] = vendor.pipeline.rows(Payment)
    assert (payment.status, payment.refunded) == ("completed", 0)
    outcomes = [mail.idempotency_key for mail in vendor.pipeline.rows(Mail) if mail.kind == "dispute"]
    assert len([key for key in outcomes if "resolved" in key]) == 1


def test_reversal_that_arrives_after_the_outcome_is_looked_up_until_the_money_is_back(vendor: Vendor) -> None:
    before, opened, ended = chargeback()
    reversed_late = [each for each in opened if each.type == "PAYMENT.SALE.REVERSED"]
    vendor.receive(*before, *[each for each in opened if each not in reversed_late], *ended, *reversed_late)
    vendor.pipeline.clock.advance(DAY)
    vendor.reconcile()
    [payment] = vendor.pipeline.rows(Payment)
    assert (payment.status, payment.refunded) == ("completed", 0)


def test_money_that_paypal_does_not_return_is_an_exception_until_it_does(vendor: Vendor) -> None:
    before, opened, ended = chargeback()
    vendor.receive(*before, *opened)
    vendor.work()
    for each in ended:  # PayPal decides, but does not return the money yet
        vendor.pipeline.clock.move_to(each.at)
        vendor.receive_only(each)
    vendor.pipeline.clock.advance(8 * DAY)
    vendor.reconcile()
    [row] = vendor.open()
    assert row.kind == "dispute"
    assert "PayPal has not returned" in row.reason
    vendor.receive(*ended)  # now it returns the money
    vendor.reconcile()
    vendor.reconcile()
    assert vendor.open() == []


def test_later_reversal_of_the_same_payment_is_no_exception(vendor: Vendor) -> None:
    """The seller wins a dispute about a half. Then the buyer's bank takes the whole payment back, which is another case."""
    subscription = SimulatedSubscription(PEOPLE[0], CLOUD, START, Random(1))
    subscription.start("instant")
    [sale] = subscription.sales.values()
    dispute = SimulatedDispute(subscription, sale, START + DAY, amount=1450, stage="CHARGEBACK")
    dispute.resolve("RESOLVED_SELLER_FAVOUR", START + 9 * DAY)
    subscription.reverse(sale, START + 12 * DAY)
    vendor.receive(*by_time(subscription.deliveries))
    vendor.pipeline.clock.move_to(START + 20 * DAY)
    vendor.reconcile()
    vendor.reconcile()  # the first one looked up the reversal, whose event does not name the payment
    assert [row for row in vendor.open() if row.kind == "dispute"] == []


def test_any_order_of_a_disputes_events_gives_the_same_money(vendor: Vendor) -> None:
    before, opened, ended = chargeback()
    found = set()
    for order in permutations([*opened, *ended]):
        vendor.pipeline.empty()
        vendor.receive(*before)
        for each in order:
            vendor.receive_only(each)
        for each in by_time([*opened, *ended]):
            vendor.world.apply(each)
        vendor.pipeline.clock.move_to(START + 12 * DAY)
        vendor.reconcile()
        vendor.work()
        [payment], [dispute] = vendor.pipeline.rows(Payment), vendor.pipeline.rows(Dispute)
        [subscription] = vendor.pipeline.rows(Subscription)
        found.add((payment.status, payment.refunded, dispute.status, dispute.outcome, subscription.paid_through))
    assert len(found) == 1
    [(status, refunded, *_)] = found
    assert (status, refunded) == ("completed", 0)
