"""The audit log: the hash chain is complete, and changed or removed rows are detected."""

from datetime import timedelta
from threading import Barrier, Thread

import pytest
from sqlalchemy import delete, select

from pipeline.db.models import ReadAudit
from pipeline.privacy import audit_log
from tests.support.pipeline_under_test import PipelineUnderTest


def record(pipeline: PipelineUnderTest, subject: str | None = "I-1", purpose: str = "support") -> None:
    with pipeline.database.transaction() as session:
        audit_log.record_read(
            session, pipeline.now, actor="ada", action="subscriptions show", purpose=purpose, subject=subject
        )
    pipeline.clock.advance(timedelta(minutes=1))


def find_break(pipeline: PipelineUnderTest) -> str | None:
    with pipeline.database.reading() as session:
        return audit_log.verify_chain(session)


def test_each_row_holds_hash_of_previous_row(pipeline: PipelineUnderTest) -> None:
    for subject in ("I-1", None, "c0ffee"):
        record(pipeline, subject)
    rows = pipeline.rows(ReadAudit)
    assert rows[0].previous_hash == audit_log.ROOT
    assert [row.previous_hash for row in rows[1:]] == [row.hash for row in rows[:-1]]
    assert find_break(pipeline) is None


@pytest.mark.parametrize("column", ["actor", "action", "purpose", "subject", "at"])
def test_changed_row_is_detected(sqlite_pipeline: PipelineUnderTest, column: str) -> None:
    for _ in range(3):
        record(sqlite_pipeline)
    changed = sqlite_pipeline.rows(ReadAudit)[1]
    sqlite_pipeline.set(changed, **{column: sqlite_pipeline.now if column == "at" else "another"})
    assert find_break(sqlite_pipeline) == "row number 2 was changed"


def test_removed_row_is_detected(pipeline: PipelineUnderTest) -> None:
    for _ in range(3):
        record(pipeline)
    with pipeline.database.transaction() as session:
        session.execute(delete(ReadAudit).where(ReadAudit.id == pipeline.rows(ReadAudit)[1].id))
    assert "is missing" in str(find_break(pipeline))


def test_pruning_keeps_the_chain_intact(pipeline: PipelineUnderTest) -> None:
    for _ in range(5):
        record(pipeline)
    old, kept = pipeline.rows(ReadAudit)[:3], pipeline.rows(ReadAudit)[3:]
    with pipeline.database.transaction() as session:
        assert audit_log.prune(session, kept[0].at) == 3
    left = pipeline.rows(ReadAudit)
    assert [row.hash for row in left] == [old[-1].hash, *(row.hash for row in kept)]
    assert (left[0].actor, left[0].subject) == ("", None)
    assert find_break(pipeline) is None
    record(pipeline)
    assert find_break(pipeline) is None
    with pipeline.database.transaction() as session:
        assert audit_log.count(session) == 3
        assert audit_log.prune(session, kept[0].at) == 0


def test_concurrent_writers_make_one_chain(pipeline: PipelineUnderTest) -> None:
    ready = Barrier(4)

    def write() -> None:
        ready.wait(10)
        for _ in range(5):
            with pipeline.database.transaction() as session:
                audit_log.record_read(session, pipeline.now, actor="ada", action="mail show", purpose="", subject=None)

    threads = [Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(pipeline.rows(ReadAudit)) == 20
    assert find_break(pipeline) is None


def test_long_text_is_truncated_to_column_length(pipeline: PipelineUnderTest) -> None:
    record(pipeline, "s" * 300, "p" * 300)
    with pipeline.database.reading() as session:
        row = session.execute(select(ReadAudit)).scalar_one()
    assert (len(row.purpose), len(row.subject or "")) == (200, 100)
    assert find_break(pipeline) is None
