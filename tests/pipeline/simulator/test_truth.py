"""Disputes, refunds, one-off payments and account events, and the truth of random lives against PayPal's own objects."""

import json
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.money import Money, parse_amount
from pipeline.simulator.account_events import VendorAccount
from pipeline.simulator.dispute import SimulatedDispute
from pipeline.simulator.one_off import OneOffPayment
from pipeline.simulator.people import PEOPLE
from pipeline.simulator.plans import CLOUD, CLOUD_SEATS
from pipeline.simulator.random_life import Life, random_life
from pipeline.simulator.sale import InvalidTransitionError, Sale
from pipeline.simulator.subscription import SimulatedSubscription
from pipeline.simulator.timeline import lose
from pipeline.simulator.truth import truth_of
from pipeline.simulator.world import PaypalState
from tests.support.recorded_samples import recorded

START = datetime(2025, 1, 14, 8, 30, tzinfo=UTC)
SEEDS = st.integers(min_value=0, max_value=2**32)


def paid_once() -> tuple[SimulatedSubscription, Sale]:
    subscription = SimulatedSubscription(PEOPLE[0], CLOUD, START, Random(1))
    subscription.start()
    return subscription, next(iter(subscription.sales.values()))


def test_won_chargeback_gives_the_money_back() -> None:
    subscription, sale = paid_once()
    dispute = SimulatedDispute(subscription, sale, START + timedelta(days=3), stage="CHARGEBACK")
    assert truth_of(subscription).transactions[sale.id].status == "refunded"
    assert truth_of(subscription).paid_until is None
    dispute.respond(START + timedelta(days=4))
    dispute.resolve("RESOLVED_SELLER_FAVOUR", START + timedelta(days=20))
    truth = truth_of(subscription)
    assert (truth.transactions[sale.id].status, truth.transactions[sale.id].refunded) == ("completed", 0)
    assert truth.transactions[sale.id].refunds[0].is_reversal
    assert truth.paid_until == datetime(2025, 2, 14, 10, tzinfo=UTC)
    assert truth.disputes[dispute.id].fee is None
    world = PaypalState()
    for delivery in subscription.deliveries:
        world.apply(delivery)
    assert (world.show("refund", truth.transactions[sale.id].refunds[0].id) or {})["state"] == "cancelled"


def test_lost_inquiry_holds_then_takes_the_disputed_part() -> None:
    subscription, sale = paid_once()
    dispute = SimulatedDispute(subscription, sale, START + timedelta(days=3), amount=1000)
    opened = truth_of(subscription).disputes[dispute.id]
    assert (opened.held, opened.due_at) == (Money(1000, "EUR"), START + timedelta(days=13))
    dispute.resolve("RESOLVED_BUYER_FAVOUR", START + timedelta(days=14))
    truth = truth_of(subscription)
    assert truth.transactions[sale.id].refunded == 1000
    assert truth.disputes[dispute.id].held.amount == 0
    assert truth.disputes[dispute.id].fee == Money(1500, "EUR")
    with pytest.raises(InvalidTransitionError):
        dispute.respond(START + timedelta(days=15))
    kinds = [each.type for each in subscription.deliveries][-3:]
    assert kinds == ["CUSTOMER.DISPUTE.CREATED", "PAYMENT.SALE.REVERSED", "CUSTOMER.DISPUTE.RESOLVED"]


def test_refund_returns_a_part_of_the_fee_and_never_exceeds_the_sale() -> None:
    subscription, sale = paid_once()
    name = subscription.refund(sale, START + timedelta(days=2), 900, returned_fee=35)
    found = truth_of(subscription).transactions[sale.id].refunds[0]
    assert (found.id, found.amount, found.returned_fee) == (name, 900, 35)
    assert sale.refunds[name]["refund_from_received_amount"]["total"] == "8.65"
    with pytest.raises(InvalidTransitionError):
        subscription.refund(sale, START + timedelta(days=3), 2001)


def test_seats_are_reduced_before_the_refund() -> None:
    subscription = SimulatedSubscription(PEOPLE[0], CLOUD_SEATS, START, Random(1))
    subscription.start()
    subscription.revise(START + timedelta(days=2), 3)
    subscription.refund(next(iter(subscription.sales.values())), START + timedelta(days=2, hours=1), 1800)
    truth = truth_of(subscription)
    assert truth.next_billing is not None
    assert (truth.quantity, truth.next_billing.total) == (3, 2700)


def test_one_off_payment_is_refunded_in_parts_and_reversed() -> None:
    payment = OneOffPayment(PEOPLE[0], Money(1099, "USD"), START, Random(1))
    payment.approve(START)
    payment.capture(START, "PENDING")
    assert payment.rest == 0
    payment.finish(START + timedelta(days=1))
    payment.refund(START + timedelta(days=2), 500, status="FAILED")
    payment.refund(START + timedelta(days=3), 500)
    with pytest.raises(InvalidTransitionError):
        payment.refund(START + timedelta(days=3), 600)
    payment.reverse(START + timedelta(days=4))
    assert [each.type for each in payment.deliveries] == [
        "CHECKOUT.ORDER.APPROVED",
        "PAYMENT.CAPTURE.PENDING",
        "PAYMENT.CAPTURE.COMPLETED",
        "CHECKOUT.ORDER.COMPLETED",
        "PAYMENT.REFUND.FAILED",
        "PAYMENT.CAPTURE.REFUNDED",
        "PAYMENT.CAPTURE.REVERSED",
    ]
    # Fee: 3.49 % of 10.99 (0.38) and 0.49.
    assert payment.shape()["seller_receivable_breakdown"]["paypal_fee"]["value"] == "0.87"
    assert payment.capture_status == "REFUNDED"


def test_events_have_the_keys_that_identify_and_value_the_recorded_ones() -> None:
    payment = OneOffPayment(PEOPLE[0], Money(1099, "USD"), START, Random(1))
    payment.approve(START)
    payment.capture(START)
    payment.refund(START + timedelta(days=1), 500)
    account = VendorAccount(START, Random(2))
    account.invoice(PEOPLE[0], Money(100, "USD"), "PAID", START)
    account.vault(PEOPLE[0], "CREATED", START)
    account.vault(PEOPLE[0], "DELETION-INITIATED", START)
    account.change_plan(CLOUD, "DEACTIVATED", START)
    account.change_price(CLOUD, Money(3900, "EUR"), START)
    subscription, sale = paid_once()
    SimulatedDispute(subscription, sale, START).respond(START)
    optional = {"note_to_payer", "buyer_response_due_date", "image_url", "home_url", "extensions", "offer"}
    deliveries = [*payment.deliveries, *account.deliveries, *subscription.deliveries[-2:]]
    for delivery in deliveries:
        wanted = json.loads(recorded(f"paypal/events/{delivery.type}.json").read_text("utf-8"))
        assert set(wanted["resource"]) - optional <= set(delivery.event["resource"]), delivery.type
        assert wanted["resource_type"] == delivery.event["resource_type"]


def test_account_limitation_names_its_change() -> None:
    account = VendorAccount(START, Random(2))
    account.limit("ADDED", START)
    assert account.deliveries[0].type == "CUSTOMER.ACCOUNT-LIMITATION.ADDED"


def test_lost_events_are_lost_with_their_repeats_but_the_world_keeps_them() -> None:
    life = random_life(Random(4))
    twice = [each for delivery in life.deliveries for each in (delivery, delivery)]
    arrived, lost = lose(twice, Random(1), 0.5)
    assert lost
    assert not {each.id for each in arrived} & {each.id for each in lost}
    world = PaypalState()
    for each in (*arrived, *lost):
        world.apply(each)
    assert {each.id for each in world.events()} == {each.id for each in life.deliveries}


@given(seed=SEEDS)
@settings(max_examples=15)
def test_life_depends_only_on_its_seed(seed: int) -> None:
    first, second = random_life(Random(seed)), random_life(Random(seed))
    assert [each.body for each in first.deliveries] == [each.body for each in second.deliveries]
    assert first.truth == second.truth


@given(seed=SEEDS)
@settings(max_examples=40)
def test_truth_agrees_with_the_objects_of_the_api(seed: int) -> None:
    life = random_life(Random(seed))
    world, truth = PaypalState(), life.truth
    for delivery in life.deliveries:
        world.apply(delivery)
    shown = world.show("subscription", truth.id) or {}
    assert (shown["status"], shown["plan_id"], shown["quantity"]) == (
        truth.status,
        truth.plan_id,
        str(truth.quantity),
    )
    if "billing_info" in shown:
        balance = shown["billing_info"]["outstanding_balance"]
        assert parse_amount(balance["value"], balance["currency_code"]) == truth.outstanding
    _check_sales(life, world)


def _check_sales(life: Life, world: PaypalState) -> None:
    for name, found in life.truth.transactions.items():
        sale = world.show("sale", name) or {}
        details = sale["amount"]["details"]
        parts = [parse_amount(text, found.currency).amount for text in details.values()]
        assert sum(parts) == found.gross == parse_amount(sale["amount"]["total"], found.currency).amount
        assert sale["state"] == found.status
        assert found.refunded <= found.gross
        assert (found.fee is None) is (found.status in ("pending", "denied"))
