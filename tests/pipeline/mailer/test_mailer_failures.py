"""Failures of the database, the relay and the mailer: no mail is lost, and none is sent twice."""

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from pipeline.db.engine import DatabaseUnavailableError
from pipeline.db.models import Mail
from pipeline.mailer.mailer import CLAIM, Mailer
from pipeline.mailer.smtp_relay import Relay
from pipeline.operations import heartbeat
from pipeline.outbox import store as outbox
from tests.support import run_role
from tests.support.misbehaving_relay import MisbehavingRelay, Serve
from tests.support.outbox_fixtures import SENDER, TEMPLATES, Make, meet, only, owe, receipt, scheduler, states
from tests.support.pipeline_under_test import PipelineUnderTest
from tests.support.subprocesses import ManagedProcess, until

# The database is unavailable


async def test_unrecorded_result_is_recorded_before_next_claim(
    pipeline: PipelineUnderTest, serve: Serve, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    meet(pipeline)
    owe(pipeline)
    fake_relay = MisbehavingRelay()
    mailer = make(await serve(fake_relay))

    def fail_to_connect(*_: object) -> None:
        raise DatabaseUnavailableError("connection refused")

    monkeypatch.setattr("pipeline.mailer.mailer.outbox.record_results", fail_to_connect)
    for _ in range(3):
        with pytest.raises(DatabaseUnavailableError):
            await mailer.send_due()
    assert states(pipeline) == ["sending"]
    assert scheduler(pipeline).free_claims() == 0
    monkeypatch.undo()
    assert await mailer.send_due() == 0
    assert states(pipeline) == ["sent"]
    assert len(fake_relay.received) == 1


def fail_after_commit(transaction: Callable[[], Any]) -> Callable[[], Any]:
    """Wrap `transaction` so that it raises an error after its commit."""

    @contextlib.contextmanager
    def failing() -> Iterator[Any]:
        with transaction() as session:
            yield session
        raise DatabaseUnavailableError("the connection was lost")

    return failing


def fail(*_: object) -> None:
    raise DatabaseUnavailableError("connection refused")


async def test_claim_with_unknown_commit_is_released(
    pipeline: PipelineUnderTest, serve: Serve, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The claim was committed, but the mailer got an error instead of the confirmation."""
    meet(pipeline)
    owe(pipeline, 2)
    fake_relay = MisbehavingRelay()
    mailer = make(await serve(fake_relay))
    with monkeypatch.context() as broken:
        broken.setattr(pipeline.database, "transaction", fail_after_commit(pipeline.database.transaction))
        with pytest.raises(DatabaseUnavailableError):
            await asyncio.to_thread(mailer._claim)
    assert states(pipeline) == ["sending", "sending"]
    assert await mailer.send_due() == 2
    assert states(pipeline) == ["sent", "sent"]
    assert len(fake_relay.received) == 2


async def test_claim_with_unknown_commit_is_released_after_second_failure(
    pipeline: PipelineUnderTest, serve: Serve, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restarting database closes all connections and may be unavailable a second time."""
    meet(pipeline)
    owe(pipeline)
    mailer = make(await serve(MisbehavingRelay()))
    with monkeypatch.context() as broken:
        broken.setattr(pipeline.database, "transaction", fail_after_commit(pipeline.database.transaction))
        with pytest.raises(DatabaseUnavailableError):
            await asyncio.to_thread(mailer._claim)
    with monkeypatch.context() as broken:
        broken.setattr("pipeline.mailer.liveness.ClaimLiveness.check", lambda _: False)
        broken.setattr("pipeline.mailer.mailer.outbox.release_claims", fail)
        with pytest.raises(DatabaseUnavailableError):
            await asyncio.to_thread(mailer._claim)
    assert await mailer.send_due() == 1
    assert states(pipeline) == ["sent"]


async def test_mail_being_sent_is_not_released_with_failed_claim(
    pipeline: PipelineUnderTest, serve: Serve, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    meet(pipeline)
    owe(pipeline)
    fake_relay, stop, wakeup = MisbehavingRelay(DOT=["hang"]), asyncio.Event(), asyncio.Event()
    mailer = make(await serve(fake_relay))
    running = asyncio.create_task(mailer.run(stop, wakeup))
    await fake_relay.hanging.wait()
    claim, failed = outbox.claim, asyncio.Event()
    loop = asyncio.get_running_loop()

    def claim_and_fail(session: Any, *arguments: Any) -> Any:
        claim(session, *arguments)
        session.commit()
        loop.call_soon_threadsafe(failed.set)
        raise DatabaseUnavailableError("the connection was lost")

    monkeypatch.setattr("pipeline.mailer.mailer.outbox.claim", claim_and_fail)
    owe(pipeline, 3)
    wakeup.set()
    await failed.wait()
    monkeypatch.undo()
    monkeypatch.setattr("pipeline.mailer.mailer.POLL_SECONDS", 0.02)
    await asyncio.sleep(0.5)
    fake_relay.opened.set()
    while states(pipeline) != ["sent"] * 3:
        await asyncio.sleep(0.01)
    stop.set()
    await running
    assert len(fake_relay.received) == 3


async def test_mailer_stops_while_database_is_unavailable(
    pipeline: PipelineUnderTest, serve: Serve, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    meet(pipeline)
    owe(pipeline)
    fake_relay, stop = MisbehavingRelay(), asyncio.Event()

    def fail_to_connect(*_: object) -> None:
        raise DatabaseUnavailableError("connection refused")

    monkeypatch.setattr("pipeline.mailer.mailer.outbox.record_results", fail_to_connect)
    running = asyncio.create_task(make(await serve(fake_relay)).run(stop, asyncio.Event()))
    while not fake_relay.received:
        await asyncio.sleep(0.01)
    stop.set()
    await running
    assert states(pipeline) == ["sending"], "the relay's log resolves this mail later"


async def test_slow_mail_does_not_delay_others(pipeline: PipelineUnderTest, serve: Serve, make: Make) -> None:
    meet(pipeline)
    owe(pipeline, CLAIM + 3)
    fake_relay, stop = MisbehavingRelay(DOT=["hang"]), asyncio.Event()
    running = asyncio.create_task(make(await serve(fake_relay)).run(stop, asyncio.Event()))
    while states(pipeline) != ["sending"] + ["sent"] * (CLAIM + 2):
        await asyncio.sleep(0.02)
    fake_relay.opened.set()
    stop.set()
    await running
    assert states(pipeline) == ["sent"] * (CLAIM + 3)


async def test_mailer_uses_new_name_after_losing_its_lock(postgresql_pipeline: PipelineUnderTest, serve: Serve) -> None:
    meet(postgresql_pipeline)
    owe(postgresql_pipeline)
    fake_relay = MisbehavingRelay(DOT=["hang"])
    relay = Relay(await serve(fake_relay), connections=2)
    mailer = Mailer(
        postgresql_pipeline.database, postgresql_pipeline.master, postgresql_pipeline.clock, TEMPLATES, relay, SENDER
    )
    sending = asyncio.create_task(mailer.send_due())
    await fake_relay.hanging.wait()
    with postgresql_pipeline.database.transaction() as session:
        session.execute(text("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"))
    while not await asyncio.to_thread(scheduler(postgresql_pipeline).free_claims):
        await asyncio.sleep(0.01)
    assert states(postgresql_pipeline) == ["doubt"], "without its lock the mailer counts as dead"
    fake_relay.opened.set()
    await sending
    assert states(postgresql_pipeline) == ["sent"], "the holder records the real outcome"
    first = only(postgresql_pipeline).claimed_by
    postgresql_pipeline.owe(receipt(2))
    await mailer.send_due()
    assert postgresql_pipeline.mails()["receipt:SALE2"].claimed_by != first
    await mailer.close()


# The mailer dies


async def start_hanging_mailer(
    pipeline: PipelineUnderTest, fake_relay: MisbehavingRelay, url: str, folder: Path, *more: tuple[str, str]
) -> ManagedProcess:
    """Start a mailer process that has transmitted a mail's text and waits for the answer."""
    meet(pipeline)
    owe(pipeline)
    mailer = run_role.start(
        "mailer", folder, data_dir=pipeline.folder, database_url=pipeline.url, smtp_url=url, **dict(more)
    )
    await asyncio.wait_for(fake_relay.hanging.wait(), 60)
    return mailer


@pytest.mark.slow
async def test_killed_mailer_leaves_mail_in_doubt(
    pipeline: PipelineUnderTest, serve: Serve, make: Make, tmp_path: Path
) -> None:
    fake_relay = MisbehavingRelay(DOT=["hang"])
    url = await serve(fake_relay)
    mailer = await start_hanging_mailer(pipeline, fake_relay, url, tmp_path)
    assert scheduler(pipeline).free_claims() == 0, "the mailer is alive"
    assert states(pipeline) == ["sending"]
    mailer.end(kill=True)
    while not await asyncio.to_thread(scheduler(pipeline).free_claims):
        await asyncio.sleep(0.01)
    row = only(pipeline)
    assert (row.state, row.reason) == ("doubt", "its mailer died while sending it")
    assert await make(url).send_due() == 0
    assert len(fake_relay.received) == 1


@pytest.mark.slow
async def test_suspended_mailer_keeps_its_claim(pipeline: PipelineUnderTest, serve: Serve, tmp_path: Path) -> None:
    """With a timer, its claim would end, and the mail would be sent twice after it continues."""
    fake_relay = MisbehavingRelay(DOT=["hang"])
    mailer = await start_hanging_mailer(pipeline, fake_relay, await serve(fake_relay), tmp_path)
    os.killpg(mailer.pid, signal.SIGSTOP)
    pipeline.clock.advance(timedelta(days=365))
    assert scheduler(pipeline).free_claims() == 0
    assert states(pipeline) == ["sending"]
    os.killpg(mailer.pid, signal.SIGCONT)
    fake_relay.opened.set()
    while states(pipeline) != ["sent"]:
        await asyncio.sleep(0.01)
    assert await asyncio.to_thread(mailer.end) == 0
    assert len(fake_relay.received) == 1


@pytest.mark.slow
async def test_mailer_writes_heartbeat_while_relay_hangs(
    sqlite_pipeline: PipelineUnderTest, serve: Serve, tmp_path: Path
) -> None:
    owe(sqlite_pipeline, 2 * CLAIM + 1)
    fake_relay, file = MisbehavingRelay(DOT=["hang"]), heartbeat.path_of(sqlite_pipeline.folder, "mailer")
    mailer = await start_hanging_mailer(
        sqlite_pipeline, fake_relay, await serve(fake_relay), tmp_path, ("smtp_connections", "1")
    )
    while states(sqlite_pipeline).count("sending") < 2 * CLAIM:
        await asyncio.sleep(0.01)
    os.utime(file, (0, 0))
    await asyncio.to_thread(until, lambda: file.stat().st_mtime > 0, 20, "a heartbeat while all mails wait")
    fake_relay.opened.set()
    assert await asyncio.to_thread(mailer.end) == 0


async def test_database_error_does_not_fail_the_mail(
    pipeline: PipelineUnderTest, serve: Serve, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    meet(pipeline)
    owe(pipeline, 2)
    mailer = make(await serve(MisbehavingRelay()))
    with monkeypatch.context() as broken:
        broken.setattr("pipeline.mailer.mailer.RecipientResolver.resolve", raise_disk_error)
        with pytest.raises(DatabaseUnavailableError):
            await mailer.send_due()
    assert states(pipeline) == ["queued", "queued"]
    assert await mailer.send_due() == 2
    assert states(pipeline) == ["sent", "sent"]


def raise_disk_error(*_: object) -> None:
    raise OperationalError("SELECT", {}, OSError("disk I/O error"))


async def test_stopped_mailer_returns_unstarted_mails(pipeline: PipelineUnderTest, serve: Serve, make: Make) -> None:
    meet(pipeline)
    owe(pipeline, 3 * CLAIM)
    fake_relay, stop = MisbehavingRelay(CONNECT=["hang", "hang"]), asyncio.Event()
    running = asyncio.create_task(make(await serve(fake_relay)).run(stop, asyncio.Event()))
    await fake_relay.hanging.wait()
    await asyncio.to_thread(until, lambda: "sending" in states(pipeline), 10, "mails are claimed")
    stop.set()
    await asyncio.sleep(0.5)
    fake_relay.opened.set()
    await asyncio.wait_for(running, 10)
    assert set(states(pipeline)) == {"queued"}
    assert Counter(row.attempts for row in pipeline.rows(Mail)) == {
        1: 2,
        0: 3 * CLAIM - 2,
    }  # two mails had a connection
    assert {row.due_at for row in pipeline.rows(Mail) if row.attempts == 0} == {pipeline.now}
