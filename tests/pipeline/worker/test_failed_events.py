"""A failing event does not affect the others of its batch; it is retried after fixed delays, then parked."""

import os
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from pipeline.billing.unit_of_work import UnitOfWork
from pipeline.crypto.master_key import MasterKey, MasterKeyError
from pipeline.db.models import Customer, EncryptionKey, PaypalLookup
from pipeline.inbox import store as inbox
from pipeline.inbox.event import Event
from pipeline.worker.failed_events import RETRY_DELAYS
from tests.support.pipeline_under_test import PipelineUnderTest
from tests.support.worker_fixtures import HANDLERS, effects, leave_a_row, store


@pytest.mark.parametrize("failing", ["TEST.FAULT", "TEST.PARK", "TEST.LATER", "TEST.READ"])
@pytest.mark.parametrize("place", [0, 4, 9])
def test_failing_event_does_not_affect_its_batch(pipeline: PipelineUnderTest, failing: str, place: int) -> None:
    kinds = ["TEST.GOOD"] * 10
    kinds[place] = failing
    names = store(pipeline, *kinds)
    pipeline.worker(HANDLERS, may_read=True).handle(names)
    good = [name for name, kind in zip(names, kinds, strict=True) if kind == "TEST.GOOD"]
    assert [name for name, state in pipeline.states().items() if state == "handled"] == good
    assert effects(pipeline) == good, "the failed event has no effect"


def test_each_kind_of_failure_has_its_own_result(pipeline: PipelineUnderTest) -> None:
    names = store(
        pipeline, "TEST.FAULT", "TEST.GOOD", "TEST.PARK", "TEST.LATER", "TEST.UNHANDLED", "TEST.READ", "TEST.GOOD"
    )
    pipeline.worker(HANDLERS, may_read=True).handle(names)
    assert list(pipeline.states().values()) == [
        "received", "handled", "parked", "received", "ignored", "received", "handled",
    ]  # fmt: skip
    reasons = [pipeline.event(name).reason for name in names]
    assert reasons[2] == "nobody knows"
    assert reasons[3] == "too early"
    assert reasons[5] == "waits for sale SALE1 from PayPal"


def test_many_failing_events_of_a_batch_let_the_others_run_twice_at_most(sqlite_pipeline: PipelineUnderTest) -> None:
    """Refunds of a dashboard wait for a look-up; a batch with forty of them is not repeated forty times."""
    runs: list[str] = []

    def good(event: Event, uow: UnitOfWork) -> None:
        runs.append(event.id)

    names = store(sqlite_pipeline, *["TEST.GOOD", "TEST.READ"] * 40)
    sqlite_pipeline.worker({**HANDLERS, "TEST.GOOD": good}, may_read=True).handle(names)
    assert len(runs) == 80
    states = sqlite_pipeline.states()
    assert [states[name] for name in names] == ["handled", "received"] * 40


def test_undecryptable_event_does_not_affect_its_batch(pipeline: PipelineUnderTest) -> None:
    names = store(pipeline, "TEST.GOOD", "TEST.GOOD", "TEST.GOOD")
    pipeline.set(
        next(row for row in pipeline.rows(EncryptionKey) if row.key_id == f"event:{names[1]}"),
        wrapped_key=b"a broken row of a good table",
    )
    pipeline.worker(HANDLERS).handle(names)
    assert effects(pipeline) == [names[0], names[2]]
    assert pipeline.event(names[1]).state == "received"


def test_wrong_master_key_parks_no_event(pipeline: PipelineUnderTest) -> None:
    """The worker stops with an error that its supervisor sees, and nothing is parked."""
    names = store(pipeline, "TEST.GOOD", "TEST.GOOD")
    pipeline.master = MasterKey(os.urandom(32))
    with pytest.raises(MasterKeyError, match="restore the right key file"):
        pipeline.worker(HANDLERS).handle(names)
    assert set(pipeline.states().values()) == {"received"}
    assert pipeline.event(names[0]).attempts == 0


def test_database_error_of_one_event_does_not_affect_its_batch(pipeline: PipelineUnderTest) -> None:
    def insert_twice(event: Event, uow: UnitOfWork) -> None:
        uow._session.add_all([Customer(id=event.id, created_at=uow.now), Customer(id=event.id, created_at=uow.now)])

    names = store(pipeline, "TEST.GOOD", "TEST.TWICE", "TEST.GOOD")
    pipeline.worker({**HANDLERS, "TEST.TWICE": insert_twice}).handle(names)
    assert effects(pipeline) == [names[0], names[2]]
    assert "internal error at " in (pipeline.event(names[1]).reason or "")


# Retries


def test_failing_handler_is_retried_after_delays_then_parked(pipeline: PipelineUnderTest) -> None:
    [name] = store(pipeline, "TEST.FAULT")
    worker, waited = pipeline.worker(HANDLERS), list[timedelta]()
    worker.handle([name])
    while (row := pipeline.event(name)).state == "received":
        assert row.due_at
        waited.append(row.due_at - pipeline.now)
        pipeline.clock.move_to(row.due_at)
        with pipeline.database.transaction() as session:
            assert inbox.lease_due(session, pipeline.now, 10) == [name]
        worker.handle([name])
    assert waited == [
        timedelta(seconds=10),
        timedelta(minutes=1),
        timedelta(minutes=10),
        timedelta(hours=1),
        timedelta(hours=6),
    ]
    assert tuple(waited) == RETRY_DELAYS
    assert (row.state, row.due_at) == ("parked", None)
    assert row.reason
    assert row.reason.startswith("its handler failed 6 times: internal error at tests.support.worker_fixtures:")


def test_event_is_handled_after_its_handler_is_fixed(pipeline: PipelineUnderTest) -> None:
    [name] = store(pipeline, "TEST.FAULT")
    pipeline.worker(HANDLERS).handle([name])
    pipeline.worker({"TEST.FAULT": leave_a_row}).handle([name])
    assert (pipeline.event(name).state, pipeline.event(name).reason) == ("handled", None)


def test_personal_data_in_an_error_is_neither_logged_nor_stored(pipeline: PipelineUnderTest) -> None:
    [name] = store(pipeline, "TEST.FAULT")
    with capture_logs() as logs:
        pipeline.worker(HANDLERS).handle([name])
    assert [line["event"] for line in logs] == ["handler_failed"]
    assert "ada" not in str(logs)
    assert pipeline.event(name).reason
    assert "ada" not in str(pipeline.event(name).reason)


def test_retry_later_has_no_limit(pipeline: PipelineUnderTest) -> None:
    [name] = store(pipeline, "TEST.LATER")
    for _ in range(20):
        pipeline.worker(HANDLERS).handle([name])
        row = pipeline.event(name)
        assert (row.state, row.attempts, row.due_at) == ("received", 0, pipeline.now + timedelta(minutes=7))
        pipeline.clock.advance(timedelta(minutes=7))


def test_missing_fact_parks_the_event_without_credentials(pipeline: PipelineUnderTest) -> None:
    [name] = store(pipeline, "TEST.READ")
    pipeline.worker(HANDLERS, may_read=False).handle([name])
    row = pipeline.event(name)
    assert row.state == "parked"
    assert row.reason
    assert row.reason.startswith("needs sale SALE1 from PayPal, and no API credentials are set (SMT_PAYPAL_CLIENT_ID")
    assert pipeline.count(PaypalLookup) == 0


def test_missing_fact_of_several_events_is_looked_up_once(pipeline: PipelineUnderTest) -> None:
    names = store(pipeline, "TEST.READ", "TEST.READ")
    worker = pipeline.worker(HANDLERS, may_read=True)
    worker.handle(names)
    pipeline.clock.advance(timedelta(minutes=1))
    worker.handle(names)
    [look_up] = pipeline.rows(PaypalLookup)
    assert (look_up.kind, look_up.id) == ("sale", "SALE1")
    assert pipeline.event(names[0]).attempts == 0
