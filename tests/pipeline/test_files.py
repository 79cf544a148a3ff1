"""Files are written completely or not at all, and are private."""

import stat
from pathlib import Path

import pytest

from pipeline import files


def test_write_atomically_replaces_file_and_makes_it_private(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"old")
    path.chmod(0o644)
    files.write_atomically(path, b"new")
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"new", 0o600)
    assert list(tmp_path.iterdir()) == [path]


def test_failed_write_keeps_old_file_only(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="full"), files.replace_atomically(path) as file:
        file.write(_fail())
    assert (path.read_bytes(), list(tmp_path.iterdir())) == (b"old", [path])


def _fail() -> bytes:
    raise OSError("the disk is full")


def test_unfinished_file_is_not_visible(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with files.replace_atomically(path) as file:
        file.write(b"half")
        file.flush()
        assert not path.exists()
    assert path.read_bytes() == b"half"


def test_concurrent_writers_leave_one_complete_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with files.replace_atomically(path) as one, files.replace_atomically(path) as other:
        one.write(b"one")
        other.write(b"other")
    assert (path.read_bytes(), list(tmp_path.iterdir())) == (b"one", [path])


def test_create_private_refuses_existing_file(tmp_path: Path) -> None:
    path = tmp_path / "new"
    with files.create_private(path) as file:
        file.write(b"mine")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        files.create_private(path)
    assert path.read_bytes() == b"mine"
