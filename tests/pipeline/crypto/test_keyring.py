"""Values are decrypted only with the right key, row and column, and the file of the master key is private."""

import base64
import os
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline.crypto.key_ids import ProtectedKeyError
from pipeline.crypto.keyring import INDEX, TOKENS, DecryptionError, Keyring
from pipeline.crypto.master_key import MasterKey, MasterKeyError, open_master_key
from pipeline.crypto.signing import SIGNING
from pipeline.db.models import EncryptionKey
from pipeline.inbox import store as inbox
from pipeline.outbox.store import OPERATOR
from tests.support.pipeline_under_test import PipelineUnderTest, delivery, happened

ROOT = Path(__file__).parents[3]
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def path(data_dir: Path) -> Path:
    return data_dir / "keys" / "master.key"


# Encryption


def test_encrypted_value_is_decrypted(pipeline: PipelineUnderTest) -> None:
    with pipeline.database.transaction() as session:
        key = pipeline.keyring(session).system_key("I-ADA")
        encrypted = key.encrypt_json("event.personal_data", {"email": "ada@example.com", "none": None})
    with pipeline.database.transaction() as session:
        again = pipeline.keyring(session).system_key("I-ADA")
        assert again.decrypt_json("event.personal_data", encrypted) == {"email": "ada@example.com", "none": None}
        assert again.decrypt_json("event.personal_data", None) is None
    assert b"ada" not in encrypted


def test_equal_values_have_different_ciphertexts(sqlite_pipeline: PipelineUnderTest) -> None:
    with sqlite_pipeline.database.transaction() as session:
        key = sqlite_pipeline.keyring(session).system_key("I-ADA")
        assert key.encrypt("event.body", b"ada") != key.encrypt("event.body", b"ada")


def test_value_cannot_be_decrypted_in_another_column(sqlite_pipeline: PipelineUnderTest) -> None:
    with sqlite_pipeline.database.transaction() as session:
        key = sqlite_pipeline.keyring(session).system_key("I-ADA")
        encrypted = key.encrypt("event.body", b"ada")
        with pytest.raises(DecryptionError, match=r"event\.personal_data of I-ADA"):
            key.decrypt("event.personal_data", encrypted)


def test_value_cannot_be_decrypted_under_another_key_id(sqlite_pipeline: PipelineUnderTest) -> None:
    with sqlite_pipeline.database.transaction() as session:
        ring = sqlite_pipeline.keyring(session)
        encrypted = ring.system_key("I-ADA").encrypt("event.body", b"ada")
        with pytest.raises(DecryptionError):
            ring.system_key("I-BEA").decrypt("event.body", encrypted)


def test_wrapped_key_cannot_be_unwrapped_under_another_key_id(pipeline: PipelineUnderTest) -> None:
    """Otherwise, swapping two rows of the key table would show one customer's mails as another's."""
    pipeline.store(delivery(happened(kind="X", resource={})))
    with pipeline.database.transaction() as session:
        ring = pipeline.keyring(session)
        ring.load(["I-ADA", "I-BEA"])
    ada, bea = (
        next(row for row in pipeline.rows(EncryptionKey) if row.key_id == key_id) for key_id in ("I-ADA", "I-BEA")
    )
    pipeline.set(ada, wrapped_key=bea.wrapped_key)
    with pipeline.database.transaction() as session, pytest.raises(MasterKeyError):
        pipeline.keyring(session).get("I-ADA")


@pytest.mark.parametrize("place", [0, 12, -1])
def test_value_with_one_changed_bit_cannot_be_decrypted(sqlite_pipeline: PipelineUnderTest, place: int) -> None:
    with sqlite_pipeline.database.transaction() as session:
        key = sqlite_pipeline.keyring(session).system_key("I-ADA")
        encrypted = bytearray(key.encrypt("event.body", b"ada"))
        encrypted[place] ^= 1
        with pytest.raises(DecryptionError):
            key.decrypt("event.body", bytes(encrypted))


@pytest.mark.parametrize("encrypted", [b"", b"short", bytes(12), bytes(27)])
def test_invalid_value_cannot_be_decrypted(sqlite_pipeline: PipelineUnderTest, encrypted: bytes) -> None:
    with sqlite_pipeline.database.transaction() as session, pytest.raises(DecryptionError):
        sqlite_pipeline.keyring(session).system_key("I-ADA").decrypt("event.body", encrypted)


def test_repr_of_data_key_hides_secret(sqlite_pipeline: PipelineUnderTest) -> None:
    with sqlite_pipeline.database.transaction() as session:
        key = sqlite_pipeline.keyring(session).system_key("I-ADA")
    assert repr(key) == "DataKey(key_id='I-ADA')"


def test_digest_depends_on_text_and_key(pipeline: PipelineUnderTest) -> None:
    with pipeline.database.transaction() as session:
        ring = pipeline.keyring(session)
        one = ring.digest(INDEX, "email:ada@example.com")
        assert ring.digest(TOKENS, "email:ada@example.com") != one
        assert ring.digest(INDEX, "email:bea@example.com") != one
    with pipeline.database.transaction() as session:
        assert pipeline.keyring(session).digest(INDEX, "email:ada@example.com") == one


def test_wrong_master_key_is_reported(pipeline: PipelineUnderTest) -> None:
    with pipeline.database.transaction() as session:
        pipeline.keyring(session).system_key("I-ADA")
    with pipeline.database.transaction() as session, pytest.raises(MasterKeyError, match="restore the right key file"):
        Keyring(MasterKey(os.urandom(32)), session, NOON).get("I-ADA")


def test_destroyed_key_stays_destroyed(pipeline: PipelineUnderTest) -> None:
    pipeline.store(delivery(happened(person="ada")))
    pipeline.set(pipeline.rows(EncryptionKey)[0], wrapped_key=None, erased_at=NOON)
    with pipeline.database.transaction() as session:
        assert pipeline.keyring(session).get("event:WH-1") is None
        with pytest.raises(MasterKeyError, match="backup"):
            pipeline.keyring(session).system_key("event:WH-1")
    assert pipeline.rows(EncryptionKey)[0].wrapped_key is None


def test_event_of_destroyed_key_keeps_only_facts(pipeline: PipelineUnderTest) -> None:
    resource = {
        "id": "I-ADA",
        "status": "ACTIVE",
        "subscriber": {"email_address": "ada@example.com", "name": {"given_name": "Ada"}},
    }
    with pipeline.database.transaction() as session:
        pipeline.keyring(session).load(["I-ADA"])
    pipeline.set(
        next(row for row in pipeline.rows(EncryptionKey) if row.key_id == "I-ADA"), wrapped_key=None, erased_at=NOON
    )
    pipeline.store(delivery(happened(kind="BILLING.SUBSCRIPTION.ACTIVATED", resource=resource)))
    row = pipeline.event("WH-1")
    assert row.facts["status"] == "ACTIVE"
    assert (row.personal_data, row.body) == (None, None)
    with pipeline.database.transaction() as session:
        keyring = pipeline.keyring(session)
        (received,) = inbox.lock_received(session, ["WH-1"])
        assert inbox.open_event(received, keyring).person == {}


def test_concurrent_transactions_create_the_same_key(pipeline: PipelineUnderTest) -> None:
    start = threading.Barrier(4, timeout=30)

    def create(number: int) -> bytes:
        start.wait()
        with pipeline.database.transaction() as session:
            return pipeline.keyring(session).system_key("I-ADA").encrypt("event.body", str(number).encode())

    with ThreadPoolExecutor(4) as pool:
        encrypted = list(pool.map(create, range(4)))
    with pipeline.database.transaction() as session:
        key = pipeline.keyring(session).system_key("I-ADA")
        assert [key.decrypt("event.body", each) for each in encrypted] == [b"0", b"1", b"2", b"3"]
    assert pipeline.count(EncryptionKey) == 1


# The master key's file


def test_master_key_is_created_once_and_is_private(path: Path) -> None:
    old_umask = os.umask(0)
    try:
        first = open_master_key(path)
    finally:
        os.umask(old_umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert len(base64.b64decode(path.read_bytes())) == 32
    assert open_master_key(path).id == first.id
    assert [each.name for each in path.parent.iterdir()] == ["master.key"]


def test_missing_master_key_is_not_created_unless_requested(path: Path) -> None:
    with pytest.raises(MasterKeyError, match=r"cannot read the master key .*No such file"):
        open_master_key(path, create=False)
    assert not path.exists()


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o660, 0o444])
def test_master_key_readable_by_others_is_rejected(path: Path, mode: int) -> None:
    open_master_key(path)
    path.chmod(mode)
    with pytest.raises(MasterKeyError, match="chmod 600"):
        open_master_key(path)


@pytest.mark.parametrize(
    "text", [b"", b"short", b"\xff" * 40, base64.b64encode(bytes(31)), base64.b64encode(bytes(33))]
)
def test_invalid_master_key_file_is_rejected(path: Path, text: bytes) -> None:
    path.parent.mkdir(mode=0o700)
    path.write_bytes(text)
    path.chmod(0o600)
    with pytest.raises(MasterKeyError, match="32 bytes in base64"):
        open_master_key(path)


def test_unusable_key_folder_is_reported(data_dir: Path) -> None:
    (data_dir / "keys").write_text("not a folder")
    with pytest.raises(MasterKeyError, match="cannot create or read the master key"):
        open_master_key(data_dir / "keys" / "master.key")


KILLED = """
import os, sys
from pathlib import Path
from pipeline.crypto.master_key import open_master_key
os.fsync = lambda _: os._exit(9)
open_master_key(Path(sys.argv[1]))
"""


def test_killed_start_does_not_block_the_next(path: Path) -> None:
    """Also if every start has the same process id, as in a container."""
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path)], cwd=ROOT, check=False)
    assert killed.returncode == 9
    assert not path.exists()
    assert len(list(path.parent.iterdir())) == 1
    assert open_master_key(path).id


def test_master_key_is_synced_to_disk_when_created(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its directory entry too. Without the master key, all data keys in the database would be lost."""
    synced: list[Path] = []
    real_fsync = os.fsync

    def record(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        real_fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    open_master_key(path)
    assert synced[-1] == path.parent
    assert [each.parent for each in synced[:-1]] == [path.parent]


OPEN = """
import sys
from pathlib import Path
from pipeline.crypto.master_key import open_master_key
print("ready", flush=True)
sys.stdin.readline()
print(open_master_key(Path(sys.argv[1])).id)
"""


def test_concurrent_processes_create_the_same_master_key(path: Path) -> None:
    command = [sys.executable, "-c", OPEN, str(path)]
    started = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    for process in started:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    ids = [process.communicate("go\n", timeout=30)[0] for process in started]
    assert set(ids) == {open_master_key(path).id + "\n"}


def test_concurrent_threads_create_the_same_master_key(path: Path) -> None:
    start = threading.Barrier(8, timeout=30)

    def create(_: int) -> str:
        start.wait()
        return open_master_key(path).id

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(create, range(8)))) == 1


@pytest.mark.parametrize("key_id", [INDEX, TOKENS, SIGNING, OPERATOR])
def test_system_key_cannot_be_destroyed(sqlite_pipeline: PipelineUnderTest, key_id: str) -> None:
    with sqlite_pipeline.database.transaction() as session:
        keyring = sqlite_pipeline.keyring(session)
        secret = keyring.system_key(key_id).secret
        with pytest.raises(ProtectedKeyError, match=key_id):
            keyring.destroy(["I-ADA", key_id])
        again = sqlite_pipeline.keyring(session)
        assert again.system_key(key_id).secret == secret
        assert not again.is_erased("I-ADA"), "nothing is destroyed if one of the keys is protected"
