"""What is due: mails of the dead, renewal reminders, and word to the operator."""

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from random import Random
from typing import Any

import pytest
from structlog.testing import capture_logs

from handlers import HANDLERS
from pipeline import inbox, reads
from pipeline.database import StoreDown
from pipeline.facts import read_answer
from pipeline.outbox import OPERATOR
from pipeline.render import Templates, Vendor, default_folder
from pipeline.scheduler import Scheduler
from pipeline.simulator import shapes
from pipeline.simulator.life import Life
from pipeline.simulator.people import PEOPLE, SILENT, Person
from pipeline.simulator.plans import CLOUD, LICENCE, Plan
from pipeline.subscription import Reminders
from pipeline.tables import Mail, Subscription
from pipeline.tables import Plan as PlanRow
from pipeline.tables import Read as Question
from tests.river import River, delivery, happened

ADA = PEOPLE[0]
DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)


def scheduler(river: River, *, may_read: bool = False, operator: str = "") -> Scheduler:
    return Scheduler(
        river.database, river.master, river.clock,
        reminders=Reminders(), may_read=may_read, operator=operator,
    )  # fmt: skip


# When


def test_each_job_runs_at_its_own_pace(brook: River, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: Counter[str] = Counter()

    def count(name: str) -> int:
        ran[name] += 1
        return 1

    jobs = scheduler(brook)
    for job in jobs.jobs:
        object.__setattr__(job, "run", partial(count, job.name))
    for _ in range(121):
        jobs.run_due()
        brook.clock.advance(timedelta(seconds=1))
    assert ran == {
        "free claims of dead mailers": 61,
        "owe renewal reminders": 3,
        "tell the operator of parked events": 3,
    }


@pytest.mark.parametrize("error", [StoreDown("gone"), ValueError("ada@example.com")])
def test_a_job_that_fails_stops_no_other_and_is_due_again(brook: River, error: Exception) -> None:
    jobs, ran = scheduler(brook), list[str]()
    first, *others = jobs.jobs

    def note(name: str) -> int:
        ran.append(name)
        return 0

    def fail() -> int:
        ran.append(first.name)
        raise error

    object.__setattr__(first, "run", fail)
    for job in others:
        object.__setattr__(job, "run", partial(note, job.name))
    with capture_logs() as logs:
        jobs.run_due()
        brook.clock.advance(first.every)
        jobs.run_due()
    assert sorted(ran) == sorted([first.name, *[job.name for job in jobs.jobs]])
    assert [line["job"] for line in logs] == [first.name] * 2
    assert "ada@" not in str(logs)


def test_a_clock_that_was_ahead_and_is_right_again_silences_no_job(brook: River) -> None:
    jobs, ran = scheduler(brook), list[datetime]()

    def note() -> int:
        ran.append(brook.now)
        return 0

    object.__setattr__(jobs.jobs[0], "run", note)
    begin = brook.now
    for step in (DAY, -DAY, timedelta(0)):
        brook.clock.advance(step)
        jobs.run_due()
    assert ran == [begin + DAY, begin]


# Word to the operator


def park(river: River, *names: str) -> None:
    river.store(*[delivery(happened(name), f"T-{name}") for name in names])
    with river.database.transaction() as session:
        inbox.mark(session, names, "parked", river.now, f"nobody knows {names[0]}")


def words(river: River) -> list[dict[str, Any]]:
    """What the mails to the operator say, oldest first."""
    rows = sorted((row for row in river.rows(Mail) if row.label == OPERATOR), key=lambda row: row.created_at)
    with river.database.transaction() as session:
        seal = river.keyring(session).own(OPERATOR)
        return [seal.open_json("mail.facts", row.facts) for row in rows]


def test_the_operator_is_told_of_parked_events_at_most_once_an_hour(river: River) -> None:
    jobs = scheduler(river, operator="operator@example.com")
    assert jobs.tell_operator() == 0
    park(river, "WH-1")
    assert jobs.tell_operator() == 1
    assert jobs.tell_operator() == 0
    river.clock.advance(MINUTE)
    park(river, "WH-2", "WH-3")
    assert jobs.tell_operator() == 0
    river.clock.advance(HOUR - 2 * MINUTE)
    assert jobs.tell_operator() == 0
    river.clock.advance(MINUTE)
    park(river, "WH-4")
    assert jobs.tell_operator() == 3
    river.clock.advance(DAY)
    assert jobs.tell_operator() == 0, "they were told of that"
    first, second = words(river)
    assert first == {"count": 1, "events": [{"id": "WH-1", "type": "TEST.HAPPENED", "reason": "nobody knows WH-1"}]}
    assert second["count"] == 3
    assert {event["id"] for event in second["events"]} == {"WH-2", "WH-3", "WH-4"}


def test_where_no_operator_is_named_nobody_is_told(river: River) -> None:
    park(river, "WH-1")
    assert scheduler(river).tell_operator() == 0
    assert river.count(Mail) == 0


def test_of_many_parked_events_the_newest_are_named_and_all_counted(river: River) -> None:
    for number in range(30):
        park(river, f"WH-{number:02}")
        river.clock.advance(MINUTE)
    scheduler(river, operator="operator@example.com").tell_operator()
    [word] = words(river)
    assert word["count"] == 30
    assert [event["id"] for event in word["events"]] == [f"WH-{number:02}" for number in range(29, 9, -1)]
    vendor = Vendor("SMT", "https://smt.example.com", "", "#1d4e89", "SMT-CRM", "help@example.com")
    rendered = Templates(default_folder(), vendor, "en_US").render("event_parked", word | {"customer_name": ""})
    assert "WH-29" in rendered.text
    assert "30" in rendered.subject + rendered.text


def test_two_schedulers_tell_the_operator_once(river: River) -> None:
    park(river, "WH-1")
    met = threading.Barrier(2, timeout=30)

    def tell(_: int) -> None:
        jobs = scheduler(river, operator="operator@example.com")
        met.wait()
        jobs.tell_operator()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(tell, range(2)))
    assert len(words(river)) == 1


# Renewal reminders


def begin(river: River, plan: Plan, person: Person = ADA, *, tell_plan: bool = True) -> Life:
    """A subscription that began just now, with all that PayPal tells of it."""
    life = Life(person, plan, river.now - timedelta(minutes=30), Random(7))
    life.begin()
    told = [delivery(each.body) for each in life.deliveries]
    if tell_plan:
        told.append(delivery(read_answer("plan", shapes.plan(plan), river.now), source="read"))
    stored = river.store(*told)
    river.worker(HANDLERS).handle([item.event_id for item in stored])
    return life


def tell(river: River, life: Life, after: int) -> None:
    """What happened in this life since."""
    stored = river.store(*[delivery(each.body) for each in life.deliveries[after:]])
    river.worker(HANDLERS).handle([item.event_id for item in stored])


def reminders(river: River) -> list[Mail]:
    return [row for row in river.rows(Mail) if row.kind == "renewal_reminder"]


def due(life: Life) -> datetime:
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
    assert (mail.state, mail.due_at) == ("owed", river.now)
    for _ in range(5):
        river.clock.advance(HOUR)
        assert jobs.remind() == 0
    with river.database.transaction() as session:
        facts = river.keyring(session).own(life.id).open_json("mail.facts", mail.facts)
    assert facts["renews_at"] == f"{due(life):%Y-%m-%dT%H:%M:%SZ}"
    assert facts["amount"] == {"amount": plan.price.amount, "currency": plan.price.currency}
    assert (facts["plan"], facts["days"]) == (plan.name, days)


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
    assert [(row.state, row.due_at) for row in reminders(river)] == [("owed", None)]


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

    def read(self, kind: str, id: str) -> dict[str, Any]:
        return self.snapshot


def answer(river: River, life: Life) -> None:
    """PayPal answers what it is asked."""
    told = reads.ask_due(river.database, river.master, river.clock, Oracle(life.snapshot()))
    river.worker(HANDLERS, may_read=True).handle(told)


@pytest.fixture
def months_later(river: River) -> Callable[[], Life]:
    """A monthly subscription three days before its second renewal, of which we only know the first."""

    def make() -> Life:
        life = begin(river, CLOUD)
        river.clock.move_to(due(life) - timedelta(days=3))
        return life

    return make


def test_before_a_reminder_paypal_is_asked_whether_the_date_holds(
    river: River, months_later: Callable[[], Life]
) -> None:
    life, jobs = months_later(), scheduler(river, may_read=True)
    assert jobs.remind() == 1
    assert reminders(river) == []
    assert [(row.kind, row.id) for row in river.rows(Question)] == [("subscription", life.id)]
    answer(river, life)
    jobs.remind()
    assert len(reminders(river)) == 1


def test_a_date_that_has_moved_is_reminded_of_when_its_time_comes(
    river: River, months_later: Callable[[], Life]
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
    river: River, months_later: Callable[[], Life]
) -> None:
    life, jobs = months_later(), scheduler(river, may_read=True)
    jobs.remind()
    life.cancel(river.now)
    answer(river, life)
    river.clock.advance(HOUR)
    jobs.remind()
    assert reminders(river) == []


def test_a_paypal_that_does_not_answer_is_not_waited_for_long(river: River, months_later: Callable[[], Life]) -> None:
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
