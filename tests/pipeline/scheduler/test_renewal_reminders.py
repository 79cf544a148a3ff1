"""Renewal reminders are queued once, in time, after a look-up; a failed one does not block the others."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from random import Random
from typing import Any

import pytest
from sqlalchemy.orm import Session
from structlog.testing import capture_logs

from handlers import HANDLERS
from pipeline.customers import accounts
from pipeline.db.models import Mail, PaypalLookup, Subscription
from pipeline.db.models import Plan as PlanRow
from pipeline.inbox import lookup_fetcher
from pipeline.inbox.parsing import event_from_lookup
from pipeline.scheduler.renewal_reminders import RETRY_DELAY
from pipeline.simulator import shapes
from pipeline.simulator.people import PEOPLE, SILENT, SimulatedCustomer
from pipeline.simulator.plans import CLOUD, LICENCE, Plan
from pipeline.simulator.subscription import SimulatedSubscription
from tests.support.outbox_fixtures import scheduler
from tests.support.pipeline_under_test import River, delivery

ADA = PEOPLE[0]
DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)


def begin(
    river: River, plan: Plan, person: SimulatedCustomer = ADA, *, with_plan: bool = True, seed: int = 7
) -> SimulatedSubscription:
    """Return a subscription that has just started, after its events are handled."""
    subscription = SimulatedSubscription(person, plan, river.now - timedelta(minutes=30), Random(seed))
    subscription.start()
    deliveries = [delivery(each.body) for each in subscription.deliveries]
    if with_plan:
        deliveries.append(delivery(event_from_lookup("plan", shapes.plan(plan), river.now), source="read"))
    stored = river.store(*deliveries)
    river.worker(HANDLERS).handle([item.event_id for item in stored])
    return subscription


def handle_deliveries(river: River, subscription: SimulatedSubscription, after: int) -> None:
    """Store and handle the later deliveries of the subscription, from index `after` on."""
    stored = river.store(*[delivery(each.body) for each in subscription.deliveries[after:]])
    river.worker(HANDLERS).handle([item.event_id for item in stored])


def reminders(river: River) -> list[Mail]:
    return [row for row in river.rows(Mail) if row.kind == "renewal_reminder"]


def due(subscription: SimulatedSubscription) -> datetime:
    assert subscription.next_billing
    return subscription.next_billing


@pytest.mark.parametrize(("plan", "days"), [(LICENCE, 30), (CLOUD, 3)], ids=["yearly", "monthly"])
def test_reminder_is_queued_once_before_the_renewal(river: River, plan: Plan, days: int) -> None:
    subscription, jobs = begin(river, plan), scheduler(river)
    river.clock.move_to(due(subscription) - timedelta(days=days) - timedelta(seconds=1))
    assert jobs.remind() == 0
    river.clock.advance(timedelta(seconds=1))
    assert jobs.remind() == 1
    [mail] = reminders(river)
    assert (mail.state, mail.due_at) == ("queued", river.now)
    for _ in range(5):
        river.clock.advance(HOUR)
        assert jobs.remind() == 0
    with river.database.transaction() as session:
        facts = river.keyring(session).system_key(subscription.id).decrypt_json("mail.facts", mail.facts)
    assert facts["renews_at"] == f"{due(subscription):%Y-%m-%dT%H:%M:%SZ}"
    assert facts["amount"] == {"amount": plan.price.amount, "currency": plan.price.currency}
    assert (facts["plan"], facts["days"]) == (plan.name, days)


def test_reminder_key_format_is_stable(river: River) -> None:
    """With another key format, customers would get a second reminder after an upgrade."""
    subscription = begin(river, CLOUD)
    river.clock.move_to(due(subscription) - timedelta(days=3))
    scheduler(river).remind()
    assert [row.idempotency_key for row in reminders(river)] == [
        f"renewal:{subscription.id}:{due(subscription):%Y-%m-%dT%H:%M:%SZ}:3"
    ]


def test_unknown_plan_counts_as_monthly(river: River) -> None:
    subscription = begin(river, LICENCE, with_plan=False)
    assert [row.interval_unit for row in river.rows(PlanRow)] in ([], [None])
    river.clock.move_to(due(subscription) - timedelta(days=3))
    assert scheduler(river).remind() == 1


def test_later_event_queues_no_second_reminder(river: River) -> None:
    subscription, jobs = begin(river, CLOUD), scheduler(river)
    river.clock.move_to(due(subscription) - timedelta(days=3))
    jobs.remind()
    handled = len(subscription.deliveries)
    subscription.revise(river.now, quantity=2)
    handle_deliveries(river, subscription, handled)
    jobs.remind()
    assert len(reminders(river)) == 1


def test_next_renewal_gets_its_own_reminder(river: River) -> None:
    subscription, jobs = begin(river, CLOUD), scheduler(river)
    river.clock.move_to(due(subscription) - timedelta(days=3))
    jobs.remind()
    river.clock.move_to(due(subscription))
    handled = len(subscription.deliveries)
    subscription.renew()
    subscription.revise(
        subscription.now + HOUR, quantity=1
    )  # a renewal sends no subscription event; this one reports the next date
    river.clock.move_to(subscription.now)
    handle_deliveries(river, subscription, handled)
    river.clock.move_to(due(subscription) - timedelta(days=3))
    jobs.remind()
    assert len(reminders(river)) == 2


@pytest.mark.parametrize("end", ["cancel", "suspend"])
def test_ended_subscription_gets_no_reminder(river: River, end: str) -> None:
    subscription, jobs = begin(river, CLOUD), scheduler(river)
    renewal, handled = due(subscription), len(subscription.deliveries)
    {"cancel": subscription.cancel, "suspend": subscription.suspend}[end](river.now + MINUTE)
    handle_deliveries(river, subscription, handled)
    river.clock.move_to(renewal - timedelta(days=2))
    assert jobs.remind() == 0
    assert reminders(river) == []


def test_past_renewal_gets_no_reminder(river: River) -> None:
    subscription, jobs = begin(river, CLOUD), scheduler(river)
    river.clock.move_to(due(subscription) + MINUTE)
    jobs.remind()
    assert reminders(river) == []
    assert jobs.remind() == 0, "the subscription is not examined again"


def test_reminder_without_address_waits(river: River) -> None:
    subscription = begin(river, CLOUD, SILENT)
    river.clock.move_to(due(subscription) - timedelta(days=3))
    scheduler(river).remind()
    assert [(row.state, row.due_at) for row in reminders(river)] == [("queued", None)]


def test_failed_reminder_does_not_block_others_and_is_retried(river: River) -> None:
    broken, healthy = begin(river, CLOUD), begin(river, CLOUD, PEOPLE[1], seed=8)
    for row in river.rows(Subscription):
        if row.id == broken.id:
            river.set(row, personal_data=b"damaged")
    river.clock.move_to(max(due(broken), due(healthy)) - timedelta(days=3))
    jobs = scheduler(river)
    with capture_logs() as logs:
        jobs.remind()
    assert [row.subscription_id for row in reminders(river)] == [healthy.id]
    assert [line["subscription_id"] for line in logs if line["event"] == "reminder_failed"] == [broken.id]
    assert jobs.remind() == 0
    river.clock.advance(RETRY_DELAY)
    assert jobs.remind() == 1


def test_address_entered_while_a_reminder_is_queued_is_used(stream: River, monkeypatch: pytest.MonkeyPatch) -> None:
    subscription, has_address = begin(stream, CLOUD, SILENT), accounts.has_address
    stream.clock.move_to(due(subscription) - timedelta(days=3))
    threads: list[threading.Thread] = []

    def enter_address(customer_id: str) -> None:
        with stream.database.transaction() as session:
            accounts.correct_field(
                session, stream.keyring(session), customer_id, "email", "ada@example.com", stream.now
            )

    def has_address_then_enter(session: Session, customer_id: str) -> bool:
        found = has_address(session, customer_id)
        threads.append(threading.Thread(target=enter_address, args=(customer_id,)))
        threads[0].start()
        threads[0].join(0.5)  # long enough if no lock blocks it
        return found

    monkeypatch.setattr(accounts, "has_address", has_address_then_enter)
    scheduler(stream).remind()
    threads[0].join(30)
    assert [row.due_at for row in reminders(stream)] == [stream.now]


def test_two_schedulers_queue_one_reminder(river: River) -> None:
    subscription = begin(river, CLOUD)
    river.clock.move_to(due(subscription) - timedelta(days=3))
    barrier = threading.Barrier(2, timeout=30)

    def remind(_: int) -> None:
        barrier.wait()
        scheduler(river).remind()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(remind, range(2)))
    assert len(reminders(river)) == 1


# Reminders after a look-up


class FakePaypal:
    """PayPal's API with one subscription."""

    def __init__(self, snapshot: dict[str, Any]) -> None:
        self.snapshot = snapshot

    def get(self, kind: str, id: str) -> dict[str, Any]:
        return self.snapshot


def answer(river: River, subscription: SimulatedSubscription) -> None:
    """Make the pending look-ups and handle the answers."""
    ids = lookup_fetcher.fetch_due(river.database, river.master, river.clock, FakePaypal(subscription.snapshot()))
    river.worker(HANDLERS, may_read=True).handle(ids)


@pytest.fixture
def months_later(river: River) -> Callable[[], SimulatedSubscription]:
    """Return a function that starts a monthly subscription and moves the clock to three days before its renewal."""

    def make() -> SimulatedSubscription:
        subscription = begin(river, CLOUD)
        river.clock.move_to(due(subscription) - timedelta(days=3))
        return subscription

    return make


def test_old_date_is_looked_up_before_a_reminder(
    river: River, months_later: Callable[[], SimulatedSubscription]
) -> None:
    subscription, jobs = months_later(), scheduler(river, may_read=True)
    assert jobs.remind() == 1
    assert reminders(river) == []
    assert [(row.kind, row.id) for row in river.rows(PaypalLookup)] == [("subscription", subscription.id)]
    answer(river, subscription)
    jobs.remind()
    assert len(reminders(river)) == 1


def test_reminder_follows_a_changed_date(river: River, months_later: Callable[[], SimulatedSubscription]) -> None:
    subscription, jobs = months_later(), scheduler(river, may_read=True)
    jobs.remind()
    subscription.anchor, subscription.updated = subscription.anchor + timedelta(days=5), river.now
    answer(river, subscription)
    jobs.remind()
    assert reminders(river) == []
    river.clock.advance(timedelta(days=5))
    jobs.remind()
    answer(river, subscription)  # the same answer as before
    river.clock.advance(timedelta(minutes=10))
    jobs.remind()
    assert len(reminders(river)) == 1


def test_look_up_that_finds_a_cancellation_stops_the_reminder(
    river: River, months_later: Callable[[], SimulatedSubscription]
) -> None:
    subscription, jobs = months_later(), scheduler(river, may_read=True)
    jobs.remind()
    subscription.cancel(river.now)
    answer(river, subscription)
    river.clock.advance(HOUR)
    jobs.remind()
    assert reminders(river) == []


def test_reminder_waits_ten_minutes_for_the_look_up(
    river: River, months_later: Callable[[], SimulatedSubscription]
) -> None:
    months_later()
    jobs = scheduler(river, may_read=True)
    jobs.remind()
    river.clock.advance(timedelta(minutes=9))
    assert jobs.remind() == 0
    river.clock.advance(timedelta(minutes=1))
    jobs.remind()
    assert len(reminders(river)) == 1


def test_fresh_date_is_not_looked_up(river: River) -> None:
    subscription = begin(river, CLOUD)
    handled = len(subscription.deliveries)
    river.clock.move_to(due(subscription) - timedelta(days=3))
    subscription.revise(river.now - HOUR, quantity=2)
    handle_deliveries(river, subscription, handled)
    scheduler(river, may_read=True).remind()
    assert river.count(PaypalLookup) == 0
    assert len(reminders(river)) == 1


def test_reminder_does_not_change_the_subscription(river: River) -> None:
    """A reminder changes neither the status nor the dates."""
    subscription = begin(river, CLOUD)
    before = river.rows(Subscription)[0]
    river.clock.move_to(due(subscription) - timedelta(days=3))
    scheduler(river).remind()
    after = river.rows(Subscription)[0]
    assert (before.status, before.paid_through, before.next_billing_at) == (
        after.status, after.paid_through, after.next_billing_at,
    )  # fmt: skip
