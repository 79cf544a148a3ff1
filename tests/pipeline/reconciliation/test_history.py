"""An existing vendor's subscriptions are taken over: all states, with their payments, without mail, in any number of runs."""

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest

from handlers import HANDLERS
from pipeline.db.models import Event, Mail, Payment, Subscription
from pipeline.errors import UsageError
from pipeline.inbox import store as inbox
from pipeline.paypal.api import PaypalApi
from pipeline.paypal.rate_limit import TokenBucket
from pipeline.reconciliation.history import HistoryImport, ImportResult, ids_in_csv, sale_from_transaction
from pipeline.simulator.random_life import Life, random_life
from pipeline.simulator.server.api import FakePaypalApi
from pipeline.simulator.world import PaypalState
from tests.support.pipeline_under_test import PipelineUnderTest

LIVES = 30
NOW = datetime(2026, 12, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def lives() -> list[Life]:
    return [random_life(Random(seed), months=6) for seed in range(LIVES)]


@pytest.fixture
def world(lives: list[Life]) -> PaypalState:
    state = PaypalState()
    for delivery in sorted((each for life in lives for each in life.deliveries), key=lambda each: each.at):
        state.apply(delivery)
    return state


@pytest.fixture
def fake(world: PaypalState, sqlite_pipeline: PipelineUnderTest) -> FakePaypalApi:
    sqlite_pipeline.clock.move_to(NOW)
    return FakePaypalApi(world, clock=sqlite_pipeline.clock)


@pytest.fixture
def paypal(fake: FakePaypalApi) -> Iterator[PaypalApi]:
    with ExitStack() as stack:
        api = PaypalApi(stack.enter_context(fake.serve()), "simulator", "simulator-secret")
        stack.callback(api.close)
        yield api


def importer(pipeline: PipelineUnderTest, paypal: PaypalApi) -> HistoryImport:
    rate = TokenBucket(pipeline.clock)
    wait = lambda seconds: pipeline.clock.advance(timedelta(seconds=seconds))  # noqa: E731 - one line
    return HistoryImport(pipeline.database, pipeline.master, pipeline.clock, paypal, rate, wait)


def work(pipeline: PipelineUnderTest) -> None:
    pipeline.clock.advance(timedelta(hours=1))
    while True:
        with pipeline.database.transaction() as session:
            due = inbox.lease_due(session, pipeline.now, 500)
        if not due:
            return
        pipeline.worker(HANDLERS, may_read=True).handle(due)


def test_everything_is_taken_over_without_mail(
    sqlite_pipeline: PipelineUnderTest, paypal: PaypalApi, fake: FakePaypalApi, lives: list[Life]
) -> None:
    history = importer(sqlite_pipeline, paypal)
    assert history.total() == LIVES
    result = history.run(history.all_ids(), ImportResult(), lambda _: None)
    assert (result.listed, result.imported, result.skipped, result.stored, result.refused) == (
        LIVES,
        LIVES,
        0,
        LIVES,
        [],
    )
    assert {asked.partition(" ")[0] for asked in map(str, fake.asked)} <= {"GET", "POST"}
    work(sqlite_pipeline)
    truths = {life.truth.id: life.truth for life in lives}
    rows = {row.id: row for row in sqlite_pipeline.rows(Subscription)}
    assert {id: row.status for id, row in rows.items()} == {id: truth.status for id, truth in truths.items()}
    amounts = {row.id: (row.amount, row.currency) for row in sqlite_pipeline.rows(Payment)}
    assert amounts == {
        each.id: (each.gross, each.currency) for truth in truths.values() for each in truth.transactions.values()
    }
    mails = sqlite_pipeline.rows(Mail)
    assert len(mails) > LIVES
    assert {mail.state for mail in mails if mail.subscription_id} == {"withheld"}


@pytest.mark.parametrize("stopped_after", [0, 1, 7, 19, 29])
def test_import_that_was_stopped_is_continued(
    sqlite_pipeline: PipelineUnderTest, paypal: PaypalApi, stopped_after: int
) -> None:
    class StoppedError(Exception):
        pass

    done: list[int] = []

    def stop(number: int) -> None:
        done.append(number)
        if len(done) > stopped_after:
            raise StoppedError

    history = importer(sqlite_pipeline, paypal)
    with pytest.raises(StoppedError):
        history.run(history.all_ids(), ImportResult(), stop)
    result = history.run(history.all_ids(), ImportResult(), lambda _: None)
    assert (result.listed, result.imported + result.skipped, result.stored) == (LIVES, LIVES, LIVES)
    assert result.skipped == stopped_after + 1
    ids = [row.id for row in sqlite_pipeline.rows(Event)]
    assert len(ids) == len(set(ids))


def test_only_the_subscriptions_of_an_export_are_taken_over(
    sqlite_pipeline: PipelineUnderTest, paypal: PaypalApi, lives: list[Life], tmp_path: Path
) -> None:
    id = lives[0].truth.id
    file = tmp_path / "export.csv"
    file.write_text(
        f"id,ppcp_subscription\n1,{id}\n2,B-1AB23456CD789012E\n3,\n4,I-0000UNKNOWN0\n5,{id}\n6,odd\n", "utf-8"
    )
    result = ImportResult()
    ids = ids_in_csv(file, result)
    importer(sqlite_pipeline, paypal).run(iter(ids), result, lambda _: None)
    assert (result.listed, result.imported, result.stored) == (2, 1, 1)
    assert [what for what, _ in result.refused] == ["line 3", "line 4", "line 7", "I-0000UNKNOWN0"]
    assert result.refused[0][1].startswith("B-… is an agreement")


@pytest.mark.parametrize("content", ["id,email\n1,x\n", "", "\xff\xfe"])
def test_file_without_the_column_is_refused(content: str, tmp_path: Path) -> None:
    file = tmp_path / "export.csv"
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(UsageError, match=r"export\.csv"):
        ids_in_csv(file, ImportResult())


@pytest.mark.parametrize(
    "odd",
    [{}, {"id": 1}, {"id": "X", "status": "ODD", "amount_with_breakdown": {}}, {"id": "X", "status": "COMPLETED"}],
)
def test_odd_transaction_is_left_out(odd: dict[str, object]) -> None:
    assert sale_from_transaction(odd, "I-1") is None
