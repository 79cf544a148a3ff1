"""Files with keys or personal data must be private; new files are created that way."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.operations import file_permissions
from pipeline.settings import Settings, SettingsError
from tests.support.vendor import ENVIRONMENT

ROOT = Path(__file__).parents[3]
Make = Callable[..., Settings]


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def settings(make_settings: Make, data_dir: Path) -> Settings:
    made = make_settings()
    for path in (made.master_key, data_dir / "smt-billing.db"):
        path.parent.mkdir(mode=0o700, exist_ok=True)
        path.touch(0o600)
    return made


def test_private_files_are_accepted(settings: Settings) -> None:
    file_permissions.require_private(settings)


def test_readable_file_is_rejected_with_chmod_command(settings: Settings, data_dir: Path) -> None:
    database = data_dir / "smt-billing.db"
    for path, mode, command in (
        (data_dir, 0o750, f"chmod 700 {data_dir}"),
        (settings.master_key, 0o640, f"chmod 600 {settings.master_key}"),
        (database, 0o604, f"chmod 600 {database}"),
    ):
        before = path.stat().st_mode
        path.chmod(mode)
        with pytest.raises(SettingsError, match=command):
            file_permissions.require_private(settings)
        path.chmod(before)
    file_permissions.require_private(settings)


def test_missing_files_are_accepted(make_settings: Make, tmp_path: Path) -> None:
    file_permissions.require_private(make_settings(master_key_file=tmp_path / "keys" / "master.key"))


def test_commands_create_private_files_for_any_umask(data_dir: Path, tmp_path: Path) -> None:
    program = [sys.executable, "-m", "pipeline"]
    env = {**ENVIRONMENT, "SMT_DATA_DIR": str(data_dir), "PYTHONPATH": str(ROOT)}
    text = tmp_path / "mail.html"
    for words in (["db", "upgrade"], ["mail", "preview", "receipt", "--out", str(text)]):
        subprocess.run([*program, *words], env=env, cwd=tmp_path, check=True, capture_output=True, timeout=60)
    created = [text, *data_dir.rglob("*")]
    assert len(created) > 1
    assert [path for path in created if file_permissions.is_readable_by_others(path)] == []


def test_private_files_include_data_folder_and_key(settings: Settings, data_dir: Path) -> None:
    (data_dir / "log").write_text("x")
    assert {data_dir / "log", settings.master_key} <= set(file_permissions.private_files(settings))
