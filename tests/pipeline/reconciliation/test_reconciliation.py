"""What PayPal knows and we missed is found: webhook events, changed subscriptions, and money to the cent."""

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import orjson
import pytest

from handlers import HANDLERS
from pipeline.db.models import (
    Event,
    Payment,
    PaypalLookup,
    ReconciliationException,
    ReconciliationPosition,
    Refund,
    Subscription,
)
from pipeline.inbox import lookup_fetcher
from pipeline.inbox import store as inbox
from pipeline.paypal import listings
from pipeline.paypal.api import PaypalApi
from pipeline.paypal.errors import PaypalRejectedError, PaypalUnavailableError
from pipeline.reconciliation import exceptions
from pipeline.reconciliation.run import Reconciliation, ReconciliationResult
from pipeline.simulator import scenarios
from pipeline.simulator.people import PEOPLE
from pipeline.simulator.plans import CLOUD
from pipeline.simulator.server.api import FakePaypalApi
from pipeline.simulator.timeline import Delivery
from pipeline.simulator.world import PaypalState
from tests.support.pipeline_under_test import PipelineUnderTest, delivery

START = datetime(2026, 3, 1, 9, tzinfo=UTC)
DAY = timedelta(days=1)


class Vendor:
    """A vendor whose webhooks may get lost. PayPal's API is the simulator's, over HTTP."""

    def __init__(self, pipeline: PipelineUnderTest, stack: ExitStack) -> None:
        self.pipeline, self.world = pipeline, PaypalState()
        self.fake = FakePaypalApi(self.world, clock=pipeline.clock)
        self.api = PaypalApi(stack.enter_context(self.fake.serve()), "simulator", "simulator-secret")
        stack.callback(self.api.close)
        self.worker = pipeline.worker(HANDLERS, may_read=True)
        self.reconciliation = Reconciliation(pipeline.database, pipeline.master, pipeline.clock, self.api)

    def receive(self, *events: Delivery, lost: bool = False) -> None:
        """Let these events happen at PayPal. Their webhooks arrive unless they are lost."""
        for each in events:
            self.pipeline.clock.move_to(max(self.pipeline.now, each.at))
            self.world.apply(each)
            if not lost:
                self.worker.handle([item.event_id for item in self.pipeline.store(delivery(each.body)) if item.publish])

    def receive_only(self, event: Delivery) -> None:
        """Let the webhook of an event arrive, and leave PayPal's objects as they are."""
        self.pipeline.clock.move_to(max(self.pipeline.now, event.at))
        self.worker.handle([item.event_id for item in self.pipeline.store(delivery(event.body)) if item.publish])

    def reconcile(self) -> ReconciliationResult:
        """Reconcile, handle what was found, and make the look-ups."""
        result = self.reconciliation.run()
        self.work()
        return result

    def work(self) -> None:
        pipeline = self.pipeline
        for _ in range(8):
            pipeline.clock.advance(timedelta(seconds=10))
            with pipeline.database.transaction() as session:
                due = inbox.lease_due(session, pipeline.now, 500)
            self.worker.handle(due)
            self.worker.handle(lookup_fetcher.fetch_due(pipeline.database, pipeline.master, pipeline.clock, self.api))

    def open(self) -> list[ReconciliationException]:
        return [row for row in self.pipeline.rows(ReconciliationException) if row.resolved_at is None]


@pytest.fixture
def vendor(sqlite_pipeline: PipelineUnderTest) -> Iterator[Vendor]:
    sqlite_pipeline.clock.move_to(START)
    with ExitStack() as stack:
        yield Vendor(sqlite_pipeline, stack)


def first_sale() -> list[Delivery]:
    """Return the events of a new subscription: created, activated, paid."""
    events = scenarios.first_year(PEOPLE[0], CLOUD, START, Random(1))
    return [each for each in events if each.at < START + DAY]


def test_lost_events_are_imported_and_handled(vendor: Vendor) -> None:
    events = first_sale()
    vendor.receive(*events, lost=True)
    vendor.pipeline.clock.advance(timedelta(hours=1))
    result = vendor.reconcile()
    assert (result.events_listed, result.events_imported) == (len(events), len(events))
    assert {row.state for row in vendor.pipeline.rows(Event) if row.source == "import"} == {"handled"}
    [row] = vendor.pipeline.rows(Subscription)
    assert row.status == "ACTIVE"
    assert [row.status for row in vendor.pipeline.rows(Payment)] == ["completed"]
    assert vendor.reconcile().events_imported == 0


def test_event_that_arrived_is_no_conflict_in_the_list(vendor: Vendor) -> None:
    vendor.receive(*first_sale())
    vendor.pipeline.clock.advance(timedelta(hours=1))
    result = vendor.reconcile()
    assert (result.events_listed > 0, result.events_imported) == (True, 0)
    assert {row.state for row in vendor.pipeline.rows(Event)} == {"handled"}


def test_status_that_changed_unnoticed_is_looked_up(vendor: Vendor) -> None:
    """The list of events does not contain it: no webhook subscribed to the type then."""
    events = scenarios.cancel(PEOPLE[0], CLOUD, START, Random(1))
    last = next(each for each in reversed(events) if each.type.startswith("BILLING.SUBSCRIPTION"))
    vendor.receive(*[each for each in events if each is not last and each.at <= last.at])
    vendor.receive(last, lost=True)
    vendor.world.forget_events()
    vendor.pipeline.clock.advance(timedelta(hours=1))
    result = vendor.reconcile()
    assert result.subscriptions_listed >= 1
    [row] = vendor.pipeline.rows(Subscription)
    assert row.status == last.event["resource"]["status"]


def test_lost_payment_and_refund_are_found_by_the_report(vendor: Vendor) -> None:
    events = scenarios.refund(PEOPLE[0], CLOUD, START, Random(1))
    lost = [each for each in events if each.type in ("PAYMENT.SALE.COMPLETED", "PAYMENT.SALE.REFUNDED")]
    vendor.receive(*[each for each in events if each not in lost])
    vendor.receive(*lost, lost=True)
    vendor.world.forget_events()  # older than PayPal's list of events
    vendor.pipeline.clock.move_to(max(each.at for each in events) + DAY)
    result = vendor.reconciliation.run(START)
    vendor.work()
    assert result.differences_new == len({each.event["resource"]["id"] for each in lost})
    assert vendor.pipeline.count(Payment) == len([each for each in lost if "COMPLETED" in each.type])
    assert vendor.pipeline.count(Refund) == len([each for each in lost if "REFUNDED" in each.type])
    vendor.pipeline.clock.advance(timedelta(hours=2))
    assert vendor.reconciliation.run(START).differences_resolved == result.differences_new
    assert vendor.open() == []


def test_difference_of_a_cent_stays_open_until_it_is_gone_or_ignored(vendor: Vendor) -> None:
    vendor.receive(*first_sale())
    [payment] = vendor.pipeline.rows(Payment)
    vendor.pipeline.clock.advance(DAY)
    with vendor.pipeline.database.transaction() as session:
        row = session.get(Payment, payment.id)
        assert row
        assert row.amount
        row.amount -= 1
    assert vendor.reconciliation.run().differences_new == 1
    vendor.pipeline.clock.advance(timedelta(hours=2))
    assert vendor.reconciliation.run().open == 1
    [found] = vendor.open()
    assert (found.kind, found.id) == ("sale", payment.id)
    assert "is stored" in found.reason
    with vendor.pipeline.database.transaction() as session:
        assert exceptions.ignore(session, payment.id, "the vendor's decision", vendor.pipeline.now) == 1
    vendor.pipeline.clock.advance(timedelta(hours=2))
    assert vendor.reconciliation.run().open == 0


def test_run_continues_where_it_was_stopped(vendor: Vendor) -> None:
    events = first_sale()
    vendor.receive(*events, lost=True)
    vendor.pipeline.clock.advance(5 * DAY)
    vendor.fake.misbehave("500", times=1000, path="/v1/reporting/transactions")
    with pytest.raises(PaypalUnavailableError):
        vendor.reconciliation.run()
    positions = {row.source for row in vendor.pipeline.rows(ReconciliationPosition)}
    assert positions == {"events", "subscriptions"}
    assert vendor.pipeline.count(Event) == len(events)


def test_list_that_the_account_does_not_offer_is_named(vendor: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then each live subscription whose charge is overdue is looked up instead."""
    vendor.receive(*first_sale())
    [row] = vendor.pipeline.rows(Subscription)
    assert row.next_billing_at
    vendor.pipeline.clock.move_to(row.next_billing_at + 2 * DAY)
    execute = vendor.api.execute

    def refuse(request: Any) -> dict[str, Any]:
        if request.path.startswith(f"{listings.SUBSCRIPTIONS}?"):
            raise PaypalRejectedError(403, "NOT_AUTHORIZED", "abc")
        return execute(request)

    monkeypatch.setattr(vendor.api, "execute", refuse)
    result = vendor.reconciliation.run()
    assert "subscriptions" in result.not_offered
    assert result.subscriptions_looked_up == 1
    assert ("subscription", row.id) in {(each.kind, each.id) for each in vendor.pipeline.rows(PaypalLookup)}


def test_payment_that_paypal_does_not_list_is_looked_up_and_does_not_stand(vendor: Vendor) -> None:
    """Its time is before the last payment, so no answer about the subscription contradicts it."""
    vendor.receive(*first_sale())
    [genuine] = vendor.pipeline.rows(Payment)
    bodies = [orjson.loads(each.body) for each in first_sale()]
    sale = next(body for body in bodies if body["event_type"] == "PAYMENT.SALE.COMPLETED")
    times = dict.fromkeys(("create_time", "update_time"), (START - timedelta(hours=1)).isoformat())
    forged = {**sale, "id": "WH-FORGED", "resource": {**sale["resource"], "id": "9FORGED1111111111", **times}}
    vendor.worker.handle([item.event_id for item in vendor.pipeline.store(delivery(forged)) if item.publish])
    vendor.pipeline.clock.advance(DAY)
    assert vendor.reconcile().payments_looked_up == 1
    for _ in range(8):
        vendor.pipeline.clock.advance(DAY / 4)
        vendor.work()
    statuses = {row.id: row.status for row in vendor.pipeline.rows(Payment)}
    assert statuses == {genuine.id: "completed", "9FORGED1111111111": "unconfirmed"}
    assert vendor.reconcile().payments_looked_up == 0
