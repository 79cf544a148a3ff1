"""Renewal reminders: owed once, in time, after asking PayPal, and one that cannot be written holds no other back."""

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
from pipeline.db.models import Mail, Subscription
from pipeline.db.models import PaypalLookup as Question
from pipeline.db.models import Plan as PlanRow
from pipeline.inbox import lookup_fetcher
from pipeline.inbox.parsing import event_from_lookup
from pipeline.scheduler.renewal_reminders import FAILED_AGAIN
from pipeline.simulator import shapes
from pipeline.simulator.people import PEOPLE, SILENT, SimulatedCustomer
from pipeline.simulator.plans import CLOUD, LICENCE, Plan
from pipeline.simulator.subscription import SimulatedSubscription
from tests.support.outbox_fixtures import scheduler
from tests.support.pipeline_under_test import River, delivery

ADA = PEOPLE[0]
DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)


def begin(
    river: River, plan: Plan, person: SimulatedCustomer = ADA, *, tell_plan: bool = True, seed: int = 7
) -> SimulatedSubscription:
    """A subscription that began just now, with all that PayPal tells of it."""
    life = SimulatedSubscription(person, plan, river.now - timedelta(minutes=30), Random(seed))
    life.start()
    told = [delivery(each.body) for each in life.deliveries]
    if tell_plan:
        told.append(delivery(event_from_lookup("plan", shapes.plan(plan), river.now), source="read"))
    stored = river.store(*told)
    river.worker(HANDLERS).handle([item.event_id for item in stored])
    return life


def tell(river: River, life: SimulatedSubscription, after: int) -> None:
    """What happened in this life since."""
    stored = river.store(*[delivery(each.body) for each in life.deliveries[after:]])
    river.worker(HANDLERS).handle([item.event_id for item in stored])


def reminders(river: River) -> list[Mail]:
    return [row for row in river.rows(Mail) if row.kind == "renewal_reminder"]


def due(life: SimulatedSubscription) -> datetime:
    assert life.next_billing
    return life.next_billing


@pytest.mark.parametrize(("plan", "days"), [(LICENCE, 30), (CLOUD, 3)], ids=["yearly", "monthly"])
def test_a_renewal_is_reminded_of_once_so_many_days_before(river: River, plan: Plan, days: int) -> None:
    life, jobs = begin(river, plan), scheduler(river)
    river.clock.move_to(due(life) - timedelta(days=days) - timedelta(seconds=1))
    assert jobs.remind() == 0
    river.clock.advance(timedelta(seconds=1))
    assert jobs.remind() == 1
    [mail] = reminders(river)
    assert (mail.state, mail.due_at) == ("queued", river.now)
    for _ in range(5):
        river.clock.advance(HOUR)
        assert jobs.remind() == 0
    with river.database.transaction() as session:
        facts = river.keyring(session).system_key(life.id).decrypt_json("mail.facts", mail.facts)
    assert facts["renews_at"] == f"{due(life):%Y-%m-%dT%H:%M:%SZ}"
    assert facts["amount"] == {"amount": plan.price.amount, "currency": plan.price.currency}
    assert (facts["plan"], facts["days"]) == (plan.name, days)


def test_the_key_of_a_reminder_survives_an_upgrade(river: River) -> None:
    """A key that is spelled differently is another mail: each customer would be reminded twice."""
    life = begin(river, CLOUD)
    river.clock.move_to(due(life) - timedelta(days=3))
    scheduler(river).remind()
    assert [row.idempotency_key for row in reminders(river)] == [f"renewal:{life.id}:{due(life):%Y-%m-%dT%H:%M:%SZ}:3"]


def test_until_the_plan_is_known_a_month_is_taken(river: River) -> None:
    life = begin(river, LICENCE, tell_plan=False)
    assert [row.interval_unit for row in river.rows(PlanRow)] in ([], [None])
    river.clock.move_to(due(life) - timedelta(days=3))
    assert scheduler(river).remind() == 1


def test_news_told_again_does_not_remind_again(river: River) -> None:
    life, jobs = begin(river, CLOUD), scheduler(river)
    river.clock.move_to(due(life) - timedelta(days=3))
    jobs.remind()
    already = len(life.deliveries)
    life.revise(river.now, quantity=2)
    tell(river, life, already)
    jobs.remind()
    assert len(reminders(river)) == 1


def test_the_next_renewal_is_reminded_of_again(river: River) -> None:
    life, jobs = begin(river, CLOUD), scheduler(river)
    river.clock.move_to(due(life) - timedelta(days=3))
    jobs.remind()
    river.clock.move_to(due(life))
    already = len(life.deliveries)
    life.renew()
    life.revise(life.now + HOUR, quantity=1)  # a renewal sends no subscription event: this one tells the next date
    river.clock.move_to(life.now)
    tell(river, life, already)
    river.clock.move_to(due(life) - timedelta(days=3))
    jobs.remind()
    assert len(reminders(river)) == 2


@pytest.mark.parametrize("end", ["cancel", "suspend"])
def test_who_will_not_be_charged_is_not_reminded(river: River, end: str) -> None:
    life, jobs = begin(river, CLOUD), scheduler(river)
    when, already = due(life), len(life.deliveries)
    {"cancel": life.cancel, "suspend": life.suspend}[end](river.now + MINUTE)
    tell(river, life, already)
    river.clock.move_to(when - timedelta(days=2))
    assert jobs.remind() == 0
    assert reminders(river) == []


def test_a_date_that_has_passed_is_not_reminded_of(river: River) -> None:
    life, jobs = begin(river, CLOUD), scheduler(river)
    river.clock.move_to(due(life) + MINUTE)
    jobs.remind()
    assert reminders(river) == []
    assert jobs.remind() == 0, "and is not looked at again and again"


def test_a_reminder_for_who_has_no_address_waits(river: River) -> None:
    life = begin(river, CLOUD, SILENT)
    river.clock.move_to(due(life) - timedelta(days=3))
    scheduler(river).remind()
    assert [(row.state, row.due_at) for row in reminders(river)] == [("queued", None)]


def test_a_reminder_that_cannot_be_written_holds_no_other_back_and_is_tried_again(river: River) -> None:
    broken, well = begin(river, CLOUD), begin(river, CLOUD, PEOPLE[1], seed=8)
    for row in river.rows(Subscription):
        if row.id == broken.id:
            river.set(row, personal_data=b"damaged")
    river.clock.move_to(max(due(broken), due(well)) - timedelta(days=3))
    jobs = scheduler(river)
    with capture_logs() as logs:
        jobs.remind()
    assert [row.subscription_id for row in reminders(river)] == [well.id]
    assert [line["subscription_id"] for line in logs if line["event"] == "reminder_failed"] == [broken.id]
    assert jobs.remind() == 0
    river.clock.advance(FAILED_AGAIN)
    assert jobs.remind() == 1


def test_an_address_that_is_told_while_a_reminder_is_owed_is_not_missed(
    stream: River, monkeypatch: pytest.MonkeyPatch
) -> None:
    life, has_address = begin(stream, CLOUD, SILENT), accounts.has_address
    stream.clock.move_to(due(life) - timedelta(days=3))
    telling: list[threading.Thread] = []

    def tell_address(customer_id: str) -> None:
        with stream.database.transaction() as session:
            accounts.correct_field(
                session, stream.keyring(session), customer_id, "email", "ada@example.com", stream.now
            )

    def looked(session: Session, customer_id: str) -> bool:
        found = has_address(session, customer_id)
        telling.append(threading.Thread(target=tell_address, args=(customer_id,)))
        telling[0].start()
        telling[0].join(0.5)  # as long as it may take where nothing holds it back
        return found

    monkeypatch.setattr(accounts, "has_address", looked)
    scheduler(stream).remind()
    telling[0].join(30)
    assert [row.due_at for row in reminders(stream)] == [stream.now]


def test_two_schedulers_remind_once(river: River) -> None:
    life = begin(river, CLOUD)
    river.clock.move_to(due(life) - timedelta(days=3))
    met = threading.Barrier(2, timeout=30)

    def remind(_: int) -> None:
        met.wait()
        scheduler(river).remind()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(remind, range(2)))
    assert len(reminders(river)) == 1


# Reminders, after asking PayPal


class Oracle:
    """PayPal, knowing one subscription."""

    def __init__(self, snapshot: dict[str, Any]) -> None:
        self.snapshot = snapshot

    def get(self, kind: str, id: str) -> dict[str, Any]:
        return self.snapshot


def answer(river: River, life: SimulatedSubscription) -> None:
    """PayPal answers what it is asked."""
    told = lookup_fetcher.fetch_due(river.database, river.master, river.clock, Oracle(life.snapshot()))
    river.worker(HANDLERS, may_read=True).handle(told)


@pytest.fixture
def months_later(river: River) -> Callable[[], SimulatedSubscription]:
    """A monthly subscription three days before its second renewal, of which we only know the first."""

    def make() -> SimulatedSubscription:
        life = begin(river, CLOUD)
        river.clock.move_to(due(life) - timedelta(days=3))
        return life

    return make


def test_before_a_reminder_paypal_is_asked_whether_the_date_holds(
    river: River, months_later: Callable[[], SimulatedSubscription]
) -> None:
    life, jobs = months_later(), scheduler(river, may_read=True)
    assert jobs.remind() == 1
    assert reminders(river) == []
    assert [(row.kind, row.id) for row in river.rows(Question)] == [("subscription", life.id)]
    answer(river, life)
    jobs.remind()
    assert len(reminders(river)) == 1


def test_a_date_that_has_moved_is_reminded_of_when_its_time_comes(
    river: River, months_later: Callable[[], SimulatedSubscription]
) -> None:
    life, jobs = months_later(), scheduler(river, may_read=True)
    jobs.remind()
    life.anchor, life.updated = life.anchor + timedelta(days=5), river.now
    answer(river, life)
    jobs.remind()
    assert reminders(river) == []
    river.clock.advance(timedelta(days=5))
    jobs.remind()
    answer(river, life)  # which we had before
    river.clock.advance(timedelta(minutes=10))
    jobs.remind()
    assert len(reminders(river)) == 1


def test_who_has_cancelled_without_our_hearing_of_it_is_not_reminded(
    river: River, months_later: Callable[[], SimulatedSubscription]
) -> None:
    life, jobs = months_later(), scheduler(river, may_read=True)
    jobs.remind()
    life.cancel(river.now)
    answer(river, life)
    river.clock.advance(HOUR)
    jobs.remind()
    assert reminders(river) == []


def test_a_paypal_that_does_not_answer_is_not_waited_for_long(
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


def test_what_is_fresh_is_not_asked_again(river: River) -> None:
    life = begin(river, CLOUD)
    already = len(life.deliveries)
    river.clock.move_to(due(life) - timedelta(days=3))
    life.revise(river.now - HOUR, quantity=2)
    tell(river, life, already)
    scheduler(river, may_read=True).remind()
    assert river.count(Question) == 0
    assert len(reminders(river)) == 1


def test_the_books_know_nothing_of_reminders(river: River) -> None:
    """A reminder changes neither status nor what was paid."""
    life = begin(river, CLOUD)
    before = river.rows(Subscription)[0]
    river.clock.move_to(due(life) - timedelta(days=3))
    scheduler(river).remind()
    after = river.rows(Subscription)[0]
    assert (before.status, before.paid_through, before.next_billing_at) == (
        after.status, after.paid_through, after.next_billing_at,
    )  # fmt: skip
