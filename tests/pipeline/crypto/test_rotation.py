"""The master key is rotated while all roles run: no data is lost, no role stops, and the old key is useless afterwards."""

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
from tests.support.pipeline_under_test import PipelineUnderTest

ROOT = Path(__file__).parents[3]
KEY_IDS = [f"I-{number:04}" for number in range(1200)]  # more than two batches


@pytest.fixture
def path(pipeline: PipelineUnderTest) -> Path:
    return pipeline.folder / "keys" / "master.key"


def encrypt_all(pipeline: PipelineUnderTest, key_ids: list[str]) -> dict[str, bytes]:
    with pipeline.database.transaction() as session:
        keys = pipeline.keyring(session).load(key_ids)
        return {key_id: key.encrypt("event.body", b"Ada Example") for key_id in key_ids if (key := keys[key_id])}


def assert_all_decrypt(pipeline: PipelineUnderTest, encrypted: dict[str, bytes], master_key: MasterKey) -> None:
    with pipeline.database.transaction() as session:
        ring = Keyring(master_key, session, pipeline.now)
        ring.load(encrypted)
        assert all(
            ring.system_key(key_id).decrypt("event.body", value) == b"Ada Example"
            for key_id, value in encrypted.items()
        )


def rotate(pipeline: PipelineUnderTest, path: Path) -> rotation.RotationResult:
    return rotation.rotate(pipeline.database, path, pipeline.now, grace_seconds=0)


def test_every_key_is_wrapped_again_and_still_decrypts(pipeline: PipelineUnderTest, path: Path) -> None:
    encrypted, old = encrypt_all(pipeline, KEY_IDS), path.read_bytes()
    before = {row.key_id: row.wrapped_key for row in pipeline.rows(EncryptionKey)}
    done = rotate(pipeline, path)
    assert done.keys == len(before)
    assert path.read_bytes() != old
    assert done.new_id == open_master_key(path).id != done.old_id
    assert not previous_key_path(path).exists()
    assert [row.key_id for row in pipeline.rows(EncryptionKey) if row.wrapped_key == before[row.key_id]] == []
    assert_all_decrypt(pipeline, encrypted, open_master_key(path))


def test_old_master_key_unwraps_no_key_afterwards(pipeline: PipelineUnderTest, path: Path) -> None:
    encrypt_all(pipeline, KEY_IDS[:5])
    old = MasterKey(open_secret(path))
    rotate(pipeline, path)
    for row in pipeline.rows(EncryptionKey):
        with pytest.raises(MasterKeyError):
            old.unwrap(row.key_id, row.wrapped_key or b"")


def test_running_process_switches_to_the_new_master_key(pipeline: PipelineUnderTest, path: Path) -> None:
    encrypted = encrypt_all(pipeline, KEY_IDS[:5])
    running = pipeline.master
    rotate(pipeline, path)
    rotate(pipeline, path)
    assert_all_decrypt(pipeline, encrypted, running)
    assert running.id == open_master_key(path).id


def test_key_created_during_rotation_uses_the_new_master_key(
    pipeline: PipelineUnderTest, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is replaced after the worker has read it and before the worker has committed its wrapped key."""
    encrypt_all(pipeline, KEY_IDS[:5])
    wrapped_one, proceed, done = threading.Event(), threading.Event(), []
    running = open_master_key(path)
    wrap = running.wrap

    def slow(key_id: str, secret: bytes) -> bytes:
        wrapped = wrap(key_id, secret)
        wrapped_one.set()
        proceed.wait(20)
        return wrapped

    def create_key() -> None:
        with pipeline.database.transaction() as session:
            Keyring(running, session, pipeline.now).load(["I-LATE"])

    monkeypatch.setattr(running, "wrap", slow)
    worker = threading.Thread(target=create_key)
    worker.start()
    assert wrapped_one.wait(20)
    rotator = threading.Thread(target=lambda: done.append(rotate(pipeline, path)))
    rotator.start()
    rotator.join(0.5)
    assert not done
    proceed.set()
    worker.join()
    rotator.join()
    assert_all_decrypt(pipeline, encrypt_all(pipeline, ["I-LATE"]), open_master_key(path))


@pytest.mark.slow
def test_workers_create_and_read_keys_during_rotations(pipeline: PipelineUnderTest, path: Path) -> None:
    encrypted: dict[str, bytes] = {}
    failed: list[BaseException] = []
    stop = threading.Event()

    def work(name: str) -> None:
        running, number = open_master_key(path), 0
        while not stop.is_set():
            key_id, number = f"I-{name}-{number}", number + 1
            try:
                with pipeline.database.transaction() as session:
                    ring = Keyring(running, session, pipeline.now)
                    encrypted[key_id] = ring.system_key(key_id).encrypt("event.body", b"Ada Example")
                with pipeline.database.transaction() as session:
                    Keyring(running, session, pipeline.now).system_key(key_id).decrypt("event.body", encrypted[key_id])
            except DatabaseUnavailableError:
                encrypted.pop(key_id, None)
            except (MasterKeyError, DecryptionError) as error:
                failed.append(error)
                return

    workers = [threading.Thread(target=work, args=(name,)) for name in ("A", "B")]
    for worker in workers:
        worker.start()
    for _ in range(3):
        rotation.rotate(pipeline.database, path, pipeline.now, grace_seconds=1)
    stop.set()
    for worker in workers:
        worker.join()
    assert failed == []
    assert encrypted
    assert_all_decrypt(pipeline, encrypted, open_master_key(path))


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
# The rotation is killed before and between all its steps: at the nth call of each function.
KILL_POINTS = [
    ("_begin", 0), ("sync_folder", 0), ("_write", 0), ("sync_folder", 1), ("lock_after_writers", 0), ("_wrap_all", 0),
    ("_wrap_some", 1), ("_wrap_some", 3), ("_destroy", 0), ("sync_folder", 2), ("complete_erasures", 0),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("name", "times"), KILL_POINTS)
def test_killed_rotation_is_finished_by_the_next(
    pipeline: PipelineUnderTest, path: Path, name: str, times: int
) -> None:
    encrypted = encrypt_all(pipeline, KEY_IDS[:100])
    first = open_master_key(path).id
    with pipeline.database.transaction() as session:
        session.add(erasure("E-1", first, pipeline))
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, pipeline.url, str(path), name, str(times)],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    assert_all_decrypt(pipeline, encrypted, open_master_key(path))  # everything can also be decrypted half-way
    assert_all_decrypt(pipeline, encrypted, pipeline.master)
    rotate(pipeline, path)
    assert open_master_key(path).id != first
    assert sorted(each.name for each in path.parent.iterdir()) == [path.name]
    assert_all_decrypt(pipeline, encrypted, open_master_key(path))
    assert pipeline.rows(Erasure)[0].completed_at == pipeline.now


def test_erasure_is_complete_after_its_master_key_is_destroyed(pipeline: PipelineUnderTest, path: Path) -> None:
    encrypt_all(pipeline, KEY_IDS[:5])
    with pipeline.database.transaction() as session:
        session.add(erasure("E-1", pipeline.master.id, pipeline))
        session.flush()
        assert rotation.is_pending(session)
        assert rotation.complete_erasures(session, path, pipeline.master, pipeline.now) == 0
    done = rotate(pipeline, path)
    assert done.completed == 1
    with pipeline.database.transaction() as session:
        session.add(erasure("E-2", done.new_id, pipeline))
    first, second = pipeline.rows(Erasure)
    assert (first.completed_at, second.completed_at) == (pipeline.now, None)


def test_old_key_is_overwritten_before_it_is_removed(
    sqlite_pipeline: PipelineUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = sqlite_pipeline.folder / "keys" / "master.key"
    old, seen = path.read_bytes(), []
    unlink = Path.unlink

    def record(self: Path, missing_ok: bool = False) -> None:
        if self == previous_key_path(path):
            seen.append(self.read_bytes())
        unlink(self, missing_ok)

    monkeypatch.setattr(Path, "unlink", record)
    rotate(sqlite_pipeline, path)
    assert len(seen) == 1
    assert len(seen[0]) == len(old)
    assert seen[0] != old


def test_unreadable_data_key_keeps_the_old_master_key(sqlite_pipeline: PipelineUnderTest) -> None:
    path = sqlite_pipeline.folder / "keys" / "master.key"
    encrypted = encrypt_all(sqlite_pipeline, KEY_IDS[:5])
    (broken,) = [row for row in sqlite_pipeline.rows(EncryptionKey) if row.key_id == KEY_IDS[2]]
    right = broken.wrapped_key
    sqlite_pipeline.set(broken, wrapped_key=os.urandom(60))
    with pytest.raises(MasterKeyError):
        rotate(sqlite_pipeline, path)
    assert previous_key_path(path).exists()
    sqlite_pipeline.set(broken, wrapped_key=right)
    rotate(sqlite_pipeline, path)
    assert_all_decrypt(sqlite_pipeline, encrypted, open_master_key(path))


def test_keys_are_saved_before_the_old_key_is_destroyed(sqlite_pipeline: PipelineUnderTest) -> None:
    path = sqlite_pipeline.folder / "keys" / "master.key"
    encrypt_all(sqlite_pipeline, KEY_IDS[:5])

    def save(master_key: MasterKey) -> None:
        assert previous_key_path(path).exists()
        for row in sqlite_pipeline.rows(EncryptionKey):
            assert master_key.rewrap(row.key_id, row.wrapped_key or b"") is None
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        rotation.rotate(sqlite_pipeline.database, path, sqlite_pipeline.now, save=save, grace_seconds=0)
    assert previous_key_path(path).exists()


def test_second_concurrent_rotation_is_rejected(sqlite_pipeline: PipelineUnderTest) -> None:
    path = sqlite_pipeline.folder / "keys" / "master.key"

    def again(_: MasterKey) -> None:
        with pytest.raises(MasterKeyError, match="another process"):
            rotate(sqlite_pipeline, path)

    rotation.rotate(sqlite_pipeline.database, path, sqlite_pipeline.now, save=again, grace_seconds=0)


def test_error_explains_how_to_make_key_file_replaceable(
    sqlite_pipeline: PipelineUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = sqlite_pipeline.folder / "keys" / "master.key"

    def read_only(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "link", read_only)
    with pytest.raises(MasterKeyError, match="SMT_MASTER_KEY_FILE"):
        rotate(sqlite_pipeline, path)


def erasure(id: str, master_id: str, pipeline: PipelineUnderTest) -> Erasure:
    return Erasure(id=id, customer_id="c1", key_ids=["c1"], at=pipeline.now, receipt={}, master_key_id=master_id)


def open_secret(path: Path) -> bytes:
    import base64

    return base64.b64decode(path.read_bytes())
