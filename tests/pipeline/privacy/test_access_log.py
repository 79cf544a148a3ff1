"""The access log: whole, sealed with the day's key, and never in anybody's way."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta

import pytest
from sqlalchemy.orm import Session

from pipeline.db.engine import DatabaseUnavailableError
from pipeline.db.models import AccessLogEntry, EncryptionKey
from pipeline.privacy import access_log
from pipeline.privacy.access_log import AccessLog
from tests.support.pipeline_under_test import River


@contextmanager
def writing(river: River) -> Iterator[AccessLog]:
    log = AccessLog(river.database, river.master, river.clock)
    log.start()
    yield log
    log.stop()


def test_a_visit_is_kept_with_address_and_browser_sealed(river: River) -> None:
    with writing(river) as log:
        log.record("GET /privacy", 200, "192.0.2.7", "Sample/1.0")
    [row] = river.rows(AccessLogEntry)
    assert (row.at, row.key_id, row.action, row.status) == (river.now, "smt:visits:2026-03-01", "GET /privacy", 200)
    assert row.visitor
    assert b"192.0.2.7" not in row.visitor
    with river.database.transaction() as session:
        opened = river.keyring(session).system_key(row.key_id).decrypt_json("access_log.visitor", row.visitor)
    assert opened == {"address": "192.0.2.7", "browser": "Sample/1.0"}


def test_each_day_has_a_key_of_its_own(river: River) -> None:
    with writing(river) as log:
        for _ in range(3):
            log.record("GET /privacy", 200, "192.0.2.7", "Sample/1.0")
            river.clock.advance(timedelta(days=1))
    assert {row.key_id for row in river.rows(AccessLogEntry)} == {row.key_id for row in river.rows(EncryptionKey)}
    assert len(river.rows(EncryptionKey)) == 3


def test_many_visits_are_all_written(river: River) -> None:
    with writing(river) as log:
        for number in range(3 * access_log.GROUP + 7):
            log.record(f"GET /{number}", 200, "192.0.2.7", "Sample/1.0")
    assert len({row.action for row in river.rows(AccessLogEntry)}) == 3 * access_log.GROUP + 7


@pytest.mark.parametrize("fault", [DatabaseUnavailableError("gone"), RuntimeError("a fault")])
def test_a_database_that_is_away_stops_nobody(brook: River, monkeypatch: pytest.MonkeyPatch, fault: Exception) -> None:
    monkeypatch.setattr(access_log, "GROUP", 1)
    log, faults, transaction = AccessLog(brook.database, brook.master, brook.clock), [fault], brook.database.transaction

    def failing_once() -> AbstractContextManager[Session]:
        if faults:
            raise faults.pop()
        return transaction()

    monkeypatch.setattr(brook.database, "transaction", failing_once)
    for number in range(3):
        log.record(f"GET /{number}", 200, "192.0.2.7", "Sample/1.0")
    log.start()
    log.stop()
    assert [row.action for row in brook.rows(AccessLogEntry)] == ["GET /1", "GET /2"]


def test_when_too_many_wait_the_newest_are_dropped_and_nobody_waits(brook: River) -> None:
    log = AccessLog(brook.database, brook.master, brook.clock)
    for number in range(access_log.WAITING + 5):
        log.record(f"GET /{number}", 200, "192.0.2.7", "Sample/1.0")
    assert log._waiting.qsize() == access_log.WAITING
