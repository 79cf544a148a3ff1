"""The access log: complete, encrypted with the day's key, and never blocks a page."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta

import pytest
from sqlalchemy.orm import Session

from pipeline.db.engine import DatabaseUnavailableError
from pipeline.db.models import AccessLogEntry, EncryptionKey
from pipeline.privacy import access_log
from pipeline.privacy.access_log import AccessLog
from tests.support.pipeline_under_test import PipelineUnderTest


@contextmanager
def writing(pipeline: PipelineUnderTest) -> Iterator[AccessLog]:
    log = AccessLog(pipeline.database, pipeline.master, pipeline.clock)
    log.start()
    yield log
    log.stop()


def test_entry_is_stored_with_encrypted_address_and_browser(pipeline: PipelineUnderTest) -> None:
    with writing(pipeline) as log:
        log.record("GET /privacy", 200, "192.0.2.7", "Sample/1.0")
    [row] = pipeline.rows(AccessLogEntry)
    assert (row.at, row.key_id, row.action, row.status) == (pipeline.now, "visits:2026-03-01", "GET /privacy", 200)
    assert row.visitor
    assert b"192.0.2.7" not in row.visitor
    with pipeline.database.transaction() as session:
        opened = pipeline.keyring(session).system_key(row.key_id).decrypt_json("access_log.visitor", row.visitor)
    assert opened == {"address": "192.0.2.7", "browser": "Sample/1.0"}


def test_each_day_has_its_own_key(pipeline: PipelineUnderTest) -> None:
    with writing(pipeline) as log:
        for _ in range(3):
            log.record("GET /privacy", 200, "192.0.2.7", "Sample/1.0")
            pipeline.clock.advance(timedelta(days=1))
    assert {row.key_id for row in pipeline.rows(AccessLogEntry)} == {row.key_id for row in pipeline.rows(EncryptionKey)}
    assert len(pipeline.rows(EncryptionKey)) == 3


def test_all_entries_are_written(pipeline: PipelineUnderTest) -> None:
    with writing(pipeline) as log:
        for number in range(3 * access_log.GROUP + 7):
            log.record(f"GET /{number}", 200, "192.0.2.7", "Sample/1.0")
    assert len({row.action for row in pipeline.rows(AccessLogEntry)}) == 3 * access_log.GROUP + 7


@pytest.mark.parametrize("error", [DatabaseUnavailableError("unreachable"), RuntimeError("unexpected")])
def test_log_continues_after_failed_write(
    sqlite_pipeline: PipelineUnderTest, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(access_log, "GROUP", 1)
    log, errors, transaction = (
        AccessLog(sqlite_pipeline.database, sqlite_pipeline.master, sqlite_pipeline.clock),
        [error],
        sqlite_pipeline.database.transaction,
    )

    def failing_once() -> AbstractContextManager[Session]:
        if errors:
            raise errors.pop()
        return transaction()

    monkeypatch.setattr(sqlite_pipeline.database, "transaction", failing_once)
    for number in range(3):
        log.record(f"GET /{number}", 200, "192.0.2.7", "Sample/1.0")
    log.start()
    log.stop()
    assert [row.action for row in sqlite_pipeline.rows(AccessLogEntry)] == ["GET /1", "GET /2"]


def test_newest_entries_are_dropped_when_queue_is_full(sqlite_pipeline: PipelineUnderTest) -> None:
    log = AccessLog(sqlite_pipeline.database, sqlite_pipeline.master, sqlite_pipeline.clock)
    for number in range(access_log.WAITING + 5):
        log.record(f"GET /{number}", 200, "192.0.2.7", "Sample/1.0")
    assert log._waiting.qsize() == access_log.WAITING
