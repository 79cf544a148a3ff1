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
from pipeline.outbox import store as outbox
from tests.support import run_role
from tests.support.misbehaving_relay import House, Serve
from tests.support.outbox_fixtures import SENDER, TEMPLATES, Make, meet, only, owe, receipt, scheduler, states
from tests.support.pipeline_under_test import River
from tests.support.subprocesses import Leashed, until

# The database is unavailable


async def test_unrecorded_result_is_recorded_before_next_claim(
    river: River, serve: Serve, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    meet(river)
    owe(river)
    fake_relay = House()
    mailer = make(await serve(fake_relay))

    def fail_to_connect(*_: object) -> None:
        raise DatabaseUnavailableError("connection refused")

    monkeypatch.setattr("pipeline.mailer.mailer.outbox.record_results", fail_to_connect)
    for _ in range(3):
        with pytest.raises(DatabaseUnavailableError):
            await mailer.send_due()
    assert states(river) == ["sending"]
    assert scheduler(river).free_claims() == 0
    monkeypatch.undo()
    assert await mailer.send_due() == 0
    assert states(river) == ["sent"]
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
    river: River, serve: Serve, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The claim was committed, but the mailer got an error instead of the confirmation."""
    meet(river)
    owe(river, 2)
    fake_relay = House()
    mailer = make(await serve(fake_relay))
    with monkeypatch.context() as broken:
        broken.setattr(river.database, "transaction", fail_after_commit(river.database.transaction))
        with pytest.raises(DatabaseUnavailableError):
            await asyncio.to_thread(mailer._claim)
    assert states(river) == ["sending", "sending"]
    assert await mailer.send_due() == 2
    assert states(river) == ["sent", "sent"]
    assert len(fake_relay.received) == 2


async def test_claim_with_unknown_commit_is_released_after_second_failure(
    river: River, serve: Serve, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restarting database closes all connections and may be unavailable a second time."""
    meet(river)
    owe(river)
    mailer = make(await serve(House()))
    with monkeypatch.context() as broken:
        broken.setattr(river.database, "transaction", fail_after_commit(river.database.transaction))
        with pytest.raises(DatabaseUnavailableError):
            await asyncio.to_thread(mailer._claim)
    with monkeypatch.context() as broken:
        broken.setattr("pipeline.mailer.liveness.ClaimLiveness.check", lambda _: False)
        broken.setattr("pipeline.mailer.mailer.outbox.release_claims", fail)
        with pytest.raises(DatabaseUnavailableError):
            await asyncio.to_thread(mailer._claim)
    assert await mailer.send_due() == 1
    assert states(river) == ["sent"]


async def test_mail_being_sent_is_not_released_with_failed_claim(
    river: River, serve: Serve, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    meet(river)
    owe(river)
    fake_relay, stop, wakeup = House(DOT=["hang"]), asyncio.Event(), asyncio.Event()
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
    owe(river, 3)
    wakeup.set()
    await failed.wait()
    monkeypatch.undo()
    monkeypatch.setattr("pipeline.mailer.mailer.POLL_SECONDS", 0.02)
    await asyncio.sleep(0.5)
    fake_relay.opened.set()
    while states(river) != ["sent"] * 3:
        await asyncio.sleep(0.01)
    stop.set()
    await running
    assert len(fake_relay.received) == 3


async def test_mailer_stops_while_database_is_unavailable(
    river: River, serve: Serve, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    meet(river)
    owe(river)
    fake_relay, stop = House(), asyncio.Event()

    def fail_to_connect(*_: object) -> None:
        raise DatabaseUnavailableError("connection refused")

    monkeypatch.setattr("pipeline.mailer.mailer.outbox.record_results", fail_to_connect)
    running = asyncio.create_task(make(await serve(fake_relay)).run(stop, asyncio.Event()))
    while not fake_relay.received:
        await asyncio.sleep(0.01)
    stop.set()
    await running
    assert states(river) == ["sending"], "the relay's log resolves this mail later"


async def test_slow_mail_does_not_delay_others(river: River, serve: Serve, make: Make) -> None:
    meet(river)
    owe(river, CLAIM + 3)
    fake_relay, stop = House(DOT=["hang"]), asyncio.Event()
    running = asyncio.create_task(make(await serve(fake_relay)).run(stop, asyncio.Event()))
    while states(river) != ["sending"] + ["sent"] * (CLAIM + 2):
        await asyncio.sleep(0.02)
    fake_relay.opened.set()
    stop.set()
    await running
    assert states(river) == ["sent"] * (CLAIM + 3)


async def test_mailer_uses_new_name_after_losing_its_lock(stream: River, serve: Serve) -> None:
    meet(stream)
    owe(stream)
    fake_relay = House(DOT=["hang"])
    relay = Relay(await serve(fake_relay), connections=2)
    mailer = Mailer(stream.database, stream.master, stream.clock, TEMPLATES, relay, SENDER)
    sending = asyncio.create_task(mailer.send_due())
    await fake_relay.hanging.wait()
    with stream.database.transaction() as session:
        session.execute(text("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"))
    while not await asyncio.to_thread(scheduler(stream).free_claims):
        await asyncio.sleep(0.01)
    assert states(stream) == ["doubt"], "without its lock the mailer counts as dead"
    fake_relay.opened.set()
    await sending
    assert states(stream) == ["sent"], "the holder records the real outcome"
    first = only(stream).claimed_by
    stream.owe(receipt(2))
    await mailer.send_due()
    assert stream.mails()["receipt:SALE2"].claimed_by != first
    await mailer.close()


# The mailer dies


async def start_hanging_mailer(
    river: River, fake_relay: House, url: str, folder: Path, *more: tuple[str, str]
) -> Leashed:
    """Start a mailer process that has transmitted a mail's text and waits for the answer."""
    meet(river)
    owe(river)
    mailer = run_role.start("mailer", folder, data_dir=river.folder, database_url=river.url, smtp_url=url, **dict(more))
    await asyncio.wait_for(fake_relay.hanging.wait(), 60)
    return mailer


@pytest.mark.slow
async def test_killed_mailer_leaves_mail_in_doubt(river: River, serve: Serve, make: Make, tmp_path: Path) -> None:
    fake_relay = House(DOT=["hang"])
    url = await serve(fake_relay)
    mailer = await start_hanging_mailer(river, fake_relay, url, tmp_path)
    assert scheduler(river).free_claims() == 0, "the mailer is alive"
    assert states(river) == ["sending"]
    mailer.end(kill=True)
    while not await asyncio.to_thread(scheduler(river).free_claims):
        await asyncio.sleep(0.01)
    row = only(river)
    assert (row.state, row.reason) == ("doubt", "its mailer died while sending it")
    assert await make(url).send_due() == 0
    assert len(fake_relay.received) == 1


@pytest.mark.slow
async def test_suspended_mailer_keeps_its_claim(river: River, serve: Serve, tmp_path: Path) -> None:
    """With a timer, its claim would end, and the mail would be sent twice after it continues."""
    fake_relay = House(DOT=["hang"])
    mailer = await start_hanging_mailer(river, fake_relay, await serve(fake_relay), tmp_path)
    os.killpg(mailer.pid, signal.SIGSTOP)
    river.clock.advance(timedelta(days=365))
    assert scheduler(river).free_claims() == 0
    assert states(river) == ["sending"]
    os.killpg(mailer.pid, signal.SIGCONT)
    fake_relay.opened.set()
    while states(river) != ["sent"]:
        await asyncio.sleep(0.01)
    assert await asyncio.to_thread(mailer.end) == 0
    assert len(fake_relay.received) == 1


@pytest.mark.slow
async def test_mailer_writes_heartbeat_while_relay_hangs(brook: River, serve: Serve, tmp_path: Path) -> None:
    owe(brook, 2 * CLAIM + 1)
    fake_relay, heartbeat = House(DOT=["hang"]), brook.folder / "run" / "mailer"
    mailer = await start_hanging_mailer(brook, fake_relay, await serve(fake_relay), tmp_path, ("smtp_connections", "1"))
    while states(brook).count("sending") < 2 * CLAIM:
        await asyncio.sleep(0.01)
    os.utime(heartbeat, (0, 0))
    await asyncio.to_thread(until, lambda: heartbeat.stat().st_mtime > 0, 20, "a heartbeat while all mails wait")
    fake_relay.opened.set()
    assert await asyncio.to_thread(mailer.end) == 0


async def test_database_error_does_not_fail_the_mail(
    river: River, serve: Serve, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    meet(river)
    owe(river, 2)
    mailer = make(await serve(House()))
    with monkeypatch.context() as broken:
        broken.setattr("pipeline.mailer.mailer.RecipientResolver.resolve", raise_disk_error)
        with pytest.raises(DatabaseUnavailableError):
            await mailer.send_due()
    assert states(river) == ["queued", "queued"]
    assert await mailer.send_due() == 2
    assert states(river) == ["sent", "sent"]


def raise_disk_error(*_: object) -> None:
    raise OperationalError("SELECT", {}, OSError("disk I/O error"))


async def test_stopped_mailer_returns_unstarted_mails(river: River, serve: Serve, make: Make) -> None:
    meet(river)
    owe(river, 3 * CLAIM)
    fake_relay, stop = House(CONNECT=["hang", "hang"]), asyncio.Event()
    running = asyncio.create_task(make(await serve(fake_relay)).run(stop, asyncio.Event()))
    await fake_relay.hanging.wait()
    await asyncio.to_thread(until, lambda: "sending" in states(river), 10, "mails are claimed")
    stop.set()
    await asyncio.sleep(0.5)
    fake_relay.opened.set()
    await asyncio.wait_for(running, 10)
    assert set(states(river)) == {"queued"}
    assert Counter(row.attempts for row in river.rows(Mail)) == {1: 2, 0: 3 * CLAIM - 2}  # two mails had a connection
    assert {row.due_at for row in river.rows(Mail) if row.attempts == 0} == {river.now}
