"""A bad event affects no neighbour; it is tried again after fixed delays, then parked."""

import os
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from pipeline.billing.unit_of_work import UnitOfWork
from pipeline.crypto.master_key import MasterKey, MasterKeyError
from pipeline.db.models import Customer, EncryptionKey
from pipeline.db.models import PaypalLookup as Question
from pipeline.inbox import store as inbox
from pipeline.inbox.event import Event
from pipeline.worker.failed_events import RETRY_DELAYS
from tests.support.pipeline_under_test import River
from tests.support.worker_fixtures import HANDLERS, effects, leave_a_row, store


@pytest.mark.parametrize("bad", ["TEST.FAULT", "TEST.PARK", "TEST.LATER", "TEST.READ"])
@pytest.mark.parametrize("place", [0, 4, 9])
def test_one_bad_event_never_takes_its_neighbours_with_it(river: River, bad: str, place: int) -> None:
    kinds = ["TEST.GOOD"] * 10
    kinds[place] = bad
    names = store(river, *kinds)
    river.worker(HANDLERS, may_read=True).handle(names)
    good = [name for name, kind in zip(names, kinds, strict=True) if kind == "TEST.GOOD"]
    assert [name for name, state in river.states().items() if state == "handled"] == good
    assert effects(river) == good, "of the bad one nothing is left"


def test_bad_events_of_every_kind_in_one_batch_end_each_in_its_own_way(river: River) -> None:
    names = store(river, "TEST.FAULT", "TEST.GOOD", "TEST.PARK", "TEST.LATER", "TEST.NOBODY", "TEST.READ", "TEST.GOOD")
    river.worker(HANDLERS, may_read=True).handle(names)
    assert list(river.states().values()) == [
        "received", "handled", "parked", "received", "ignored", "received", "handled",
    ]  # fmt: skip
    reasons = [river.event(name).reason for name in names]
    assert reasons[2] == "nobody knows"
    assert reasons[3] == "too early"
    assert reasons[5] == "waits for sale SALE1 from PayPal"


def test_a_row_that_cannot_be_opened_harms_nobody_else(river: River) -> None:
    names = store(river, "TEST.GOOD", "TEST.GOOD", "TEST.GOOD")
    river.set(
        next(row for row in river.rows(EncryptionKey) if row.key_id == names[1]),
        wrapped_key=b"a broken row of a good table",
    )
    river.worker(HANDLERS).handle(names)
    assert effects(river) == [names[0], names[2]]
    assert river.event(names[1]).state == "received"


def test_the_wrong_master_key_is_no_events_fault(river: River) -> None:
    """The worker ends, its supervisor sees it, and nothing is parked."""
    names = store(river, "TEST.GOOD", "TEST.GOOD")
    river.master = MasterKey(os.urandom(32))
    with pytest.raises(MasterKeyError, match="restore the right key file"):
        river.worker(HANDLERS).handle(names)
    assert set(river.states().values()) == {"received"}
    assert river.event(names[0]).attempts == 0


def test_an_effect_that_the_database_refuses_harms_nobody_else(river: River) -> None:
    def twice(event: Event, uow: UnitOfWork) -> None:
        uow._session.add_all([Customer(id=event.id, created_at=uow.now), Customer(id=event.id, created_at=uow.now)])

    names = store(river, "TEST.GOOD", "TEST.TWICE", "TEST.GOOD")
    river.worker({**HANDLERS, "TEST.TWICE": twice}).handle(names)
    assert effects(river) == [names[0], names[2]]
    assert "IntegrityError" in (river.event(names[1]).reason or "")


# Again, later


def test_a_handler_that_fails_is_tried_again_after_the_delays_and_then_parked(river: River) -> None:
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


def test_a_handler_that_was_mended_meanwhile_handles_it(river: River) -> None:
    [name] = store(river, "TEST.FAULT")
    river.worker(HANDLERS).handle([name])
    river.worker({"TEST.FAULT": leave_a_row}).handle([name])
    assert (river.event(name).state, river.event(name).reason) == ("handled", None)


def test_what_a_handler_quotes_of_a_person_is_in_no_reason_and_no_log(river: River) -> None:
    [name] = store(river, "TEST.FAULT")
    with capture_logs() as logs:
        river.worker(HANDLERS).handle([name])
    assert [line["event"] for line in logs] == ["handler_failed"]
    assert "ada" not in str(logs)
    assert river.event(name).reason
    assert "ada" not in str(river.event(name).reason)


def test_an_event_that_is_too_early_is_tried_again_as_often_as_it_takes(river: River) -> None:
    [name] = store(river, "TEST.LATER")
    for _ in range(20):
        river.worker(HANDLERS).handle([name])
        row = river.event(name)
        assert (row.state, row.attempts, row.due_at) == ("received", 0, river.now + timedelta(minutes=7))
        river.clock.advance(timedelta(minutes=7))


def test_a_fact_that_lacks_parks_the_event_where_nobody_can_be_asked(river: River) -> None:
    [name] = store(river, "TEST.READ")
    river.worker(HANDLERS, may_read=False).handle([name])
    row = river.event(name)
    assert row.state == "parked"
    assert row.reason
    assert row.reason.startswith("needs sale SALE1 from PayPal, and no API credentials are set (SMT_PAYPAL_CLIENT_ID")
    assert river.count(Question) == 0


def test_a_fact_that_lacks_is_asked_for_once_however_many_lack_it(river: River) -> None:
    names = store(river, "TEST.READ", "TEST.READ")
    worker = river.worker(HANDLERS, may_read=True)
    worker.handle(names)
    river.clock.advance(timedelta(minutes=1))
    worker.handle(names)
    [question] = river.rows(Question)
    assert (question.kind, question.id) == ("sale", "SALE1")
    assert river.event(names[0]).attempts == 0
