"""Files are there whole or not at all, and are for us alone."""

import stat
from pathlib import Path

import pytest

from pipeline import files


def test_a_file_takes_the_place_of_the_one_before_and_is_for_us_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"old")
    path.chmod(0o644)
    files.write_atomically(path, b"new")
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"new", 0o600)
    assert list(tmp_path.iterdir()) == [path]


def test_what_fails_half_way_leaves_the_file_before_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="full"), files.replace_atomically(path) as file:
        file.write(_cut_off())
    assert (path.read_bytes(), list(tmp_path.iterdir())) == (b"old", [path])


def _cut_off() -> bytes:
    raise OSError("the disk is full")


def test_nobody_sees_a_file_that_is_being_written(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with files.replace_atomically(path) as file:
        file.write(b"half")
        file.flush()
        assert not path.exists()
    assert path.read_bytes() == b"half"


def test_two_that_write_the_same_file_leave_one_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with files.replace_atomically(path) as one, files.replace_atomically(path) as other:
        one.write(b"one")
        other.write(b"other")
    assert (path.read_bytes(), list(tmp_path.iterdir())) == (b"one", [path])


def test_a_new_file_is_for_us_alone_and_takes_no_others_place(tmp_path: Path) -> None:
    path = tmp_path / "new"
    with files.create_private(path) as file:
        file.write(b"mine")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        files.create_private(path)
    assert path.read_bytes() == b"mine"
