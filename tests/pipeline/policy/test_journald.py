"""How long journald keeps entries is read from its settings as systemd reads them: the last file that says so counts."""

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


def say(root: Path, *lines: str, file: str = "50-ours.conf") -> None:
    text = "\n".join(("# ours", "[Journal]", *lines, ""))
    (root / "etc" / "systemd" / "journald.conf.d" / file).write_text(text)


def test_by_default_there_is_no_end(root: Path) -> None:
    assert journald.retention_period(root) is None


@pytest.mark.parametrize(
    ("lines", "kept"),
    [
        (["MaxRetentionSec=90day"], timedelta(days=90)),
        (["MaxRetentionSec=2w"], timedelta(days=30, hours=10, minutes=30)),  # a file of a month is closed then only
        (["MaxRetentionSec=2w 1d", "MaxFileSec=1day"], timedelta(days=15)),
        (["MaxRetentionSec=90day", "MaxFileSec=0"], None),
        (["MaxRetentionSec=0"], None),
        (["MaxRetentionSec=infinity"], None),
        (["MaxRetentionSec=90day", "MaxRetentionSec="], None),
        (["Storage=none"], timedelta(0)),
    ],
)
def test_the_longer_of_both_spans_counts(root: Path, lines: list[str], kept: timedelta | None) -> None:
    say(root, *lines)
    assert journald.retention_period(root) == kept


def test_of_two_files_the_later_name_counts(root: Path) -> None:
    say(root, "MaxRetentionSec=1year", file="10-theirs.conf")
    say(root, "MaxRetentionSec=60day", file="90-ours.conf")
    assert journald.retention_period(root) == timedelta(days=60)


def test_what_cannot_be_read_is_no_answer(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    say(root, "MaxRetentionSec=soon")
    with pytest.raises(journald.JournaldSettingsError):
        journald.retention_period(root)
    monkeypatch.setenv("PATH", str(root))
    with pytest.raises(journald.JournaldSettingsError, match="not installed"):
        journald.retention_period(root)


def test_journald_runs_where_it_takes_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journald, "SOCKET", tmp_path / "socket")
    assert not journald.is_running()
    (tmp_path / "socket").touch()
    assert journald.is_running()
