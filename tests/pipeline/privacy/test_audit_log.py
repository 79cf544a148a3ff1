"""The audit log: the hash chain is complete, and changed or removed rows are detected."""

import hashlib
import os
import pwd
from datetime import timedelta
from threading import Barrier, Thread

import orjson
import pytest
from sqlalchemy import delete, select

from pipeline.clock import format_time
from pipeline.db.models import ReadAudit
from pipeline.privacy import audit_log
from pipeline.privacy.audit_log import Anchor
from tests.support.pipeline_under_test import PipelineUnderTest


def record(pipeline: PipelineUnderTest, subject: str | None = "I-1", purpose: str = "support") -> None:
    with pipeline.database.transaction() as session:
        audit_log.record_read(
            session,
            pipeline.keyring(session),
            pipeline.now,
            actor="ada",
            action="subscriptions show",
            purpose=purpose,
            subject=subject,
        )
    pipeline.clock.advance(timedelta(minutes=1))


def find_break(pipeline: PipelineUnderTest, *anchors: Anchor) -> str | None:
    with pipeline.database.reading() as session:
        return audit_log.verify_chain(session, pipeline.keyring(session), anchors)


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
    pipeline.clock.advance(audit_log.KEPT)
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
                audit_log.record_read(
                    session, pipeline.keyring(session), pipeline.now, actor="ada", action="mail show", purpose="",
                    subject=None,
                )  # fmt: skip

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


def test_recomputed_chain_is_detected(sqlite_pipeline: PipelineUnderTest) -> None:
    """Somebody who can write the table changes a row and computes all hashes anew, without the key."""
    for _ in range(3):
        record(sqlite_pipeline)
    previous = audit_log.ROOT
    for row in sqlite_pipeline.rows(ReadAudit):
        content = [previous, format_time(row.at), "mallory", row.action, row.purpose, row.subject]
        digest = hashlib.sha256(orjson.dumps(content)).hexdigest()
        sqlite_pipeline.set(row, actor="mallory", previous_hash=previous, hash=digest)
        previous = digest
    assert find_break(sqlite_pipeline) == "row number 1 was changed"


@pytest.mark.parametrize("moved", [timedelta(0), 2 * audit_log.KEPT], ids=["true time", "old time"])
def test_faked_deletion_of_old_rows_is_detected(sqlite_pipeline: PipelineUnderTest, moved: timedelta) -> None:
    """Somebody who can write the table deletes new rows in the way in which the program deletes old ones."""
    for _ in range(4):
        record(sqlite_pipeline)
    with sqlite_pipeline.database.transaction() as session:
        audit_log.prune(session, sqlite_pipeline.rows(ReadAudit)[2].at)
    segment = sqlite_pipeline.rows(ReadAudit)[0]
    sqlite_pipeline.set(segment, at=segment.at - moved)
    assert find_break(sqlite_pipeline) is not None


@pytest.mark.parametrize("left", [0, 2])
def test_rows_removed_at_the_end_are_detected_by_an_anchor(sqlite_pipeline: PipelineUnderTest, left: int) -> None:
    for _ in range(3):
        record(sqlite_pipeline)
    rows = sqlite_pipeline.rows(ReadAudit)
    anchors = [Anchor(row.at, row.hash, f"backup {row.id}") for row in rows]
    assert find_break(sqlite_pipeline, *anchors) is None
    with sqlite_pipeline.database.transaction() as session:
        session.execute(delete(ReadAudit).where(ReadAudit.id > left))
    assert f"backup {left + 1} confirms" in str(find_break(sqlite_pipeline, *anchors))
    sqlite_pipeline.clock.advance(2 * audit_log.KEPT)
    assert find_break(sqlite_pipeline, *anchors) is None, "rows that old are deleted"


@pytest.mark.parametrize(("variables", "claim"), [
    ({}, ""), ({"SUDO_USER": "somebody_else", "SUDO_UID": "1001"}, " (unverified: SUDO_USER=somebody_else SUDO_UID=1001)"),
    ({"SUDO_USER": "root)\x1b[31m"}, ""),
])  # fmt: skip
def test_account_of_sudo_is_only_a_claim(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], claim: str
) -> None:
    for name in ("SUDO_USER", "SUDO_UID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    assert audit_log.this_user() == pwd.getpwuid(os.getuid()).pw_name + claim
