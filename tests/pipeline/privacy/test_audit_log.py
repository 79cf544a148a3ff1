"""The audit log: the hash chain is complete, and changed or removed rows are detected."""

from datetime import timedelta
from threading import Barrier, Thread

import pytest
from sqlalchemy import delete, select

from pipeline.db.models import ReadAudit
from pipeline.privacy import audit_log
from tests.support.pipeline_under_test import River


def record(river: River, subject: str | None = "I-1", purpose: str = "support") -> None:
    with river.database.transaction() as session:
        audit_log.record_read(
            session, river.now, actor="ada", action="subscriptions show", purpose=purpose, subject=subject
        )
    river.clock.advance(timedelta(minutes=1))


def find_break(river: River) -> str | None:
    with river.database.reading() as session:
        return audit_log.verify_chain(session)


def test_each_row_holds_hash_of_previous_row(river: River) -> None:
    for subject in ("I-1", None, "c0ffee"):
        record(river, subject)
    rows = river.rows(ReadAudit)
    assert rows[0].previous_hash == audit_log.ROOT
    assert [row.previous_hash for row in rows[1:]] == [row.hash for row in rows[:-1]]
    assert find_break(river) is None


@pytest.mark.parametrize("column", ["actor", "action", "purpose", "subject", "at"])
def test_changed_row_is_detected(brook: River, column: str) -> None:
    for _ in range(3):
        record(brook)
    changed = brook.rows(ReadAudit)[1]
    brook.set(changed, **{column: brook.now if column == "at" else "another"})
    assert find_break(brook) == "row number 2 was changed"


def test_removed_row_is_detected(river: River) -> None:
    for _ in range(3):
        record(river)
    with river.database.transaction() as session:
        session.execute(delete(ReadAudit).where(ReadAudit.id == river.rows(ReadAudit)[1].id))
    assert "is missing" in str(find_break(river))


def test_pruning_keeps_the_chain_intact(river: River) -> None:
    for _ in range(5):
        record(river)
    old, kept = river.rows(ReadAudit)[:3], river.rows(ReadAudit)[3:]
    with river.database.transaction() as session:
        assert audit_log.prune(session, kept[0].at) == 3
    left = river.rows(ReadAudit)
    assert [row.hash for row in left] == [old[-1].hash, *(row.hash for row in kept)]
    assert (left[0].actor, left[0].subject) == ("", None)
    assert find_break(river) is None
    record(river)
    assert find_break(river) is None
    with river.database.transaction() as session:
        assert audit_log.count(session) == 3
        assert audit_log.prune(session, kept[0].at) == 0


def test_concurrent_writers_make_one_chain(river: River) -> None:
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
    assert find_break(river) is None


def test_long_text_is_truncated_to_column_length(river: River) -> None:
    record(river, "s" * 300, "p" * 300)
    with river.database.reading() as session:
        row = session.execute(select(ReadAudit)).scalar_one()
    assert (len(row.purpose), len(row.subject or "")) == (200, 100)
    assert find_break(river) is None
