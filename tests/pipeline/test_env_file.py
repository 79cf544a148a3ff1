"""A `.env` file is read only if no other account could have written it."""

import os
from pathlib import Path

import pytest

from pipeline.env_file import EnvFileError, read_env_file
from pipeline.settings import SettingsError, load

NOBODY = 65534


@pytest.fixture(autouse=True)
def _separate_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / ".env"
    path.write_text("SMT_WEB_PORT=8081\nexport SMT_VENDOR_NAME='Ünal & Söhne'\nsmt_locale=de_DE\n", "utf-8")
    path.chmod(0o600)
    return path


def give_away(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the file belong to another account than the one that reads it."""
    if os.geteuid() == 0:
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: NOBODY)


def refusal(path: Path) -> str:
    with pytest.raises(EnvFileError) as error:
        read_env_file(path)
    return str(error.value)


def test_own_file_is_read(path: Path) -> None:
    file = read_env_file(path)
    assert file
    assert file.variables == {"SMT_WEB_PORT": "8081", "SMT_VENDOR_NAME": "Ünal & Söhne", "SMT_LOCALE": "de_DE"}
    assert (file.path, file.mode, file.is_private) == (path, 0o600, True)


def test_file_of_another_account_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    give_away(path, monkeypatch)
    message = refusal(path)
    assert message.startswith(f"{path} belongs to ")
    assert f"run: chown {os.geteuid()} {path}" in message
    with pytest.raises(SettingsError, match="belongs to"):
        load()


def test_unreadable_file_of_another_account_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.chmod(0)
    give_away(path, monkeypatch)
    assert " belongs to " in refusal(path)


def test_file_of_root_is_read_by_another_account(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can create a file of root")
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
    assert read_env_file(path)


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_file_that_others_can_write_to_is_refused(path: Path, mode: int) -> None:
    path.chmod(mode)
    message = refusal(path)
    assert f"mode {mode:04o}" in message
    assert message.endswith(f"run: chmod 600 {path}")
    with pytest.raises(SettingsError, match="is writable by other accounts"):
        load()


def test_link_of_another_account_is_refused(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else another account could choose which of the reader's own files is read."""
    path.rename(tmp_path / "settings")
    path.symlink_to("settings")
    assert read_env_file(path)
    give_away(path, monkeypatch)
    assert " belongs to " in refusal(path)


def test_link_to_file_that_others_can_write_to_is_refused(path: Path, tmp_path: Path) -> None:
    path.rename(tmp_path / "settings")
    (tmp_path / "settings").chmod(0o666)
    path.symlink_to("settings")
    assert "is writable by other accounts" in refusal(path)


def test_absent_file_folder_and_pipe_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    assert read_env_file(path) is None
    path.mkdir(mode=0o700)
    assert read_env_file(path) is None
    path.rmdir()
    os.mkfifo(path, 0o600)
    assert read_env_file(path) is None
    assert load().web_port == 8000


def test_binary_file_is_refused(path: Path) -> None:
    path.write_bytes(b"\xff\xfe")
    assert refusal(path) == f"{path} is not UTF-8 text"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("SMT_WEB_PORT=1\n\n# a comment\nSMT_VENDOR_NAME='Acme hush\n", 4),
        ("SMT_VENDOR_NAME\n", 1),
        ("SMT_WEB_PORT=1\n  hush hush\n", 2),
    ],
)
def test_line_that_is_no_assignment_is_named(path: Path, text: str, line: int) -> None:
    path.write_text(text)
    message = refusal(path)
    assert message.startswith(f"{path}, line {line}: this is not NAME=value.")
    assert "hush" not in message


def test_comments_and_values_in_quotation_marks_are_read(path: Path) -> None:
    path.write_text("# first\n\nexport SMT_A='x # y'  # more\nSMT_B=\nSMT_C=\"two\nlines\"\n")
    file = read_env_file(path)
    assert file
    assert file.variables == {"SMT_A": "x # y", "SMT_B": "", "SMT_C": "two\nlines"}
