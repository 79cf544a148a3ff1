from datetime import timedelta
from threading import Barrier, Thread

import pytest
from sqlalchemy import delete, select

from pipeline.db.models import ReadAudit
from pipeline.privacy import audit_log
from tests.support.pipeline_under_test import River


def read(river: River, subject: str | None = "I-1", purpose: str = "a question of theirs") -> None:
    with river.database.transaction() as session:
        audit_log.record_read(
            session, river.now, actor="ada", action="subscriptions show", purpose=purpose, subject=subject
        )
    river.clock.advance(timedelta(minutes=1))


def wrong(river: River) -> str | None:
    with river.database.reading() as session:
        return audit_log.verify_chain(session)


def test_each_read_follows_the_one_before_and_the_chain_holds(river: River) -> None:
    for subject in ("I-1", None, "c0ffee"):
        read(river, subject)
    rows = river.rows(ReadAudit)
    assert rows[0].previous_hash == audit_log.ROOT
    assert [row.previous_hash for row in rows[1:]] == [row.hash for row in rows[:-1]]
    assert wrong(river) is None


@pytest.mark.parametrize("column", ["actor", "action", "purpose", "subject", "at"])
def test_a_row_that_was_changed_is_found(brook: River, column: str) -> None:
    for _ in range(3):
        read(brook)
    changed = brook.rows(ReadAudit)[1]
    brook.set(changed, **{column: brook.now if column == "at" else "another"})
    assert wrong(brook) == "row number 2 was changed"


def test_a_row_that_was_taken_out_is_found(river: River) -> None:
    for _ in range(3):
        read(river)
    with river.database.transaction() as session:
        session.execute(delete(ReadAudit).where(ReadAudit.id == river.rows(ReadAudit)[1].id))
    assert "is missing" in str(wrong(river))


def test_old_rows_go_as_a_segment_and_the_chain_still_holds(river: River) -> None:
    for _ in range(5):
        read(river)
    old, kept = river.rows(ReadAudit)[:3], river.rows(ReadAudit)[3:]
    with river.database.transaction() as session:
        assert audit_log.prune(session, kept[0].at) == 3
    left = river.rows(ReadAudit)
    assert [row.hash for row in left] == [old[-1].hash, *(row.hash for row in kept)]
    assert (left[0].actor, left[0].subject) == ("", None)
    assert wrong(river) is None
    read(river)
    assert wrong(river) is None
    with river.database.transaction() as session:
        assert audit_log.count(session) == 3
        assert audit_log.prune(session, kept[0].at) == 0


def test_rows_written_at_once_make_one_chain(river: River) -> None:
    ready = Barrier(4)

    def write() -> None:
        ready.wait(10)
        for _ in range(5):
            with river.database.transaction() as session:
                audit_log.record_read(session, river.now, actor="ada", action="mail show", purpose="", subject=None)

    threads = [Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(river.rows(ReadAudit)) == 20
    assert wrong(river) is None


def test_a_long_text_is_cut_to_its_column(river: River) -> None:
    read(river, "s" * 300, "p" * 300)
    with river.database.reading() as session:
        row = session.execute(select(ReadAudit)).scalar_one()
    assert (len(row.purpose), len(row.subject or "")) == (200, 100)
    assert wrong(river) is None
