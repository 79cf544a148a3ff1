"""Actions at PayPal: stored first with who and why, carried out once, and effective when PayPal reports it."""

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest

from handlers import HANDLERS
from pipeline.actions import perform as performing
from pipeline.actions.order import Kind, Order, describe, place
from pipeline.actions.perform import GIVE_UP_AFTER, Outcome, perform, perform_due
from pipeline.db.models import Action, Event, Payment, Refund, Subscription
from pipeline.errors import OperatorError, UsageError
from pipeline.inbox import lookup_fetcher
from pipeline.inbox import store as inbox
from pipeline.money import Money
from pipeline.paypal.api import PaypalApi
from pipeline.simulator import scenarios
from pipeline.simulator.one_off import OneOffPayment
from pipeline.simulator.people import PEOPLE
from pipeline.simulator.plans import CLOUD, PLANS
from pipeline.simulator.server.api import FakePaypalApi
from pipeline.simulator.world import PaypalState
from tests.support.pipeline_under_test import PipelineUnderTest, delivery

START = datetime(2026, 3, 1, 9, tzinfo=UTC)
DAY = timedelta(days=1)


class Vendor:
    """A vendor with one paid subscription. PayPal's API is the simulator's, over HTTP; no webhook arrives."""

    def __init__(self, pipeline: PipelineUnderTest, stack: ExitStack) -> None:
        self.pipeline, self.world = pipeline, PaypalState()
        pipeline.clock.move_to(START)
        for each in scenarios.first_year(PEOPLE[0], CLOUD, START, Random(1)):
            if each.at < START + DAY:
                self.world.apply(each)
                pipeline.clock.move_to(max(pipeline.now, each.at))
                ids = [item.event_id for item in pipeline.store(delivery(each.body)) if item.publish]
                pipeline.worker(HANDLERS, may_read=True).handle(ids)
        self.fake = FakePaypalApi(self.world, clock=pipeline.clock)
        self.api = PaypalApi(stack.enter_context(self.fake.serve()), "simulator", "simulator-secret")
        stack.callback(self.api.close)
        [self.subscription] = [row.id for row in pipeline.rows(Subscription)]
        [self.payment] = [row.id for row in pipeline.rows(Payment)]
        self.read()

    def order(self, kind: Kind, **more: Any) -> str:
        """Store an order without carrying it out, and return its id."""
        object_id = self.payment if kind == "refund" else self.subscription
        order = Order(kind, object_id, more.pop("reason", "the customer asked for it"), "root (uid 0)", **more)
        with self.pipeline.database.transaction() as session:
            return place(session, self.pipeline.keyring(session), order, self.pipeline.now).id

    def perform(self, id: str) -> Outcome:
        return perform(self.pipeline.database, self.pipeline.clock, self.api, id)

    def read(self) -> None:
        """Make the look-ups, and handle their answers."""
        pipeline = self.pipeline
        for _ in range(5):
            pipeline.clock.advance(timedelta(seconds=10))
            ids = lookup_fetcher.fetch_due(pipeline.database, pipeline.master, pipeline.clock, self.api)
            with pipeline.database.transaction() as session:
                ids += inbox.lease_due(session, pipeline.now, 100)
            pipeline.worker(HANDLERS, may_read=True).handle(ids)

    def status(self) -> str | None:
        return self.pipeline.rows(Subscription)[0].status

    def action(self, id: str) -> Action:
        return next(row for row in self.pipeline.rows(Action) if row.id == id)

    def asked(self, path: str) -> int:
        return sum(path in str(each) for each in self.fake.asked)


@pytest.fixture
def vendor(sqlite_pipeline: PipelineUnderTest) -> Iterator[Vendor]:
    with ExitStack() as stack:
        yield Vendor(sqlite_pipeline, stack)


def test_order_is_an_event_with_who_and_why(vendor: Vendor) -> None:
    id = vendor.order("cancel", reason="asked by jane@example.com")
    row = vendor.action(id)
    event = vendor.pipeline.event(row.event_id)
    assert (event.type, event.source, event.state) == ("ACTION.SUBSCRIPTION.CANCEL", "action", "handled")
    assert event.facts["subscription"] == vendor.subscription
    assert (row.actor, row.state) == ("root (uid 0)", "requested")
    assert b"jane" not in (event.personal_data or b"")
    assert "jane" not in str(event.facts)
    with vendor.pipeline.database.transaction() as session:
        key = vendor.pipeline.keyring(session).get(vendor.subscription)
        assert key
        assert (
            key.decrypt_json("event.personal_data", event.personal_data or b"")["reason"] == "asked by jane@example.com"
        )


@pytest.mark.parametrize(("verbs", "status"), [
    (["cancel"], "CANCELLED"), (["suspend"], "SUSPENDED"), (["suspend", "activate"], "ACTIVE"),
])  # fmt: skip
def test_status_changes_when_paypal_reports_it(vendor: Vendor, verbs: list[Kind], status: str) -> None:
    for verb in verbs:
        before = vendor.status()
        id = vendor.order(verb)
        assert vendor.perform(id).state == "done"
        assert vendor.status() == before
        vendor.read()
    assert vendor.status() == status
    assert {row.state for row in vendor.pipeline.rows(Action)} == {"done"}


def test_capture_is_refunded_by_the_api_that_has_it(vendor: Vendor) -> None:
    """PayPal serves payments without a subscription in its newer API; the id does not tell."""
    one_off = OneOffPayment(PEOPLE[1], Money(4900, "EUR"), vendor.pipeline.now, Random(2))
    one_off.approve(vendor.pipeline.now)
    one_off.capture(vendor.pipeline.now)
    for each in one_off.deliveries:
        vendor.world.apply(each)
        vendor.pipeline.store(delivery(each.body))
    vendor.read()
    vendor.payment = one_off.capture_id
    assert vendor.perform(vendor.order("refund", amount=Money(100, "EUR"))).state == "done"
    vendor.read()
    assert [(row.payment_id, row.amount) for row in vendor.pipeline.rows(Refund)] == [(vendor.payment, 100)]


@pytest.mark.parametrize(("amount", "refunded", "status"), [
    (None, CLOUD.price.amount, "refunded"), (Money(500, "EUR"), 500, "partially_refunded"),
])  # fmt: skip
def test_payment_is_refunded_once_however_often_it_is_asked(
    vendor: Vendor, amount: Money | None, refunded: int, status: str
) -> None:
    id = vendor.order("refund", amount=amount)
    assert vendor.perform(id).state == "done"
    with vendor.pipeline.database.transaction() as session:  # the process was killed before it stored the outcome
        row = session.get(Action, id)
        assert row
        row.state, row.due_at = "requested", vendor.pipeline.now
    assert vendor.perform(id).state == "done"
    vendor.read()
    [refund] = vendor.pipeline.rows(Refund)
    assert refund.amount == refunded
    [payment] = vendor.pipeline.rows(Payment)
    assert (payment.refunded, payment.status) == (refunded, status)


@pytest.mark.parametrize("verb", ["cancel", "suspend"])
def test_call_that_was_killed_after_paypal_did_it_is_done(vendor: Vendor, verb: Kind) -> None:
    id = vendor.order(verb)
    vendor.perform(id)
    with vendor.pipeline.database.transaction() as session:
        row = session.get(Action, id)
        assert row
        row.state, row.due_at = "requested", vendor.pipeline.now
    calls = vendor.asked(f"/{verb}")
    assert vendor.perform(id).state == "done"
    assert vendor.asked(f"/{verb}") == calls


def test_killed_process_is_continued_by_the_scheduler(vendor: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    id = vendor.order("suspend")

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setitem(performing.CALLS, "suspend", die)
        with pytest.raises(KeyboardInterrupt):
            vendor.perform(id)
    assert vendor.action(id).state == "requested"
    assert perform_due(vendor.pipeline.database, vendor.pipeline.clock, vendor.api) == 0  # leased
    vendor.pipeline.clock.advance(performing.LEASE)
    assert perform_due(vendor.pipeline.database, vendor.pipeline.clock, vendor.api) == 1
    assert vendor.action(id).state == "done"


def test_paypal_is_asked_again_for_a_day_and_then_a_person_decides(vendor: Vendor) -> None:
    id = vendor.order("suspend")
    vendor.fake.misbehave("500", times=1000)
    assert vendor.perform(id).state == "requested"
    began = vendor.pipeline.now
    while (row := vendor.action(id)).due_at:
        vendor.pipeline.clock.move_to(row.due_at)
        perform_due(vendor.pipeline.database, vendor.pipeline.clock, vendor.api)
    assert row.state == "failed"
    assert row.outcome
    assert row.outcome.startswith("given up after a day")
    assert vendor.pipeline.now - began <= GIVE_UP_AFTER + timedelta(hours=4)


def test_refusal_names_paypals_reason(vendor: Vendor) -> None:
    id = vendor.order("revise", plan="P-0000UNKNOWN00000000")
    outcome = vendor.perform(id)
    assert outcome.state == "refused"
    assert vendor.status() == "ACTIVE"
    assert vendor.pipeline.rows(Event)


def test_revision_names_the_page_where_the_buyer_agrees(vendor: Vendor) -> None:
    other = next(each for each in PLANS.values() if each.currency == CLOUD.currency and each.id != CLOUD.id)
    id = vendor.order("revise", plan=other.id)
    outcome = vendor.perform(id)
    assert outcome.state == "done", outcome
    assert "the buyer must agree at http" in outcome.text


@pytest.mark.parametrize(("kind", "more", "error"), [
    ("activate", {}, "is ACTIVE; activate is possible if it is SUSPENDED"),
    ("capture", {}, "has no open balance"),
    ("revise", {}, "name a new plan"),
    ("refund", {"amount": Money(10**6, "EUR")}, "name an amount up to it"),
    ("refund", {"amount": Money(100, "USD")}, "name an amount up to it"),
    ("cancel", {"reason": " "}, "a reason is needed"),
])  # fmt: skip
def test_impossible_order_is_not_stored(vendor: Vendor, kind: Kind, more: dict[str, Any], error: str) -> None:
    with pytest.raises((UsageError, OperatorError), match=error):
        vendor.order(kind, **more)
    assert vendor.pipeline.rows(Action) == []


def test_description_says_what_will_happen(vendor: Vendor) -> None:
    with vendor.pipeline.database.reading() as session:
        cancel = describe(session, Order("cancel", vendor.subscription, "x", "root"))
        refund = describe(session, Order("refund", vendor.payment, "x", "root", Money(500, "EUR")))
    assert cancel == (
        f"Subscription {vendor.subscription} ends at PayPal now and cannot be re-activated; access remains until 2026-04-01."
    )
    assert refund == f"PayPal pays €5.00 of payment {vendor.payment} back to the buyer. This cannot be undone."
