"""The unit of work locks its rows in one order, so concurrent workers produce the same rows without deadlock."""

import copy
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from pipeline.billing.reminders import ReminderPolicy
from pipeline.billing.unit_of_work import UnitOfWork
from pipeline.customers import accounts
from pipeline.db.models import Customer, Event, Payment, PaypalLookup, Plan, Refund, StatusHistoryEntry, Subscription
from pipeline.db.rows import RefundRow
from pipeline.inbox.event import Event as InboxEvent
from pipeline.inbox.event import RetryLater
from tests.support.event_feeder import EventFeeder, at, facts_of
from tests.support.event_histories import OrderedReplay, life, odd
from tests.support.example_people import ALICE, BOB
from tests.support.pipeline_under_test import PipelineUnderTest
from tests.support.sample_events import GONE, kinds, renamed, sample
from tests.support.subprocesses import until

ACTIVATED, CREATED = "BILLING.SUBSCRIPTION.ACTIVATED", "BILLING.SUBSCRIPTION.CREATED"
UPDATED, NOON = "BILLING.SUBSCRIPTION.UPDATED", datetime(2026, 3, 1, 12, tzinfo=UTC)
COMPLETED, REFUNDED, REVERSED = "PAYMENT.SALE.COMPLETED", "PAYMENT.SALE.REFUNDED", "PAYMENT.SALE.REVERSED"
ROUNDS = 20


# -- one worker


def test_unknown_payment_becomes_an_empty_placeholder(sqlite_pipeline: PipelineUnderTest) -> None:
    feeder = EventFeeder(sqlite_pipeline)
    feeder.hear(sample(REFUNDED))
    (payment,) = sqlite_pipeline.rows(Payment)
    assert (payment.known, payment.status, payment.subscription_id, payment.amount) == ({}, None, None, None)
    assert sqlite_pipeline.rows(Subscription) == []


def test_failed_batch_leaves_no_placeholders(sqlite_pipeline: PipelineUnderTest) -> None:
    feeder = EventFeeder(sqlite_pipeline)
    feeder.hear(sample(COMPLETED, {"amount": "29.00"}))
    assert [
        sqlite_pipeline.rows(table) for table in (Payment, Subscription, Plan, StatusHistoryEntry, PaypalLookup)
    ] == [
        [],
        [],
        [],
        [],
        [],
    ]


def test_failing_event_does_not_affect_the_rest_of_its_batch(sqlite_pipeline: PipelineUnderTest) -> None:
    feeder = EventFeeder(sqlite_pipeline)
    feeder.tell(sample(ACTIVATED), sample(COMPLETED, {"amount": "29.00"}), sample(COMPLETED))
    feeder.work()
    assert sorted(feeder.states()) == ["handled", "handled", "parked"]
    assert feeder.subscription(ALICE).status == "ACTIVE"


def test_plan_is_looked_up_only_while_it_is_unknown(sqlite_pipeline: PipelineUnderTest) -> None:
    feeder = EventFeeder(sqlite_pipeline)
    feeder.hear(sample(CREATED), sample(ACTIVATED))
    assert feeder.questions() == [("plan", ALICE.plan)]
    assert feeder.plans()[ALICE.plan].known == {}
    sqlite_pipeline.empty()
    feeder.hear(sample("READ.PLAN"), sample(CREATED), sample(ACTIVATED))
    assert feeder.questions() == []


def test_changed_address_is_encrypted_again_and_gets_a_new_hash(sqlite_pipeline: PipelineUnderTest) -> None:
    feeder = EventFeeder(sqlite_pipeline)
    feeder.hear(sample(ACTIVATED))
    before = feeder.subscription(ALICE)
    feeder.hear(sample("BILLING.SUBSCRIPTION.UPDATED", {"subscriber.email_address": "alice.new@example.com"}))
    after = feeder.subscription(ALICE)
    assert before.personal_data != after.personal_data
    assert before.email_hash != after.email_hash


def test_erased_customer_who_subscribes_again_is_a_new_customer(sqlite_pipeline: PipelineUnderTest) -> None:
    """It holds even if the batch contains an event of the old subscription, and if the customer had opted out."""
    feeder = EventFeeder(sqlite_pipeline)
    feeder.hear(sample(ACTIVATED))
    [customer] = sqlite_pipeline.rows(Customer)
    sqlite_pipeline.set(customer, erased_at=at("2026-04-01T00:00Z"), wants_service_mail=False)
    again = dict.fromkeys(("start_time", "create_time", "update_time", "status_update_time"), "2026-05-01T09:00:00Z")
    old = sample(UPDATED, {"update_time": "2026-05-01T08:00:00Z"}, at="2026-05-01T08:00:00Z")
    feeder.tell(old, sample(ACTIVATED, {"id": "I-AGAIN0000001", **again}, at="2026-05-01T09:00:00Z"))
    feeder.work()
    [customer] = sqlite_pipeline.rows(Customer)
    assert (customer.erased_at, customer.wants_service_mail) == (None, True)


def test_event_of_old_subscription_does_not_restore_erased_customer(sqlite_pipeline: PipelineUnderTest) -> None:
    feeder = EventFeeder(sqlite_pipeline)
    feeder.hear(sample(ACTIVATED))
    [customer] = sqlite_pipeline.rows(Customer)
    sqlite_pipeline.set(customer, erased_at=at("2026-04-01T00:00Z"))
    feeder.hear(sample(UPDATED, {"update_time": "2026-05-01T08:00:00Z"}, at="2026-05-01T08:00:00Z"))
    assert [row.erased_at for row in sqlite_pipeline.rows(Customer)] == [at("2026-04-01T00:00Z")]


UNEXPECTED_VALUES: list[Any] = [
    "2018-19-12T22:20:32Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "2199-12-31T23:59:59Z", "\x00", "", "-1",
    "1e9", -1, 0, 1, 10**9 - 1, 999_999_999_999, 0.5, True, None, [], {}, [{}], "JPY", "REGULAR", "CANCELLED", "denied",
    {"value": "0.01", "currency_code": "EUR"}, {"total": "9999999999999.99", "currency": "EUR"},
    {"total": "-0.01", "currency": "EUR"}, "pending", "x" * 300, BOB.subscription, "alice@example.com", "é" * 127,
]  # fmt: skip


@pytest.fixture(scope="module")
def shore(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OrderedReplay]:
    made = OrderedReplay(tmp_path_factory.mktemp("shore"))
    yield made
    made.pipeline.database.close()


@pytest.mark.slow
@given(kind=st.sampled_from(kinds()), data=st.data())
@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
def test_handlers_do_not_fail_on_unexpected_values(shore: OrderedReplay, kind: str, data: st.DataObject) -> None:
    """The event is handled or parked without an internal error, and later events of the subscription are handled."""
    malformed = copy.deepcopy(sample(kind))
    for _ in range(data.draw(st.integers(1, 3))):
        holder, key = data.draw(st.sampled_from(list(_all_items(malformed["resource"]))))
        holder[key] = copy.deepcopy(data.draw(st.sampled_from(UNEXPECTED_VALUES)))
    shore.clear()
    worker = shore.worker()
    for event in (sample("READ.PLAN"), sample(ACTIVATED), renamed(malformed), sample(COMPLETED), sample(REFUNDED)):
        worker.handle(shore.store([event]))
    failed = [row.reason for row in shore.pipeline.rows(Event) if row.attempts or " at pipeline" in (row.reason or "")]
    assert not failed


# -- several workers


@pytest.mark.slow
def test_concurrent_workers_produce_the_same_rows(kept_database: str, data_dir: Path) -> None:
    """Two workers process subscriptions with shared plans and customers, each in its own order."""
    shore = OrderedReplay(data_dir, kept_database)
    shore.pipeline.empty()  # an earlier test may have left rows
    try:
        for number in range(ROUNDS):
            events = [*life(7 * number), *odd(7 * number + 1), *life(7 * number + 2)]
            expected = shore.tell([events])
            shore.clear()
            ids = shore.store(events)
            assert not _run_concurrently(shore, [_batches(ids, Random(number)), _batches(ids, Random(-number))])
            shore.worker().handle(ids)  # events that both workers skipped as locked
            assert shore.outcome().rows == expected.rows, f"round {number}"
            assert shore.outcome().unhandled == expected.unhandled, f"round {number}"
    finally:
        shore.pipeline.empty()
        shore.pipeline.database.close()


def test_concurrent_plan_and_subscription_events_see_each_other(postgresql_pipeline: PipelineUnderTest) -> None:
    """A subscription that is put on a plan while the plan's event is processed gets the plan's billing cycle."""
    for number in range(ROUNDS):
        postgresql_pipeline.empty()
        feeder = EventFeeder(postgresql_pipeline)
        events = [sample("READ.PLAN"), sample(CREATED), sample(COMPLETED)]
        feeder.tell(*events)
        ids = [[event["id"]] for event in (events if number % 2 else reversed(events))]
        assert not _run_concurrently(feeder, [[ids[0]], [ids[1]], [ids[2]]])
        assert feeder.subscription(ALICE).paid_through == at("2026-03-24T09:16:38Z"), f"round {number}"


def test_concurrent_events_of_one_refund_are_both_stored(postgresql_pipeline: PipelineUnderTest) -> None:
    resource = sample("READ.REFUND")["resource"]
    events = [
        sample("READ.REFUND"),
        sample(REVERSED),
        sample("READ.REFUND", resource | {"update_time": "2026-03-01T07:00:00Z"}),
    ]
    for number in range(ROUNDS):
        postgresql_pipeline.empty()
        feeder = EventFeeder(postgresql_pipeline)
        feeder.hear(sample("READ.SALE"), events[0])
        feeder.tell(*events[1:])
        assert not _run_concurrently(feeder, [[[event["id"]]] for event in events[1:]])
        (refund,) = feeder.refunds().values()
        assert (refund.kind, sorted(refund.known)[-2:]) == ("reversal", ["reversal", "state"]), f"round {number}"
        assert refund.known["state"][0] == "2026-03-01T07:00:00.000000+00:00", f"round {number}"


def test_refund_stored_by_another_worker_is_retried(postgresql_pipeline: PipelineUnderTest) -> None:
    """The refund's payment is not locked, so it must not be changed."""
    feeder = EventFeeder(postgresql_pipeline)
    feeder.hear(sample(ACTIVATED), sample(COMPLETED))
    batch = [_event(sample(UPDATED)), _event(sample(REFUNDED, {"sale_id": GONE, "links": []}))]
    refund = batch[1].facts["refund"]

    def look() -> RefundRow | None:
        with postgresql_pipeline.database.transaction() as session:
            return UnitOfWork(
                session, postgresql_pipeline.keyring(session), postgresql_pipeline.now, ReminderPolicy(), batch
            ).refund(refund)

    with ThreadPoolExecutor(1) as pool:
        with postgresql_pipeline.database.transaction() as other:
            other.get(Subscription, ALICE.subscription, with_for_update=True)
            found = pool.submit(look)
            until(lambda: _waiting_for_locks(postgresql_pipeline) == 1, 30, "the batch waits for the subscription")
            row = {"kind": "refund", "amount": 900, "currency": "EUR", "occurred_at": postgresql_pipeline.now}
            other.add(Refund(id=refund, payment_id=sample(COMPLETED)["resource"]["id"], known={}, **row))
        with pytest.raises(RetryLater, match="another worker has just stored its refund"):
            found.result(30)
    with postgresql_pipeline.database.transaction() as session:
        again = UnitOfWork(
            session, postgresql_pipeline.keyring(session), postgresql_pipeline.now, ReminderPolicy(), batch
        )
        assert again.refund(refund) is not None


def test_address_entered_while_a_mail_is_queued_releases_it(
    postgresql_pipeline: PipelineUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the lock, the mail would start to wait just after the address was entered, and would wait forever."""
    feeder = EventFeeder(postgresql_pipeline)
    feeder.hear(sample(ACTIVATED, {"subscriber.email_address": GONE}))
    customer, original = str(feeder.subscription(ALICE).customer_id), UnitOfWork._customers_with_address
    threads: list[threading.Thread] = []

    def correct(field: accounts.Field, value: str) -> None:
        with postgresql_pipeline.database.transaction() as session:
            accounts.correct_field(
                session, postgresql_pipeline.keyring(session), customer, field, value, postgresql_pipeline.now
            )

    def look(uow: UnitOfWork, customers: set[str]) -> set[str]:
        found = original(uow, customers)
        threads.append(threading.Thread(target=correct, args=("email", ALICE.email)))
        threads[0].start()
        threads[0].join(0.5)  # long enough if no lock blocks it
        return found

    correct("name", "Alice")  # creates the customer's key now, because that takes a lock too
    monkeypatch.setattr(UnitOfWork, "_customers_with_address", look)
    feeder.hear(sample(COMPLETED))
    threads[0].join(30)
    assert feeder.mail("receipt").due


def _event(document: dict[str, Any]) -> InboxEvent:
    return InboxEvent(document["id"], document["event_type"], "webhook", None, NOON, facts_of(document))


def _waiting_for_locks(pipeline: PipelineUnderTest) -> int:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with pipeline.database.reading() as session:
        return int(session.execute(text(waiting)).scalar_one())


def _run_concurrently(
    target: OrderedReplay | EventFeeder, orders: Sequence[Sequence[Sequence[str]]]
) -> list[Exception]:
    """Handle each list of batches with a separate worker and thread. Return the exceptions."""
    start, errors = threading.Barrier(len(orders)), []

    def work(batches: Sequence[Sequence[str]]) -> None:
        worker = target.worker()
        start.wait()
        try:
            for batch in batches:
                worker.handle(batch)
        except Exception as error:  # noqa: BLE001 - report any failure of the thread to the test
            errors.append(error)

    threads = [threading.Thread(target=work, args=(batches,)) for batches in orders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def _batches(ids: Sequence[str], order: Random) -> list[list[str]]:
    remaining, batches = list(ids), []
    order.shuffle(remaining)
    while remaining:
        size = order.randint(1, 8)
        batches.append(remaining[:size])
        remaining = remaining[size:]
    return batches


def _all_items(value: Any) -> Iterator[tuple[Any, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in list(items):
        yield value, key
        yield from _all_items(item)
