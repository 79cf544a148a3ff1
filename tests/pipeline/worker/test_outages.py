"""If the database or the broker goes down, the transaction is rolled back and the batch is delivered again."""

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
from tests.support.pipeline_under_test import PipelineUnderTest
from tests.support.worker_fixtures import HANDLERS, effects, leave_a_row, run_until, store


@pytest.mark.parametrize("noticed", ["by the handler", "later"])
def test_batch_is_delivered_again_after_a_lost_database_connection(
    postgresql_pipeline: PipelineUnderTest, broker: Broker, noticed: str
) -> None:
    disconnections = [1]

    def disconnect(event: Event, uow: UnitOfWork) -> None:
        leave_a_row(event, uow)
        if disconnections:
            disconnections.pop()
            uow._session.flush()
            backend_pid = uow._session.execute(text("SELECT pg_backend_pid()")).scalar_one()
            with postgresql_pipeline.database.transaction() as other:
                other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": backend_pid})
            if noticed == "by the handler":
                uow._session.execute(text("SELECT 1"))

    names = store(postgresql_pipeline, *["TEST.GOOD"] * 5, "TEST.CUT", *["TEST.GOOD"] * 4)
    put(broker, names)
    with capture_logs() as logs:
        run_until(
            postgresql_pipeline.worker({**HANDLERS, "TEST.CUT": disconnect}),
            broker,
            lambda: set(postgresql_pipeline.states().values()) == {"handled"},
        )
    assert [line["event"] for line in logs] == ["store_down"]
    assert effects(postgresql_pipeline) == names
    assert {row.attempts for row in postgresql_pipeline.rows(Row)} == {0}, "an outage is not a failed attempt"


def test_database_outage_rolls_back_the_batch(pipeline: PipelineUnderTest) -> None:
    def fail(event: Event, uow: UnitOfWork) -> None:
        raise DatabaseUnavailableError("gone")

    names = store(pipeline, "TEST.GOOD", "TEST.DOWN", "TEST.GOOD")
    with pytest.raises(DatabaseUnavailableError):
        pipeline.worker({**HANDLERS, "TEST.DOWN": fail}).handle(names)
    assert effects(pipeline) == []
    assert set(pipeline.states().values()) == {"received"}
    assert pipeline.event(names[1]).attempts == 0, "an outage is not a failed attempt"


def test_worker_waits_while_the_broker_is_down(sqlite_pipeline: PipelineUnderTest) -> None:
    class BrokerDown:
        def receive(self, limit: int, seconds: float) -> None:
            raise BrokerUnavailableError("gone")

    answers = iter([False, False, False, True, True])
    with capture_logs() as logs:
        consume_until_stopped(sqlite_pipeline.worker({}), BrokerDown(), lambda seconds: next(answers))  # type: ignore[arg-type]
    assert [line["event"] for line in logs] == ["broker_down"] * 2
