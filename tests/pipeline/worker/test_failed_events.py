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
from tests.support.pipeline_under_test import River
from tests.support.worker_fixtures import HANDLERS, effects, leave_a_row, store


@pytest.mark.parametrize("failing", ["TEST.FAULT", "TEST.PARK", "TEST.LATER", "TEST.READ"])
@pytest.mark.parametrize("place", [0, 4, 9])
def test_failing_event_does_not_affect_its_batch(river: River, failing: str, place: int) -> None:
    kinds = ["TEST.GOOD"] * 10
    kinds[place] = failing
    names = store(river, *kinds)
    river.worker(HANDLERS, may_read=True).handle(names)
    good = [name for name, kind in zip(names, kinds, strict=True) if kind == "TEST.GOOD"]
    assert [name for name, state in river.states().items() if state == "handled"] == good
    assert effects(river) == good, "the failed event has no effect"


def test_each_kind_of_failure_has_its_own_result(river: River) -> None:
    names = store(
        river, "TEST.FAULT", "TEST.GOOD", "TEST.PARK", "TEST.LATER", "TEST.UNHANDLED", "TEST.READ", "TEST.GOOD"
    )
    river.worker(HANDLERS, may_read=True).handle(names)
    assert list(river.states().values()) == [
        "received", "handled", "parked", "received", "ignored", "received", "handled",
    ]  # fmt: skip
    reasons = [river.event(name).reason for name in names]
    assert reasons[2] == "nobody knows"
    assert reasons[3] == "too early"
    assert reasons[5] == "waits for sale SALE1 from PayPal"


def test_undecryptable_event_does_not_affect_its_batch(river: River) -> None:
    names = store(river, "TEST.GOOD", "TEST.GOOD", "TEST.GOOD")
    river.set(
        next(row for row in river.rows(EncryptionKey) if row.key_id == names[1]),
        wrapped_key=b"a broken row of a good table",
    )
    river.worker(HANDLERS).handle(names)
    assert effects(river) == [names[0], names[2]]
    assert river.event(names[1]).state == "received"


def test_wrong_master_key_parks_no_event(river: River) -> None:
    """The worker stops with an error that its supervisor sees, and nothing is parked."""
    names = store(river, "TEST.GOOD", "TEST.GOOD")
    river.master = MasterKey(os.urandom(32))
    with pytest.raises(MasterKeyError, match="restore the right key file"):
        river.worker(HANDLERS).handle(names)
    assert set(river.states().values()) == {"received"}
    assert river.event(names[0]).attempts == 0


def test_database_error_of_one_event_does_not_affect_its_batch(river: River) -> None:
    def insert_twice(event: Event, uow: UnitOfWork) -> None:
        uow._session.add_all([Customer(id=event.id, created_at=uow.now), Customer(id=event.id, created_at=uow.now)])

    names = store(river, "TEST.GOOD", "TEST.TWICE", "TEST.GOOD")
    river.worker({**HANDLERS, "TEST.TWICE": insert_twice}).handle(names)
    assert effects(river) == [names[0], names[2]]
    assert "IntegrityError" in (river.event(names[1]).reason or "")


# Retries


def test_failing_handler_is_retried_after_delays_then_parked(river: River) -> None:
    [name] = store(river, "TEST.FAULT")
    worker, waited = river.worker(HANDLERS), list[timedelta]()
    worker.handle([name])
    while (row := river.event(name)).state == "received":
        assert row.due_at
        waited.append(row.due_at - river.now)
        river.clock.move_to(row.due_at)
        with river.database.transaction() as session:
            assert inbox.lease_due(session, river.now, 10) == [name]
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
    assert row.reason.startswith("its handler failed 6 times: ValueError at tests.support.worker_fixtures:")


def test_event_is_handled_after_its_handler_is_fixed(river: River) -> None:
    [name] = store(river, "TEST.FAULT")
    river.worker(HANDLERS).handle([name])
    river.worker({"TEST.FAULT": leave_a_row}).handle([name])
    assert (river.event(name).state, river.event(name).reason) == ("handled", None)


def test_personal_data_in_an_error_is_neither_logged_nor_stored(river: River) -> None:
    [name] = store(river, "TEST.FAULT")
    with capture_logs() as logs:
        river.worker(HANDLERS).handle([name])
    assert [line["event"] for line in logs] == ["handler_failed"]
    assert "ada" not in str(logs)
    assert river.event(name).reason
    assert "ada" not in str(river.event(name).reason)


def test_retry_later_has_no_limit(river: River) -> None:
    [name] = store(river, "TEST.LATER")
    for _ in range(20):
        river.worker(HANDLERS).handle([name])
        row = river.event(name)
        assert (row.state, row.attempts, row.due_at) == ("received", 0, river.now + timedelta(minutes=7))
        river.clock.advance(timedelta(minutes=7))


def test_missing_fact_parks_the_event_without_credentials(river: River) -> None:
    [name] = store(river, "TEST.READ")
    river.worker(HANDLERS, may_read=False).handle([name])
    row = river.event(name)
    assert row.state == "parked"
    assert row.reason
    assert row.reason.startswith("needs sale SALE1 from PayPal, and no API credentials are set (SMT_PAYPAL_CLIENT_ID")
    assert river.count(PaypalLookup) == 0


def test_missing_fact_of_several_events_is_looked_up_once(river: River) -> None:
    names = store(river, "TEST.READ", "TEST.READ")
    worker = river.worker(HANDLERS, may_read=True)
    worker.handle(names)
    river.clock.advance(timedelta(minutes=1))
    worker.handle(names)
    [look_up] = river.rows(PaypalLookup)
    assert (look_up.kind, look_up.id) == ("sale", "SALE1")
    assert river.event(names[0]).attempts == 0
