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
from pipeline.simulator.dispute import SimulatedDispute
from pipeline.simulator.people import PEOPLE, SILENT, SimulatedCustomer
from pipeline.simulator.plans import CLOUD, CLOUD_TRIAL, LICENCE, Plan
from pipeline.simulator.sale import Sale
from pipeline.simulator.subscription import SimulatedSubscription
from pipeline.simulator.timeline import Json
from tests.support.outbox_fixtures import TEMPLATES, scheduler
from tests.support.pipeline_under_test import PipelineUnderTest, delivery

ADA = PEOPLE[0]
DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)


def begin(
    pipeline: PipelineUnderTest,
    plan: Plan,
    person: SimulatedCustomer = ADA,
    *,
    with_plan: bool = True,
    seed: int = 7,
    lagging: bool = False,
    may_read: bool = False,
) -> SimulatedSubscription:
    """Return a subscription that has just started, after its events are handled. For `lagging` see its `start`."""
    subscription = SimulatedSubscription(person, plan, pipeline.now - timedelta(minutes=30), Random(seed))
    subscription.start(lagging=lagging)
    deliveries = [delivery(each.body) for each in subscription.deliveries]
    if with_plan:
        deliveries.append(delivery(event_from_lookup("plan", shapes.plan(plan), pipeline.now), source="read"))
    stored = pipeline.store(*deliveries)
    pipeline.worker(HANDLERS, may_read=may_read).handle([item.event_id for item in stored])
    return subscription


def handle_deliveries(pipeline: PipelineUnderTest, subscription: SimulatedSubscription, after: int) -> None:
    """Store and handle the later deliveries of the subscription, from index `after` on."""
    stored = pipeline.store(*[delivery(each.body) for each in subscription.deliveries[after:]])
    pipeline.worker(HANDLERS).handle([item.event_id for item in stored])


def reminders(pipeline: PipelineUnderTest) -> list[Mail]:
    return [row for row in pipeline.rows(Mail) if row.kind == "renewal_reminder"]


def due(subscription: SimulatedSubscription) -> datetime:
    assert subscription.next_billing
    return subscription.next_billing


@pytest.mark.parametrize(("plan", "days"), [(LICENCE, 30), (CLOUD, 3)], ids=["yearly", "monthly"])
def test_reminder_is_queued_once_before_the_renewal(pipeline: PipelineUnderTest, plan: Plan, days: int) -> None:
    subscription, jobs = begin(pipeline, plan), scheduler(pipeline)
    pipeline.clock.move_to(due(subscription) - timedelta(days=days) - timedelta(seconds=1))
    assert jobs.remind() == 0
    pipeline.clock.advance(timedelta(seconds=1))
    assert jobs.remind() == 1
    [mail] = reminders(pipeline)
    assert (mail.state, mail.due_at) == ("queued", pipeline.now)
    for _ in range(5):
        pipeline.clock.advance(HOUR)
        assert jobs.remind() == 0
    with pipeline.database.transaction() as session:
        facts = pipeline.keyring(session).system_key(subscription.id).decrypt_json("mail.facts", mail.facts)
    assert facts["renews_at"] == f"{due(subscription):%Y-%m-%dT%H:%M:%SZ}"
    assert facts["amount"] == {"amount": plan.price.amount, "currency": plan.price.currency}
    assert (facts["plan"], facts["days"]) == (plan.name, days)


def test_reminder_key_format_is_stable(pipeline: PipelineUnderTest) -> None:
    """With another key format, customers would get a second reminder after an upgrade."""
    subscription = begin(pipeline, CLOUD)
    pipeline.clock.move_to(due(subscription) - timedelta(days=3))
    scheduler(pipeline).remind()
    assert [row.idempotency_key for row in reminders(pipeline)] == [
        f"renewal:{subscription.id}:{due(subscription):%Y-%m-%dT%H:%M:%SZ}:3"
    ]


def test_unknown_plan_counts_as_monthly(pipeline: PipelineUnderTest) -> None:
    subscription = begin(pipeline, LICENCE, with_plan=False)
    assert [row.interval_unit for row in pipeline.rows(PlanRow)] in ([], [None])
    pipeline.clock.move_to(due(subscription) - timedelta(days=3))
    assert scheduler(pipeline).remind() == 1


def test_later_event_queues_no_second_reminder(pipeline: PipelineUnderTest) -> None:
    subscription, jobs = begin(pipeline, CLOUD), scheduler(pipeline)
    pipeline.clock.move_to(due(subscription) - timedelta(days=3))
    jobs.remind()
    handled = len(subscription.deliveries)
    subscription.revise(pipeline.now, quantity=2)
    handle_deliveries(pipeline, subscription, handled)
    jobs.remind()
    assert len(reminders(pipeline)) == 1


def test_next_renewal_gets_its_own_reminder(pipeline: PipelineUnderTest) -> None:
    subscription, jobs = begin(pipeline, CLOUD), scheduler(pipeline)
    pipeline.clock.move_to(due(subscription) - timedelta(days=3))
    jobs.remind()
    pipeline.clock.move_to(due(subscription))
    handled = len(subscription.deliveries)
    subscription.renew()
    subscription.revise(
        subscription.now + HOUR, quantity=1
    )  # a renewal sends no subscription event; this one reports the next date
    pipeline.clock.move_to(subscription.now)
    handle_deliveries(pipeline, subscription, handled)
    pipeline.clock.move_to(due(subscription) - timedelta(days=3))
    jobs.remind()
    assert len(reminders(pipeline)) == 2


@pytest.mark.parametrize("end", ["cancel", "suspend"])
def test_ended_subscription_gets_no_reminder(pipeline: PipelineUnderTest, end: str) -> None:
    subscription, jobs = begin(pipeline, CLOUD), scheduler(pipeline)
    renewal, handled = due(subscription), len(subscription.deliveries)
    {"cancel": subscription.cancel, "suspend": subscription.suspend}[end](pipeline.now + MINUTE)
    handle_deliveries(pipeline, subscription, handled)
    pipeline.clock.move_to(renewal - timedelta(days=2))
    assert jobs.remind() == 0
    assert reminders(pipeline) == []


def test_reminder_waits_while_a_payment_is_disputed(pipeline: PipelineUnderTest) -> None:
    subscription, jobs = begin(pipeline, LICENCE), scheduler(pipeline)
    pipeline.clock.move_to(due(subscription) - 29 * DAY)
    [sale], before = subscription.sales.values(), len(subscription.deliveries)
    dispute = SimulatedDispute(subscription, sale, pipeline.now)
    handle_deliveries(pipeline, subscription, before)
    jobs.remind()
    assert reminders(pipeline) == []
    before = len(subscription.deliveries)
    dispute.resolve("RESOLVED_SELLER_FAVOUR", pipeline.now + HOUR)
    handle_deliveries(pipeline, subscription, before)
    pipeline.clock.advance(DAY)
    jobs.remind()
    assert len(reminders(pipeline)) == 1


def test_past_renewal_gets_no_reminder(pipeline: PipelineUnderTest) -> None:
    subscription, jobs = begin(pipeline, CLOUD), scheduler(pipeline)
    pipeline.clock.move_to(due(subscription) + MINUTE)
    jobs.remind()
    assert reminders(pipeline) == []
    assert jobs.remind() == 0, "the subscription is not examined again"


def test_reminder_without_address_waits(pipeline: PipelineUnderTest) -> None:
    subscription = begin(pipeline, CLOUD, SILENT)
    pipeline.clock.move_to(due(subscription) - timedelta(days=3))
    scheduler(pipeline).remind()
    assert [(row.state, row.due_at) for row in reminders(pipeline)] == [("queued", None)]


def test_failed_reminder_does_not_block_others_and_is_retried(pipeline: PipelineUnderTest) -> None:
    broken, healthy = begin(pipeline, CLOUD), begin(pipeline, CLOUD, PEOPLE[1], seed=8)
    for row in pipeline.rows(Subscription):
        if row.id == broken.id:
            pipeline.set(row, personal_data=b"damaged")
    pipeline.clock.move_to(max(due(broken), due(healthy)) - timedelta(days=3))
    jobs = scheduler(pipeline)
    with capture_logs() as logs:
        jobs.remind()
    assert [row.subscription_id for row in reminders(pipeline)] == [healthy.id]
    assert [line["subscription_id"] for line in logs if line["event"] == "reminder_failed"] == [broken.id]
    assert jobs.remind() == 0
    pipeline.clock.advance(RETRY_DELAY)
    assert jobs.remind() == 1


def test_address_entered_while_a_reminder_is_queued_is_used(
    postgresql_pipeline: PipelineUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscription, has_address = begin(postgresql_pipeline, CLOUD, SILENT), accounts.has_address
    postgresql_pipeline.clock.move_to(due(subscription) - timedelta(days=3))
    threads: list[threading.Thread] = []

    def enter_address(customer_id: str) -> None:
        with postgresql_pipeline.database.transaction() as session:
            accounts.correct_field(
                session,
                postgresql_pipeline.keyring(session),
                customer_id,
                "email",
                "ada@example.com",
                postgresql_pipeline.now,
            )

    def has_address_then_enter(session: Session, customer_id: str) -> bool:
        found = has_address(session, customer_id)
        threads.append(threading.Thread(target=enter_address, args=(customer_id,)))
        threads[0].start()
        threads[0].join(0.5)  # long enough if no lock blocks it
        return found

    monkeypatch.setattr(accounts, "has_address", has_address_then_enter)
    scheduler(postgresql_pipeline).remind()
    threads[0].join(30)
    assert [row.due_at for row in reminders(postgresql_pipeline)] == [postgresql_pipeline.now]


def test_two_schedulers_queue_one_reminder(pipeline: PipelineUnderTest) -> None:
    subscription = begin(pipeline, CLOUD)
    pipeline.clock.move_to(due(subscription) - timedelta(days=3))
    barrier = threading.Barrier(2, timeout=30)

    def remind(_: int) -> None:
        barrier.wait()
        scheduler(pipeline).remind()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(remind, range(2)))
    assert len(reminders(pipeline)) == 1


# Reminders after a look-up


class FakePaypal:
    """PayPal's API with one subscription."""

    def __init__(self, snapshot: dict[str, Any]) -> None:
        self.snapshot = snapshot

    def get(self, kind: str, id: str) -> dict[str, Any]:
        return self.snapshot


def answer(pipeline: PipelineUnderTest, subscription: SimulatedSubscription) -> None:
    """Make the pending look-ups and handle the answers."""
    ids = lookup_fetcher.fetch_due(
        pipeline.database, pipeline.master, pipeline.clock, FakePaypal(subscription.snapshot())
    )
    pipeline.worker(HANDLERS, may_read=True).handle(ids)


@pytest.fixture
def months_later(pipeline: PipelineUnderTest) -> Callable[[], SimulatedSubscription]:
    """Return a function that starts a monthly subscription and moves the clock to three days before its renewal."""

    def make() -> SimulatedSubscription:
        subscription = begin(pipeline, CLOUD)
        pipeline.clock.move_to(due(subscription) - timedelta(days=3))
        return subscription

    return make


def test_old_date_is_looked_up_before_a_reminder(
    pipeline: PipelineUnderTest, months_later: Callable[[], SimulatedSubscription]
) -> None:
    subscription, jobs = months_later(), scheduler(pipeline, may_read=True)
    assert jobs.remind() == 1
    assert reminders(pipeline) == []
    assert [(row.kind, row.id) for row in pipeline.rows(PaypalLookup)] == [("subscription", subscription.id)]
    answer(pipeline, subscription)
    jobs.remind()
    assert len(reminders(pipeline)) == 1


def test_reminder_follows_a_changed_date(
    pipeline: PipelineUnderTest, months_later: Callable[[], SimulatedSubscription]
) -> None:
    subscription, jobs = months_later(), scheduler(pipeline, may_read=True)
    jobs.remind()
    subscription.anchor, subscription.updated = subscription.anchor + timedelta(days=5), pipeline.now
    answer(pipeline, subscription)
    jobs.remind()
    assert reminders(pipeline) == []
    pipeline.clock.advance(timedelta(days=5))
    jobs.remind()
    answer(pipeline, subscription)  # the same answer as before
    pipeline.clock.advance(timedelta(minutes=10))
    jobs.remind()
    assert len(reminders(pipeline)) == 1


def test_look_up_that_finds_a_cancellation_stops_the_reminder(
    pipeline: PipelineUnderTest, months_later: Callable[[], SimulatedSubscription]
) -> None:
    subscription, jobs = months_later(), scheduler(pipeline, may_read=True)
    jobs.remind()
    subscription.cancel(pipeline.now)
    answer(pipeline, subscription)
    pipeline.clock.advance(HOUR)
    jobs.remind()
    assert reminders(pipeline) == []


def test_reminder_waits_ten_minutes_for_the_look_up(
    pipeline: PipelineUnderTest, months_later: Callable[[], SimulatedSubscription]
) -> None:
    months_later()
    jobs = scheduler(pipeline, may_read=True)
    jobs.remind()
    pipeline.clock.advance(timedelta(minutes=9))
    assert jobs.remind() == 0
    pipeline.clock.advance(timedelta(minutes=1))
    jobs.remind()
    assert len(reminders(pipeline)) == 1


def test_billing_time_of_today_is_not_announced_before_paypal_was_asked_again(pipeline: PipelineUnderTest) -> None:
    """PayPal has sent ACTIVATED of a free trial with a billing time of the same day, and corrected it without an event."""
    pipeline.clock.move_to(pipeline.now.replace(hour=6) + DAY)  # PayPal names ten o'clock
    subscription = begin(pipeline, CLOUD_TRIAL, lagging=True, may_read=True)
    jobs = scheduler(pipeline, may_read=True)
    jobs.remind()
    assert reminders(pipeline) == []
    pipeline.clock.advance(timedelta(minutes=10))
    answer(pipeline, subscription)
    jobs.remind()
    assert reminders(pipeline) == []
    pipeline.clock.move_to(due(subscription) - timedelta(days=3))
    jobs.remind()
    answer(pipeline, subscription)
    pipeline.clock.advance(timedelta(minutes=11))
    jobs.remind()
    assert announced(pipeline)["renews_at"] == f"{due(subscription):%Y-%m-%dT%H:%M:%SZ}"


def test_fresh_date_is_not_looked_up(pipeline: PipelineUnderTest) -> None:
    subscription = begin(pipeline, CLOUD)
    handled = len(subscription.deliveries)
    pipeline.clock.move_to(due(subscription) - timedelta(days=3))
    subscription.revise(pipeline.now - HOUR, quantity=2)
    handle_deliveries(pipeline, subscription, handled)
    scheduler(pipeline, may_read=True).remind()
    assert pipeline.count(PaypalLookup) == 0
    assert len(reminders(pipeline)) == 1


def test_reminder_does_not_change_the_subscription(pipeline: PipelineUnderTest) -> None:
    """A reminder changes neither the status nor the dates."""
    subscription = begin(pipeline, CLOUD)
    before = pipeline.rows(Subscription)[0]
    pipeline.clock.move_to(due(subscription) - timedelta(days=3))
    scheduler(pipeline).remind()
    after = pipeline.rows(Subscription)[0]
    assert (before.status, before.paid_through, before.next_billing_at) == (
        after.status, after.paid_through, after.next_billing_at,
    )  # fmt: skip


# What a reminder announces


def announced(pipeline: PipelineUnderTest) -> dict[str, Any]:
    """Return the facts of the newest reminder."""
    mail = max(reminders(pipeline), key=lambda row: row.created_at)
    with pipeline.database.transaction() as session:
        facts: dict[str, Any] = (
            pipeline.keyring(session).system_key(str(mail.key_id)).decrypt_json("mail.facts", mail.facts)
        )
    return facts


def remind_before_renewal(pipeline: PipelineUnderTest, subscription: SimulatedSubscription) -> dict[str, Any]:
    """Move to three days before the renewal, queue the reminder, and return its facts."""
    pipeline.clock.move_to(due(subscription) - timedelta(days=3))
    scheduler(pipeline).remind()
    return announced(pipeline)


def begin_at(pipeline: PipelineUnderTest, plan: Json, subscription: Json) -> dict[str, Any]:
    """Store a plan and a subscription as PayPal's API shows them, and return the facts of the reminder."""
    answers = [
        event_from_lookup("plan", plan, pipeline.now),
        event_from_lookup("subscription", subscription, pipeline.now),
    ]
    stored = pipeline.store(*[delivery(body, source="read") for body in answers])
    pipeline.worker(HANDLERS).handle([item.event_id for item in stored])
    [row] = pipeline.rows(Subscription)
    assert row.remind_at
    pipeline.clock.move_to(row.remind_at)
    scheduler(pipeline).remind()
    return announced(pipeline)


def snapshot(pipeline: PipelineUnderTest, **billing: Any) -> Json:
    """Return a subscription to CLOUD in PayPal's format, with changes in `billing_info`."""
    subscription = SimulatedSubscription(ADA, CLOUD, pipeline.now - timedelta(minutes=30), Random(7))
    subscription.start()
    found = subscription.snapshot()
    return found | {"billing_info": found["billing_info"] | billing}


def test_reminder_names_the_balance_and_the_total(pipeline: PipelineUnderTest) -> None:
    subscription = begin(pipeline, CLOUD)
    handled, since = len(subscription.deliveries), due(subscription)
    subscription.fail_payment()
    pipeline.clock.move_to(subscription.now)
    handle_deliveries(pipeline, subscription, handled)
    facts = remind_before_renewal(pipeline, subscription)
    assert facts["past_due_since"] == f"{since:%Y-%m-%dT%H:%M:%SZ}"
    assert (facts["price"], facts["balance"]) == ({"amount": 2900, "currency": "EUR"},) * 2
    assert facts["amount"] == {"amount": 5800, "currency": "EUR"} == amount_of(subscription.renew())


def amount_of(sale: Sale) -> dict[str, Any]:
    return {"amount": sale.amount.amount, "currency": sale.amount.currency}


def test_reminder_after_settled_balance_names_the_price_only(pipeline: PipelineUnderTest) -> None:
    subscription = begin(pipeline, CLOUD)
    handled = len(subscription.deliveries)
    subscription.fail_payment()
    subscription.renew()
    pipeline.clock.move_to(subscription.now)
    handle_deliveries(pipeline, subscription, handled)
    facts = remind_before_renewal(pipeline, subscription)
    assert (facts["past_due_since"], facts["balance"]) == (None, None)
    assert facts["amount"] == amount_of(subscription.renew())


def test_reminder_without_the_answer_of_a_look_up_names_no_amount(
    pipeline: PipelineUnderTest, months_later: Callable[[], SimulatedSubscription]
) -> None:
    months_later()
    jobs = scheduler(pipeline, may_read=True)
    jobs.remind()
    pipeline.clock.advance(timedelta(minutes=10))
    jobs.remind()
    facts = announced(pipeline)
    assert [facts[name] for name in ("amount", "price", "balance")] == [None] * 3


NO_BALANCE = {"outstanding_balance": {"currency_code": "EUR", "value": "0.0"}}
OPEN = {"outstanding_balance": {"currency_code": "EUR", "value": "29.0"}}
IN_TRIAL = [
    {"tenure_type": "TRIAL", "sequence": 1, "cycles_completed": 1, "cycles_remaining": 2, "total_cycles": 3},
    {"tenure_type": "REGULAR", "sequence": 2, "cycles_completed": 0, "cycles_remaining": 0, "total_cycles": 0},
]


@pytest.mark.parametrize(("plan", "subscription", "billing", "amount"), [
    ({}, {}, NO_BALANCE, 2900),
    ({"taxes": {"percentage": "19", "inclusive": False}}, {}, NO_BALANCE, 3451),
    ({}, {"shipping_amount": {"currency_code": "EUR", "value": "6.0"}}, NO_BALANCE, 3500),
    ({}, {}, {"cycle_executions": IN_TRIAL}, None),
    ({}, {}, OPEN, 5800),
    ({"payment_preferences": {"auto_bill_outstanding": False}}, {}, OPEN, None),
    ({}, {}, {"outstanding_balance": {"currency_code": "USD", "value": "29.0"}}, None),
    ({}, {}, {"outstanding_balance": {}}, None),
], ids=["price", "tax", "shipping", "trial", "balance", "not billed", "other currency", "unknown balance"])  # fmt: skip
def test_reminder_names_an_amount_only_if_it_is_certain(
    sqlite_pipeline: PipelineUnderTest, plan: Json, subscription: Json, billing: Json, amount: int | None
) -> None:
    facts = begin_at(sqlite_pipeline, shapes.plan(CLOUD) | plan, snapshot(sqlite_pipeline, **billing) | subscription)
    assert facts["amount"] == (None if amount is None else {"amount": amount, "currency": "EUR"})
    assert (facts["period"] is None) is ("cycle_executions" in billing)


def test_price_in_a_reminder_includes_the_tax(sqlite_pipeline: PipelineUnderTest) -> None:
    taxed = shapes.plan(CLOUD) | {"taxes": {"percentage": "19", "inclusive": False}}
    facts = begin_at(sqlite_pipeline, taxed, snapshot(sqlite_pipeline, **NO_BALANCE))
    assert (facts["price"], facts["tax"]) == ({"amount": 3451, "currency": "EUR"}, {"amount": 551, "currency": "EUR"})
    text = TEMPLATES.render("renewal_reminder", {**facts, "customer_name": "Ada Example"}).text
    assert "€34.51" in text
    assert "€5.51" in text
    assert "€29.00" not in text, "PayPal collects no such amount"


def test_last_cycle_gets_no_reminder(sqlite_pipeline: PipelineUnderTest) -> None:
    executions = [{"tenure_type": "REGULAR", "cycles_completed": 3, "cycles_remaining": 0, "total_cycles": 3}]
    body = event_from_lookup(
        "subscription", snapshot(sqlite_pipeline, cycle_executions=executions), sqlite_pipeline.now
    )
    stored = sqlite_pipeline.store(delivery(body, source="read"))
    sqlite_pipeline.worker(HANDLERS).handle([item.event_id for item in stored])
    [row] = sqlite_pipeline.rows(Subscription)
    assert (row.status, row.next_billing_at, row.remind_at) == ("ACTIVE", None, None)
