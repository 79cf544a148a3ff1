"""journald's retention period is read from its settings with systemd's own precedence of files."""

import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from pipeline.policy.evidence import journald
from tests.conftest import do_without


@pytest.fixture
def root(tmp_path: Path) -> Path:
    if shutil.which("systemd-analyze") is None:
        do_without("systemd-analyze is not installed: apt-get install systemd")
    folder = tmp_path / "etc" / "systemd"
    (folder / "journald.conf.d").mkdir(parents=True)
    (folder / "journald.conf").write_text("[Journal]\n#MaxRetentionSec=\n#MaxFileSec=1month\n")
    return tmp_path


def configure(root: Path, *lines: str, file: str = "50-ours.conf") -> None:
    text = "\n".join(("# test settings", "[Journal]", *lines, ""))
    (root / "etc" / "systemd" / "journald.conf.d" / file).write_text(text)


def test_default_settings_have_no_time_limit(root: Path) -> None:
    assert journald.retention_period(root) is None


@pytest.mark.parametrize(
    ("lines", "kept"),
    [
        (["MaxRetentionSec=90day"], timedelta(days=90)),
        (["MaxRetentionSec=2w"], timedelta(days=30, hours=10, minutes=30)),  # a file is closed after one month
        (["MaxRetentionSec=2w 1d", "MaxFileSec=1day"], timedelta(days=15)),
        (["MaxRetentionSec=90day", "MaxFileSec=0"], None),
        (["MaxRetentionSec=0"], None),
        (["MaxRetentionSec=infinity"], None),
        (["MaxRetentionSec=90day", "MaxRetentionSec="], None),
        (["Storage=none"], timedelta(0)),
    ],
)
def test_longer_of_both_periods_applies(root: Path, lines: list[str], kept: timedelta | None) -> None:
    configure(root, *lines)
    assert journald.retention_period(root) == kept


def test_later_file_name_takes_precedence(root: Path) -> None:
    configure(root, "MaxRetentionSec=1year", file="10-theirs.conf")
    configure(root, "MaxRetentionSec=60day", file="90-ours.conf")
    assert journald.retention_period(root) == timedelta(days=60)


def test_unreadable_settings_raise_error(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(root, "MaxRetentionSec=soon")
    with pytest.raises(journald.JournaldSettingsError):
        journald.retention_period(root)
    monkeypatch.setenv("PATH", str(root))
    with pytest.raises(journald.JournaldSettingsError, match="not installed"):
        journald.retention_period(root)


def test_journald_runs_if_its_socket_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journald, "SOCKET", tmp_path / "socket")
    assert not journald.is_running()
    (tmp_path / "socket").touch()
    assert journald.is_running()
