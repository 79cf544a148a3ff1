"""What no message brings: handled straight from the table, in time, once, and by one."""

from collections.abc import Mapping
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from pipeline.billing.unit_of_work import Handler, UnitOfWork
from pipeline.broker import Broker
from pipeline.db.engine import DatabaseUnavailableError
from pipeline.inbox import store as inbox
from pipeline.inbox.event import Event, RetryLater
from pipeline.inbox.store import PUBLISH_GRACE, QUIET_BROKER_GRACE
from pipeline.worker.recovery import QUIET_SECONDS, InboxRecovery
from pipeline.worker.worker import BATCH
from tests.support.broker_fixtures import put
from tests.support.pipeline_under_test import HAPPENED, River, delivery, happened

LATER = timedelta(minutes=7)


def nothing(event: Event, uow: UnitOfWork) -> None:
    """A handler that is content."""


def later(event: Event, uow: UnitOfWork) -> None:
    raise RetryLater(LATER, "too early")


def sweep_of(river: River, handlers: Mapping[str, Handler] | None = None, quiet: float = 0.0) -> InboxRecovery:
    return InboxRecovery(river.worker(handlers or {HAPPENED: nothing}), river.database, river.clock, lambda: quiet)


def webhooks(river: River, count: int) -> None:
    river.store(*[delivery(happened(f"WH-{number}"), f"T-{number}") for number in range(count)])


def test_what_came_without_a_message_is_handled_at_once(river: River) -> None:
    river.store(delivery(happened(), source="import"))
    assert sweep_of(river).once() == 1
    assert river.states() == {"WH-1": "handled"}
    assert sweep_of(river).once() == 0


def test_what_was_to_be_tried_later_is_tried_then_however_quiet_the_broker(river: River) -> None:
    webhooks(river, 1)
    sweep = sweep_of(river, {HAPPENED: later}, QUIET_SECONDS)
    river.clock.advance(QUIET_BROKER_GRACE)
    assert sweep.once() == 1
    for advance in (timedelta(0), LATER - PUBLISH_GRACE, PUBLISH_GRACE - timedelta(seconds=1)):
        river.clock.advance(advance)
        assert sweep.once() == 0
    river.clock.advance(timedelta(seconds=1))
    assert sweep_of(river).once() == 1
    assert river.states() == {"WH-0": "handled"}


def test_an_event_is_left_to_its_message_while_the_broker_brings_some(river: River) -> None:
    webhooks(river, 3)
    sweep = sweep_of(river, quiet=QUIET_SECONDS - 0.1)
    river.clock.advance(PUBLISH_GRACE - timedelta(seconds=1))
    assert sweep.once() == 0
    river.clock.advance(timedelta(seconds=1))
    assert sweep.once() == 3


def test_while_the_broker_is_quiet_an_event_nobody_has_tried_is_not_left_waiting(river: River) -> None:
    webhooks(river, 3)
    sweep = sweep_of(river, quiet=QUIET_SECONDS)
    river.clock.advance(QUIET_BROKER_GRACE - timedelta(seconds=1))
    assert sweep.once() == 0, "its message may be on its way"
    river.clock.advance(timedelta(seconds=1))
    assert sweep.once() == 3
    assert set(river.states().values()) == {"handled"}


def test_what_another_handles_is_left_to_it(stream: River) -> None:
    stream.store(*[delivery(happened(f"WH-{number}"), source="import") for number in range(4)])
    with stream.database.transaction() as session:
        assert len(inbox.lock_received(session, ["WH-0", "WH-1"])) == 2
        assert sweep_of(stream).once() == 2
        assert sweep_of(stream).once() == 0
    assert sweep_of(stream).once() == 2


def test_a_sweep_goes_on_where_there_is_more_and_waits_where_there_is_not(river: River) -> None:
    river.store(*[delivery(happened(f"WH-{number}"), source="import") for number in range(BATCH + 1)])
    waited: list[float] = []

    def stop(seconds: float) -> bool:
        waited.append(seconds)
        return len(waited) > 3

    sweep_of(river).run(stop)
    assert [seconds > 0 for seconds in waited] == [True, False, True, True]
    assert set(river.states().values()) == {"handled"}


def test_a_sweep_outlives_a_store_that_is_down(river: River, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep, looks = sweep_of(river), [False, False, True]

    def away() -> int:
        raise DatabaseUnavailableError("gone")

    monkeypatch.setattr(sweep, "once", away)
    with capture_logs() as logs:
        sweep.run(lambda _: looks.pop(0))
    assert [line["event"] for line in logs] == ["store_down"] * 2


def test_an_inlet_tells_how_long_it_has_heard_nothing() -> None:
    broker = Broker("memory://")
    with broker.consumer("events") as inlet:
        assert inlet.receive(10, 0.05) is None
        quiet = inlet.idle_seconds()
        assert quiet >= 0.05
        put(broker, ["WH-1"])
        assert inlet.receive(10, 1.0) is not None
        assert inlet.idle_seconds() < quiet
