"""A presence ends with its process or its connection, and never by a timer."""

import signal
from datetime import timedelta
from pathlib import Path

from sqlalchemy import text

from pipeline.db import presence
from tests.support.pipeline_under_test import PipelineUnderTest
from tests.support.subprocesses import running, until

HOLD_PRESENCE = """
import sys, time
from pipeline.db.engine import Database
from pipeline.db.presence import hold
presence = hold(Database(sys.argv[1]), sys.argv[2])
print("ready", flush=True)
time.sleep(600)
"""


def test_presence_ends_with_its_process_and_not_before(pipeline: PipelineUnderTest) -> None:
    assert not presence.is_held(pipeline.database, "mailer-1")
    with running(HOLD_PRESENCE, pipeline.url, "mailer-1") as holder:
        assert presence.is_held(pipeline.database, "mailer-1")
        assert not presence.is_held(pipeline.database, "mailer-2")
        holder.send_signal(signal.SIGSTOP)  # a timer would consider it dead, but it may continue
        pipeline.clock.advance(timedelta(days=365))
        assert presence.is_held(pipeline.database, "mailer-1")
        holder.kill()
        holder.wait()
        until(lambda: not presence.is_held(pipeline.database, "mailer-1"), 20, "the presence ends with its process")


def test_presence_ends_when_it_is_released(pipeline: PipelineUnderTest) -> None:
    held = presence.hold(pipeline.database, "mailer-1")
    assert held.still_held()
    assert presence.is_held(pipeline.database, "mailer-1")
    assert presence.is_held(pipeline.database, "mailer-1"), "a query must not end it"
    held.release()
    until(lambda: not presence.is_held(pipeline.database, "mailer-1"), 20, "the presence is released")


def test_presence_detects_lost_connection(postgresql_pipeline: PipelineUnderTest) -> None:
    held = presence.hold(postgresql_pipeline.database, "mailer-1")
    with postgresql_pipeline.database.transaction() as session:
        find = text("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")
        assert session.execute(find).scalars().all() == [True]
    until(
        lambda: not presence.is_held(postgresql_pipeline.database, "mailer-1"), 20, "the server has released the lock"
    )
    assert not held.still_held()
    held.release()


def test_presences_leak_no_connections(postgresql_pipeline: PipelineUnderTest) -> None:
    for number in range(30):  # the pool has fifteen
        held = presence.hold(postgresql_pipeline.database, f"mailer-{number}")
        assert presence.is_held(postgresql_pipeline.database, f"mailer-{number}")
        held.release()


def test_lock_file_of_dead_process_is_removed(sqlite_pipeline: PipelineUnderTest, data_dir: Path) -> None:
    with running(HOLD_PRESENCE, sqlite_pipeline.url, "mailer-1") as holder:
        holder.kill()
        holder.wait()
    assert not presence.is_held(sqlite_pipeline.database, "mailer-1")
    assert list((data_dir / "run").iterdir()) == []
