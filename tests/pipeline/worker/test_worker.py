"""The worker handles each event once, in one transaction with its effects."""

import threading

from sqlalchemy import event as sqlalchemy_event

from pipeline.billing.unit_of_work import UnitOfWork
from pipeline.db.models import EncryptionKey, Mail
from pipeline.inbox.event import Event
from pipeline.outbox import store as outbox
from pipeline.worker.worker import BATCH
from tests.support.broker_fixtures import put
from tests.support.pipeline_under_test import River, delivery, happened, make_parts
from tests.support.running_roles import running
from tests.support.subprocesses import until
from tests.support.worker_fixtures import HANDLERS, effects, store


def test_event_is_handled_with_its_effects(river: River) -> None:
    river.worker(HANDLERS).handle(store(river, "TEST.GOOD"))
    row = river.event("WH-000")
    assert (row.state, row.done_at, row.due_at, row.reason) == ("handled", river.now, None, None)
    assert effects(river) == ["WH-000"]


def test_batch_is_one_transaction(river: River) -> None:
    commits: list[object] = []
    names = store(river, *["TEST.GOOD"] * (BATCH + 1))
    sqlalchemy_event.listen(river.database.engine, "commit", commits.append)
    river.worker(HANDLERS).handle(names)
    assert len(commits) == 2
    assert effects(river) == names


def test_process_handles_a_second_batch_while_the_first_waits(stream: River, empty_broker_url: str) -> None:
    first, second, seen = threading.Event(), threading.Event(), list[bool]()

    def wait_for_second(event: Event, uow: UnitOfWork) -> None:
        if event.id == "WH-001":
            first.set()
            seen.append(second.wait(30))
        second.set()

    # The first event creates a key and locks it, which would block the second batch. So handle one event before.
    stream.worker(HANDLERS).handle(store(stream, "TEST.GOOD"))
    names = [f"WH-{number:03}" for number in range(1, 9)]
    stream.store(*[delivery(happened(name, kind="TEST.MEET")) for name in names])
    parts = make_parts(
        stream.url, stream.folder, stream.clock, {"TEST.MEET": wait_for_second}, broker_url=empty_broker_url
    )
    with running({"worker": parts}):
        put(parts.broker, names[:1])
        assert first.wait(30)
        for name in names[1:]:
            put(parts.broker, [name])
        until(lambda: set(stream.states().values()) == {"handled"}, 60, "all events are handled")
    assert seen == [True]


def test_handled_and_unknown_ids_are_skipped(river: River) -> None:
    worker, names = river.worker(HANDLERS), store(river, "TEST.GOOD", "TEST.GOOD", "TEST.UNHANDLED")
    worker.handle([names[0], names[0], "WH-unknown"])
    worker.handle([*names, "WH-unknown"])
    worker.handle(names)
    assert effects(river) == names[:2]


def test_event_without_handler_is_ignored_with_a_reason(river: River) -> None:
    river.worker(HANDLERS).handle(store(river, "TEST.UNHANDLED"))
    assert (river.event("WH-000").state, river.event("WH-000").reason) == (
        "ignored",
        "no handler for this type of event",
    )


def test_handler_receives_the_content_of_the_body(river: River) -> None:
    received: list[Event] = []
    resource = {
        "id": "I-ADA", "status": "ACTIVE", "update_time": "2026-03-01T11:00:00Z",
        "subscriber": {"email_address": "ada@example.com", "name": {"given_name": "Ada", "surname": "Whitfield"}},
    }  # fmt: skip
    kind = "BILLING.SUBSCRIPTION.UPDATED"
    river.store(delivery(happened("WH-1", kind=kind, resource=resource)))
    river.worker({kind: lambda event, uow: received.append(event)}).handle(["WH-1"])
    [event] = received
    assert (event.id, event.type, event.source) == ("WH-1", kind, "webhook")
    assert event.facts["subscription"] == "I-ADA"
    assert event.person["email"] == "ada@example.com"
    assert event.received_at == river.now
    assert "ada@" not in repr(event)


def test_batch_is_handled_in_paypals_order(river: River) -> None:
    seen: list[str] = []
    times = {
        "WH-0": "2026-03-01T11:00:02Z",
        "WH-1": "2026-03-01T11:00:01Z",
        "WH-2": "never",
        "WH-3": "2026-02-01T00:00:00Z",
    }
    river.store(*[delivery(happened(name, create_time=time)) for name, time in times.items()])
    river.worker({"TEST.HAPPENED": lambda event, uow: seen.append(event.id)}).handle(list(times))
    assert seen == ["WH-3", "WH-1", "WH-0", "WH-2"]


def test_event_of_erased_customer_is_handled_by_its_facts(river: River) -> None:
    names = store(river, "TEST.GOOD")
    river.set(
        next(row for row in river.rows(EncryptionKey) if row.key_id == "WH-000"), wrapped_key=None, erased_at=river.now
    )
    river.worker(HANDLERS).handle(names)
    assert river.states() == {"WH-000": "handled"}


def test_due_mails_are_published_after_the_commit(river: River) -> None:
    def queue_mail(event: Event, uow: UnitOfWork) -> None:
        uow.add_mail(outbox.NewMail("receipt", f"receipt:{event.id}", None, {}))

    published: list[str] = []

    def publish(mails: list[str]) -> None:
        assert [row.id for row in river.rows(Mail)] == sorted(mails)
        published.extend(mails)

    river.worker({"TEST.MAIL": queue_mail}, on_mail=publish).handle(store(river, "TEST.MAIL", "TEST.MAIL"))
    assert len(published) == 2
    river.worker({"TEST.MAIL": queue_mail}, on_mail=publish).handle(["WH-000"])
    assert len(published) == 2
