"""Heartbeats: files that show that a role is alive, and what it recorded about its dependencies."""

import os
import platform
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from pipeline.clock import MovableClock
from pipeline.dependencies import DependencyRecorder
from pipeline.operations import heartbeat
from pipeline.operations.heartbeat import ALIVE_SECONDS

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_heartbeat_shows_that_role_is_alive(data_dir: Path) -> None:
    assert not heartbeat.is_alive(data_dir, "worker", NOON)
    heartbeat.write(data_dir, "worker", NOON)
    assert heartbeat.is_alive(data_dir, "worker", NOON)
    assert not heartbeat.is_alive(data_dir, "mailer", NOON)
    assert heartbeat.is_alive(data_dir, "worker", NOON + timedelta(seconds=ALIVE_SECONDS))
    assert not heartbeat.is_alive(data_dir, "worker", NOON + timedelta(seconds=ALIVE_SECONDS + 1))


def test_heartbeat_is_renewed(data_dir: Path) -> None:
    heartbeat.write(data_dir, "worker", NOON)
    heartbeat.write(data_dir, "worker", NOON + timedelta(hours=1))
    assert heartbeat.is_alive(data_dir, "worker", NOON + timedelta(hours=1))


def test_failed_heartbeat_is_logged_and_retried(data_dir: Path) -> None:
    (data_dir / "run").write_text("not a folder")
    with capture_logs() as logs:
        heartbeat.write(data_dir, "web", NOON)
    assert [(line["event"], line["role"]) for line in logs] == [("heartbeat_failed", "web")]
    (data_dir / "run").unlink()
    heartbeat.write(data_dir, "web", NOON)
    assert heartbeat.is_alive(data_dir, "web", NOON)


def test_heartbeat_publishes_what_the_role_recorded(data_dir: Path) -> None:
    recorder = DependencyRecorder(MovableClock(NOON))
    recorder.observe("relay", answered=False)
    recorder.observe("broker", answered=True)
    recorder.count("dead_letters", 3)
    heartbeat.write(data_dir, "mailer", NOON, recorder)
    [found] = heartbeat.read_all(data_dir)
    assert (found.dependencies, found.counts) == (recorder.records, recorder.counts)


def test_live_worker_does_not_hide_one_that_hangs(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heartbeat.write(data_dir, "worker", NOON)
    monkeypatch.setattr(platform, "node", lambda: "another-host")
    heartbeat.write(data_dir, "worker", NOON + timedelta(hours=1))
    assert heartbeat.is_alive(data_dir, "worker", NOON + timedelta(hours=1))
    monkeypatch.undo()
    assert not heartbeat.is_alive(data_dir, "worker", NOON + timedelta(hours=1))


def test_damaged_heartbeat_is_no_heartbeat(data_dir: Path) -> None:
    heartbeat.write(data_dir, "worker", NOON)
    for content in (b"", b"[]", b'{"at": 1}', b"\xff"):
        heartbeat.path_of(data_dir, "worker").write_bytes(content)
        assert not heartbeat.is_alive(data_dir, "worker", NOON)


def test_heartbeats_of_replaced_containers_are_removed(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for host, role, at in (("old", "worker", NOON), ("new", "worker", NOON + timedelta(days=1)), ("old", "web", NOON)):
        monkeypatch.setattr(platform, "node", lambda host=host: host)
        heartbeat.write(data_dir, role, at)
    monkeypatch.setattr(platform, "node", lambda: "current")
    heartbeat.remove_replaced(data_dir, "worker", NOON + timedelta(days=1, seconds=1))
    assert sorted(path.name for path in (data_dir / "run").iterdir()) == ["web@old", "worker@new"]


def test_process_ids_are_those_of_this_host(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heartbeat.write(data_dir, "worker", NOON)
    monkeypatch.setattr(platform, "node", lambda: "another-host")
    heartbeat.write(data_dir, "mailer", NOON)
    assert heartbeat.live_roles(data_dir, NOON) == {"mailer": os.getpid()}
