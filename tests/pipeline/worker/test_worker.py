"""The worker handles each event once, in one transaction with its effects."""

import threading

import pytest
from sqlalchemy import event as sqlalchemy_event

from pipeline.billing.unit_of_work import UnitOfWork
from pipeline.db.models import EncryptionKey, Mail
from pipeline.inbox.event import Event
from pipeline.inbox.kept_types import UNKNOWN, ignored_reason
from pipeline.outbox import store as outbox
from pipeline.worker.worker import BATCH
from tests.support.broker_fixtures import put
from tests.support.pipeline_under_test import PipelineUnderTest, delivery, happened, make_parts
from tests.support.running_roles import running
from tests.support.subprocesses import until
from tests.support.worker_fixtures import HANDLERS, effects, store


def test_event_is_handled_with_its_effects(pipeline: PipelineUnderTest) -> None:
    pipeline.worker(HANDLERS).handle(store(pipeline, "TEST.GOOD"))
    row = pipeline.event("WH-000")
    assert (row.state, row.done_at, row.due_at, row.reason) == ("handled", pipeline.now, None, None)
    assert effects(pipeline) == ["WH-000"]


def test_batch_is_one_transaction(pipeline: PipelineUnderTest) -> None:
    commits: list[object] = []
    names = store(pipeline, *["TEST.GOOD"] * (BATCH + 1))
    sqlalchemy_event.listen(pipeline.database.engine, "commit", commits.append)
    pipeline.worker(HANDLERS).handle(names)
    assert len(commits) == 2
    assert effects(pipeline) == names


def test_process_handles_a_second_batch_while_the_first_waits(
    postgresql_pipeline: PipelineUnderTest, empty_broker_url: str
) -> None:
    first, second, seen = threading.Event(), threading.Event(), list[bool]()

    def wait_for_second(event: Event, uow: UnitOfWork) -> None:
        if event.id == "WH-001":
            first.set()
            seen.append(second.wait(30))
        second.set()

    # The first event creates a key and locks it, which would block the second batch. So handle one event before.
    postgresql_pipeline.worker(HANDLERS).handle(store(postgresql_pipeline, "TEST.GOOD"))
    names = [f"WH-{number:03}" for number in range(1, 9)]
    postgresql_pipeline.store(*[delivery(happened(name, kind="TEST.MEET")) for name in names])
    parts = make_parts(
        postgresql_pipeline.url,
        postgresql_pipeline.folder,
        postgresql_pipeline.clock,
        {"TEST.MEET": wait_for_second},
        broker_url=empty_broker_url,
    )
    with running({"worker": parts}):
        put(parts.broker, names[:1])
        assert first.wait(30)
        for name in names[1:]:
            put(parts.broker, [name])
        until(lambda: set(postgresql_pipeline.states().values()) == {"handled"}, 60, "all events are handled")
    assert seen == [True]


def test_handled_and_unknown_ids_are_skipped(pipeline: PipelineUnderTest) -> None:
    worker, names = pipeline.worker(HANDLERS), store(pipeline, "TEST.GOOD", "TEST.GOOD", "TEST.UNHANDLED")
    worker.handle([names[0], names[0], "WH-unknown"])
    worker.handle([*names, "WH-unknown"])
    worker.handle(names)
    assert effects(pipeline) == names[:2]


def test_event_without_handler_is_ignored_with_a_reason(pipeline: PipelineUnderTest) -> None:
    pipeline.worker(HANDLERS).handle(store(pipeline, "TEST.UNHANDLED"))
    assert (pipeline.event("WH-000").state, pipeline.event("WH-000").reason) == (
        "ignored",
        "no handler for this type of event",
    )


def test_known_type_without_effect_is_ignored_with_paypals_reason(pipeline: PipelineUnderTest) -> None:
    pipeline.worker(HANDLERS).handle(store(pipeline, "VAULT.PAYMENT-TOKEN.CREATED"))
    assert (pipeline.event("WH-000").state, pipeline.event("WH-000").reason) == (
        "ignored",
        "kept: A saved payment method moves no money.",
    )


def test_each_event_of_a_batch_gets_its_own_reason(pipeline: PipelineUnderTest) -> None:
    types = ["VAULT.PAYMENT-TOKEN.CREATED", "TEST.UNHANDLED", "VAULT.PAYMENT-TOKEN.DELETED", "CATALOG.PRODUCT.CREATED"]
    names = store(pipeline, *types)
    pipeline.worker(HANDLERS).handle(names)
    assert [pipeline.event(name).reason for name in names] == [ignored_reason(each) for each in types]


@pytest.mark.parametrize("type", ["INVOICING.INVOICE.FORGIVEN", "VAULT", "TEST.VAULT.CREATED"])
def test_type_that_paypal_adds_later_stays_unknown(type: str) -> None:
    assert ignored_reason(type) == UNKNOWN


def test_handler_receives_the_content_of_the_body(pipeline: PipelineUnderTest) -> None:
    received: list[Event] = []
    resource = {
        "id": "I-ADA", "status": "ACTIVE", "update_time": "2026-03-01T11:00:00Z",
        "subscriber": {"email_address": "ada@example.com", "name": {"given_name": "Ada", "surname": "Whitfield"}},
    }  # fmt: skip
    kind = "BILLING.SUBSCRIPTION.UPDATED"
    pipeline.store(delivery(happened("WH-1", kind=kind, resource=resource)))
    pipeline.worker({kind: lambda event, uow: received.append(event)}).handle(["WH-1"])
    [event] = received
    assert (event.id, event.type, event.source) == ("WH-1", kind, "webhook")
    assert event.facts["subscription"] == "I-ADA"
    assert event.person["email"] == "ada@example.com"
    assert event.received_at == pipeline.now
    assert "ada@" not in repr(event)


def test_batch_is_handled_in_paypals_order(pipeline: PipelineUnderTest) -> None:
    seen: list[str] = []
    times = {
        "WH-0": "2026-03-01T11:00:02Z",
        "WH-1": "2026-03-01T11:00:01Z",
        "WH-2": "never",
        "WH-3": "2026-02-01T00:00:00Z",
    }
    pipeline.store(*[delivery(happened(name, create_time=time)) for name, time in times.items()])
    pipeline.worker({"TEST.HAPPENED": lambda event, uow: seen.append(event.id)}).handle(list(times))
    assert seen == ["WH-3", "WH-1", "WH-0", "WH-2"]


def test_event_of_erased_customer_is_handled_by_its_facts(pipeline: PipelineUnderTest) -> None:
    names = store(pipeline, "TEST.GOOD")
    pipeline.set(
        next(row for row in pipeline.rows(EncryptionKey) if row.key_id == "event:WH-000"),
        wrapped_key=None,
        erased_at=pipeline.now,
    )
    pipeline.worker(HANDLERS).handle(names)
    assert pipeline.states() == {"WH-000": "handled"}


def test_due_mails_are_published_after_the_commit(pipeline: PipelineUnderTest) -> None:
    def queue_mail(event: Event, uow: UnitOfWork) -> None:
        uow.add_mail(outbox.NewMail("receipt", f"receipt:{event.id}", None, {}))

    published: list[str] = []

    def publish(mails: list[str]) -> None:
        assert [row.id for row in pipeline.rows(Mail)] == sorted(mails)
        published.extend(mails)

    pipeline.worker({"TEST.MAIL": queue_mail}, on_mail=publish).handle(store(pipeline, "TEST.MAIL", "TEST.MAIL"))
    assert len(published) == 2
    pipeline.worker({"TEST.MAIL": queue_mail}, on_mail=publish).handle(["WH-000"])
    assert len(published) == 2
