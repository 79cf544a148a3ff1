"""Signs of life that end with their process, and never by a timer."""

import signal
from datetime import timedelta
from pathlib import Path

from sqlalchemy import text

from pipeline.db.engine import Presence
from tests.support.pipeline_under_test import River
from tests.support.subprocesses import running, until

BE_PRESENT = """
import sys, time
from pipeline.db.engine import Database
presence = Database(sys.argv[1]).presence(sys.argv[2])
print("ready", flush=True)
time.sleep(600)
"""


def test_a_presence_ends_with_its_process_and_never_before(river: River) -> None:
    assert not river.database.is_present("mailer-1")
    with running(BE_PRESENT, river.url, "mailer-1") as holder:
        assert river.database.is_present("mailer-1")
        assert not river.database.is_present("mailer-2")
        holder.send_signal(signal.SIGSTOP)  # as good as dead by any timer, but it may wake up
        river.clock.advance(timedelta(days=365))
        assert river.database.is_present("mailer-1")
        holder.kill()
        holder.wait()
        until(lambda: not river.database.is_present("mailer-1"), 20, "the presence ends with its process")


def test_a_presence_ends_when_it_is_left(river: River) -> None:
    presence = river.database.presence("mailer-1")
    assert presence.still_held()
    assert river.database.is_present("mailer-1")
    assert river.database.is_present("mailer-1"), "looking must not end it"
    presence.leave()
    until(lambda: not river.database.is_present("mailer-1"), 20, "the presence is left")


def test_a_presence_that_lost_its_connection_knows_it(stream: River) -> None:
    presence = stream.database.presence("mailer-1")
    with stream.database.transaction() as session:
        find = text("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")
        assert session.execute(find).scalars().all() == [True]
    until(lambda: not stream.database.is_present("mailer-1"), 20, "the server has let go")
    assert not presence.still_held()
    presence.leave()


def test_presences_and_looks_at_them_leave_no_connections_behind(stream: River) -> None:
    for number in range(30):  # the pool has fifteen
        presence: Presence = stream.database.presence(f"mailer-{number}")
        assert stream.database.is_present(f"mailer-{number}")
        presence.leave()


def test_the_sign_of_a_dead_process_is_cleared_away(brook: River, data_dir: Path) -> None:
    with running(BE_PRESENT, brook.url, "mailer-1") as holder:
        holder.kill()
        holder.wait()
    assert not brook.database.is_present("mailer-1")
    assert list((data_dir / "run").iterdir()) == []
