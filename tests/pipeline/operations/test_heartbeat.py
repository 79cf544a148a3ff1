"""Heartbeats show which roles are alive."""

import os
import stat
from datetime import datetime, timedelta
from pathlib import Path

from structlog.testing import capture_logs

from pipeline.clock import SystemClock
from pipeline.operations import heartbeat
from pipeline.operations.heartbeat import ALIVE_SECONDS


def test_heartbeat_shows_that_role_is_alive(data_dir: Path) -> None:
    now = SystemClock().now()
    assert not heartbeat.is_alive(data_dir, "worker", now)
    heartbeat.write(data_dir, "worker")
    assert heartbeat.is_alive(data_dir, "worker", now)
    assert not heartbeat.is_alive(data_dir, "mailer", now)
    assert stat.S_IMODE((data_dir / "run").stat().st_mode) == 0o700
    written_at = datetime.fromtimestamp((data_dir / "run" / "worker").stat().st_mtime, now.tzinfo)
    assert heartbeat.is_alive(
        data_dir, "worker", written_at + timedelta(seconds=ALIVE_SECONDS - 1)
    )  # file times have nanoseconds
    assert not heartbeat.is_alive(data_dir, "worker", written_at + timedelta(seconds=ALIVE_SECONDS + 1))


def test_heartbeat_is_renewed(data_dir: Path) -> None:
    heartbeat.write(data_dir, "worker")
    os.utime(data_dir / "run" / "worker", (0, 0))
    heartbeat.write(data_dir, "worker")
    assert heartbeat.is_alive(data_dir, "worker", SystemClock().now())


def test_failed_heartbeat_is_logged_and_retried(data_dir: Path) -> None:
    (data_dir / "run").write_text("not a folder")
    with capture_logs() as logs:
        heartbeat.write(data_dir, "web")
    assert [(line["event"], line["role"]) for line in logs] == [("heartbeat_failed", "web")]
    (data_dir / "run").unlink()
    heartbeat.write(data_dir, "web")
    assert heartbeat.is_alive(data_dir, "web", SystemClock().now())
