"""The database or the broker goes away: nothing is half done, and the batch comes again."""

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from pipeline.billing.unit_of_work import UnitOfWork
from pipeline.broker import Broker, BrokerUnavailableError
from pipeline.db.engine import DatabaseUnavailableError
from pipeline.db.models import Event as Row
from pipeline.inbox.event import Event
from pipeline.worker.worker import consume_until_stopped
from tests.support.broker_fixtures import put
from tests.support.pipeline_under_test import River
from tests.support.worker_fixtures import HANDLERS, effects, leave_a_row, run_until, store


@pytest.mark.parametrize("noticed", ["by the handler", "later"])
def test_a_connection_lost_in_the_middle_leaves_nothing_half_done_and_the_batch_comes_again(
    stream: River, broker: Broker, noticed: str
) -> None:
    cuts = [1]

    def cut(event: Event, uow: UnitOfWork) -> None:
        leave_a_row(event, uow)
        if cuts:
            cuts.pop()
            uow._session.flush()
            own = uow._session.execute(text("SELECT pg_backend_pid()")).scalar_one()
            with stream.database.transaction() as other:
                other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": own})
            if noticed == "by the handler":
                uow._session.execute(text("SELECT 1"))

    names = store(stream, *["TEST.GOOD"] * 5, "TEST.CUT", *["TEST.GOOD"] * 4)
    put(broker, names)
    with capture_logs() as logs:
        run_until(
            stream.worker({**HANDLERS, "TEST.CUT": cut}), broker, lambda: set(stream.states().values()) == {"handled"}
        )
    assert [line["event"] for line in logs] == ["store_down"]
    assert effects(stream) == names
    assert {row.attempts for row in stream.rows(Row)} == {0}, "it is no fault of any event"


def test_a_store_that_is_down_raises_with_nothing_half_done(river: River) -> None:
    def fail(event: Event, uow: UnitOfWork) -> None:
        raise DatabaseUnavailableError("gone")

    names = store(river, "TEST.GOOD", "TEST.DOWN", "TEST.GOOD")
    with pytest.raises(DatabaseUnavailableError):
        river.worker({**HANDLERS, "TEST.DOWN": fail}).handle(names)
    assert effects(river) == []
    assert set(river.states().values()) == {"received"}
    assert river.event(names[1]).attempts == 0, "it is no fault of the event"


def test_a_broker_that_goes_away_is_waited_for(brook: River) -> None:
    class Away:
        def take(self, limit: int, seconds: float) -> None:
            raise BrokerUnavailableError("gone")

    looks = iter([False, False, False, True, True])
    with capture_logs() as logs:
        consume_until_stopped(brook.worker({}), Away(), lambda seconds: next(looks))  # type: ignore[arg-type]
    assert [line["event"] for line in logs] == ["broker_down"] * 2
