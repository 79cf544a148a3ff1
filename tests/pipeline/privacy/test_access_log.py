"""The access log: complete, encrypted with the day's key, and never blocks a page."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta

import pytest
import structlog
from sqlalchemy.orm import Session
from structlog.testing import capture_logs

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
            log.record(f"GET /{number}", 200, f"192.0.2.{number % 256}", "Sample/1.0")
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
        log.record(f"GET /{number}", 200, f"192.0.2.{number % 256}", "Sample/1.0")
    assert log._waiting.qsize() == access_log.WAITING


Requests = list[tuple[int, str]]  # status and address


def stored(pipeline: PipelineUnderTest, requests: Requests) -> int:
    """Record the requests, and return how many are stored."""
    with writing(pipeline) as log:
        for status, address in requests:
            log.record("GET nowhere", status, address, "Sample/1.0")
    return pipeline.count(AccessLogEntry)


@pytest.mark.parametrize("status", [404, 405])
def test_requests_for_nothing_do_not_fill_the_log(sqlite_pipeline: PipelineUnderTest, status: int) -> None:
    assert stored(sqlite_pipeline, [(status, "192.0.2.7")] * 1500) == access_log.PER_NETWORK["nowhere"]


def test_requests_for_pages_do_not_fill_the_log(sqlite_pipeline: PipelineUnderTest) -> None:
    assert stored(sqlite_pipeline, [(200, "192.0.2.7")] * 1500) == access_log.PER_NETWORK["page"]


def test_networks_of_one_line_share_its_number_of_entries(sqlite_pipeline: PipelineUnderTest) -> None:
    addresses = [f"2001:db8:1:{number:x}::1" for number in range(100)] + [f"bogus{number}" for number in range(100)]
    assert stored(sqlite_pipeline, [(404, each) for each in addresses]) == 2 * access_log.PER_NETWORK["nowhere"]


def test_many_networks_do_not_fill_the_log(sqlite_pipeline: PipelineUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(access_log.FOR_ALL, "nowhere", 50)
    assert stored(sqlite_pipeline, [(404, f"192.0.2.{number}") for number in range(200)]) == 50


def test_flood_hides_neither_visits_of_others_nor_those_of_the_next_hour(sqlite_pipeline: PipelineUnderTest) -> None:
    structlog.reset_defaults()  # a command that ran in this process may have hidden this level
    with writing(sqlite_pipeline) as log, capture_logs() as lines:
        for _ in range(100):
            log.record("GET nowhere", 404, "192.0.2.7", "Flood/1.0")
        log.record("GET /account", 200, "192.0.2.7", "Sample/1.0")
        log.record("GET nowhere", 404, "192.0.2.8", "Sample/1.0")
        sqlite_pipeline.clock.advance(timedelta(hours=1))
        log.record("GET nowhere", 404, "192.0.2.7", "Flood/1.0")
    assert sqlite_pipeline.count(AccessLogEntry) == access_log.PER_NETWORK["nowhere"] + 3
    assert [line["event"] for line in lines] == ["access_log_entry_left_out"]
