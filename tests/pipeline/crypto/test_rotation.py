"""The master key is replaced while everything runs: nothing is lost, nobody stops, and the old one opens nothing more."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pipeline.crypto import rotation
from pipeline.crypto.keyring import DecryptionError, Keyring
from pipeline.crypto.master_key import MasterKey, MasterKeyError, open_master_key, previous_key_path
from pipeline.db.engine import DatabaseUnavailableError
from pipeline.db.models import EncryptionKey, Erasure
from tests.support.pipeline_under_test import River

ROOT = Path(__file__).parents[3]
LABELS = [f"I-{number:04}" for number in range(1200)]  # more than two batches


@pytest.fixture
def path(river: River) -> Path:
    return river.folder / "keys" / "master.key"


def seal_all(river: River, labels: list[str]) -> dict[str, bytes]:
    with river.database.transaction() as session:
        seals = river.keyring(session).load(labels)
        return {label: seal.encrypt("event.body", b"Ada Example") for label in labels if (seal := seals[label])}


def assert_all_open(river: River, sealed: dict[str, bytes], master_key: MasterKey) -> None:
    with river.database.transaction() as session:
        ring = Keyring(master_key, session, river.now)
        ring.load(sealed)
        assert all(
            ring.system_key(label).decrypt("event.body", value) == b"Ada Example" for label, value in sealed.items()
        )


def rotate(river: River, path: Path) -> rotation.RotationResult:
    return rotation.rotate(river.database, path, river.now, grace_seconds=0)


def test_every_key_is_wrapped_anew_and_opens_what_it_had_sealed(river: River, path: Path) -> None:
    sealed, old = seal_all(river, LABELS), path.read_bytes()
    before = {row.key_id: row.wrapped_key for row in river.rows(EncryptionKey)}
    done = rotate(river, path)
    assert done.keys == len(before)
    assert path.read_bytes() != old
    assert done.new_id == open_master_key(path).id != done.old_id
    assert not previous_key_path(path).exists()
    assert [row.key_id for row in river.rows(EncryptionKey) if row.wrapped_key == before[row.key_id]] == []
    assert_all_open(river, sealed, open_master_key(path))


def test_the_old_master_key_opens_none_of_the_keys_afterwards(river: River, path: Path) -> None:
    seal_all(river, LABELS[:5])
    old = MasterKey(open_secret(path))
    rotate(river, path)
    for row in river.rows(EncryptionKey):
        with pytest.raises(MasterKeyError):
            old.unwrap(row.key_id, row.wrapped_key or b"")


def test_who_has_the_old_key_in_memory_notices_and_goes_on(river: River, path: Path) -> None:
    sealed = seal_all(river, LABELS[:5])
    running = river.master
    rotate(river, path)
    rotate(river, path)
    assert_all_open(river, sealed, running)
    assert running.id == open_master_key(path).id


def test_a_key_that_is_made_while_the_master_key_goes_is_not_left_to_the_old_one(
    river: River, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker has looked at the file, and not yet wrapped its key, when the file is replaced."""
    seal_all(river, LABELS[:5])
    made, go, done = threading.Event(), threading.Event(), []
    running = open_master_key(path)
    wrap = running.wrap

    def slow(label: str, secret: bytes) -> bytes:
        wrapped = wrap(label, secret)
        made.set()
        go.wait(20)
        return wrapped

    def make() -> None:
        with river.database.transaction() as session:
            Keyring(running, session, river.now).load(["I-LATE"])

    monkeypatch.setattr(running, "wrap", slow)
    worker = threading.Thread(target=make)
    worker.start()
    assert made.wait(20)
    rotator = threading.Thread(target=lambda: done.append(rotate(river, path)))
    rotator.start()
    rotator.join(0.5)
    assert not done
    go.set()
    worker.join()
    rotator.join()
    assert_all_open(river, seal_all(river, ["I-LATE"]), open_master_key(path))


def test_workers_make_keys_and_read_them_all_the_while(river: River, path: Path) -> None:
    sealed: dict[str, bytes] = {}
    failed: list[BaseException] = []
    stop = threading.Event()

    def work(name: str) -> None:
        running, number = open_master_key(path), 0
        while not stop.is_set():
            label, number = f"I-{name}-{number}", number + 1
            try:
                with river.database.transaction() as session:
                    ring = Keyring(running, session, river.now)
                    sealed[label] = ring.system_key(label).encrypt("event.body", b"Ada Example")
                with river.database.transaction() as session:
                    Keyring(running, session, river.now).system_key(label).decrypt("event.body", sealed[label])
            except DatabaseUnavailableError:
                sealed.pop(label, None)
            except (MasterKeyError, DecryptionError) as error:
                failed.append(error)
                return

    workers = [threading.Thread(target=work, args=(name,)) for name in ("A", "B")]
    for worker in workers:
        worker.start()
    for _ in range(3):
        rotation.rotate(river.database, path, river.now, grace_seconds=1)
    stop.set()
    for worker in workers:
        worker.join()
    assert failed == []
    assert sealed
    assert_all_open(river, sealed, open_master_key(path))


KILLED = """
import os, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from pipeline.crypto import rotation
from pipeline.db.engine import Database

url, path, name, times = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
real, left = getattr(rotation, name), [times]

def dying(*args, **kwargs):
    done = real(*args, **kwargs) if left[0] > 0 else None
    left[0] -= 1
    if left[0] < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return done

setattr(rotation, name, dying)
rotation.BATCH = 20
rotation.rotate(Database(url), path, datetime(2026, 3, 1, tzinfo=UTC), grace_seconds=0)
"""
# Killed before or between each of its steps: at the nth call of this function of it.
PLACES = [
    ("_begin", 0), ("sync_folder", 0), ("_write", 0), ("sync_folder", 1), ("lock_after_writers", 0), ("_wrap_all", 0),
    ("_wrap_some", 1), ("_wrap_some", 3), ("_destroy", 0), ("sync_folder", 2), ("complete_erasures", 0),
]  # fmt: skip


@pytest.mark.parametrize(("name", "times"), PLACES)
def test_a_rotation_that_was_killed_anywhere_is_finished_by_the_next(
    river: River, path: Path, name: str, times: int
) -> None:
    sealed = seal_all(river, LABELS[:100])
    first = open_master_key(path).id
    with river.database.transaction() as session:
        session.add(erasure("E-1", first, river))
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, river.url, str(path), name, str(times)],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    assert_all_open(river, sealed, open_master_key(path))  # half-way, too, everything can be read
    assert_all_open(river, sealed, river.master)
    rotate(river, path)
    assert open_master_key(path).id != first
    assert sorted(each.name for each in path.parent.iterdir()) == [path.name]
    assert_all_open(river, sealed, open_master_key(path))
    assert river.rows(Erasure)[0].completed_at == river.now


def test_an_erasure_is_complete_when_its_master_key_is_gone_and_not_before(river: River, path: Path) -> None:
    seal_all(river, LABELS[:5])
    with river.database.transaction() as session:
        session.add(erasure("E-1", river.master.id, river))
        session.flush()
        assert rotation.is_pending(session)
        assert rotation.complete_erasures(session, path, river.master, river.now) == 0
    done = rotate(river, path)
    assert done.completed == 1
    with river.database.transaction() as session:
        session.add(erasure("E-2", done.new_id, river))
    first, second = river.rows(Erasure)
    assert (first.completed_at, second.completed_at) == (river.now, None)


def test_the_old_key_is_overwritten_before_its_name_goes(brook: River, monkeypatch: pytest.MonkeyPatch) -> None:
    path = brook.folder / "keys" / "master.key"
    old, seen = path.read_bytes(), []
    unlink = Path.unlink

    def look(self: Path, missing_ok: bool = False) -> None:
        if self == previous_key_path(path):
            seen.append(self.read_bytes())
        unlink(self, missing_ok)

    monkeypatch.setattr(Path, "unlink", look)
    rotate(brook, path)
    assert len(seen) == 1
    assert len(seen[0]) == len(old)
    assert seen[0] != old


def test_a_key_that_opens_with_neither_keeps_the_old_master_key_alive(brook: River) -> None:
    path = brook.folder / "keys" / "master.key"
    sealed = seal_all(brook, LABELS[:5])
    (broken,) = [row for row in brook.rows(EncryptionKey) if row.key_id == LABELS[2]]
    right = broken.wrapped_key
    brook.set(broken, wrapped_key=os.urandom(60))
    with pytest.raises(MasterKeyError):
        rotate(brook, path)
    assert previous_key_path(path).exists()
    brook.set(broken, wrapped_key=right)
    rotate(brook, path)
    assert_all_open(brook, sealed, open_master_key(path))


def test_what_a_restore_needs_is_saved_before_the_old_key_goes(brook: River) -> None:
    path = brook.folder / "keys" / "master.key"
    seal_all(brook, LABELS[:5])

    def save(master_key: MasterKey) -> None:
        assert previous_key_path(path).exists()
        for row in brook.rows(EncryptionKey):
            assert master_key.rewrap(row.key_id, row.wrapped_key or b"") is None
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        rotation.rotate(brook.database, path, brook.now, save=save, grace_seconds=0)
    assert previous_key_path(path).exists()


def test_two_rotations_at_once_are_one_too_many(brook: River) -> None:
    path = brook.folder / "keys" / "master.key"

    def again(_: MasterKey) -> None:
        with pytest.raises(MasterKeyError, match="another process"):
            rotate(brook, path)

    rotation.rotate(brook.database, path, brook.now, save=again, grace_seconds=0)


def test_a_key_that_cannot_be_replaced_says_what_to_do(brook: River, monkeypatch: pytest.MonkeyPatch) -> None:
    path = brook.folder / "keys" / "master.key"

    def read_only(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "link", read_only)
    with pytest.raises(MasterKeyError, match="SMT_MASTER_KEY_FILE"):
        rotate(brook, path)


def erasure(id: str, master_id: str, river: River) -> Erasure:
    return Erasure(id=id, customer_id="c1", key_ids=["c1"], at=river.now, receipt={}, master_key_id=master_id)


def open_secret(path: Path) -> bytes:
    import base64

    return base64.b64decode(path.read_bytes())
