"""What is sealed opens only where it belongs, the master key is guarded, and no personal data lies about in the clear."""

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

from pipeline.crypto.keyring import INDEX, TOKENS, DecryptionError, Keyring
from pipeline.crypto.master_key import MasterKey, MasterKeyError, open_master_key
from pipeline.db.models import EncryptionKey
from pipeline.inbox import store as inbox
from tests.support.pipeline_under_test import River, delivery, happened

ROOT = Path(__file__).parents[3]
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def path(data_dir: Path) -> Path:
    return data_dir / "keys" / "master.key"


# Sealing


def test_what_is_sealed_opens_again(river: River) -> None:
    with river.database.transaction() as session:
        seal = river.keyring(session).system_key("I-ADA")
        sealed = seal.encrypt_json("event.personal_data", {"email": "ada@example.com", "none": None})
    with river.database.transaction() as session:
        again = river.keyring(session).system_key("I-ADA")
        assert again.decrypt_json("event.personal_data", sealed) == {"email": "ada@example.com", "none": None}
        assert again.decrypt_json("event.personal_data", None) is None
    assert b"ada" not in sealed


def test_the_same_text_never_looks_the_same_twice(brook: River) -> None:
    with brook.database.transaction() as session:
        seal = brook.keyring(session).system_key("I-ADA")
        assert seal.encrypt("event.body", b"ada") != seal.encrypt("event.body", b"ada")


def test_what_was_moved_to_another_column_does_not_open(brook: River) -> None:
    with brook.database.transaction() as session:
        seal = brook.keyring(session).system_key("I-ADA")
        sealed = seal.encrypt("event.body", b"ada")
        with pytest.raises(DecryptionError, match=r"event\.personal_data of I-ADA"):
            seal.decrypt("event.personal_data", sealed)


def test_what_was_moved_to_another_person_does_not_open(brook: River) -> None:
    with brook.database.transaction() as session:
        ring = brook.keyring(session)
        sealed = ring.system_key("I-ADA").encrypt("event.body", b"ada")
        with pytest.raises(DecryptionError):
            ring.system_key("I-BEA").decrypt("event.body", sealed)


def test_a_key_that_was_moved_to_another_person_does_not_open_either(river: River) -> None:
    """Else swapping two rows of the key table would show one customer's mails as the other's."""
    river.store(delivery(happened(kind="X", resource={})))
    with river.database.transaction() as session:
        ring = river.keyring(session)
        ring.load(["I-ADA", "I-BEA"])
    ada, bea = (next(row for row in river.rows(EncryptionKey) if row.key_id == label) for label in ("I-ADA", "I-BEA"))
    river.set(ada, wrapped_key=bea.wrapped_key)
    with river.database.transaction() as session, pytest.raises(MasterKeyError):
        river.keyring(session).get("I-ADA")


@pytest.mark.parametrize("place", [0, 12, -1])
def test_what_was_changed_by_one_bit_does_not_open(brook: River, place: int) -> None:
    with brook.database.transaction() as session:
        seal = brook.keyring(session).system_key("I-ADA")
        sealed = bytearray(seal.encrypt("event.body", b"ada"))
        sealed[place] ^= 1
        with pytest.raises(DecryptionError):
            seal.decrypt("event.body", bytes(sealed))


@pytest.mark.parametrize("sealed", [b"", b"short", bytes(12), bytes(27)])
def test_what_is_no_sealed_value_at_all_does_not_open(brook: River, sealed: bytes) -> None:
    with brook.database.transaction() as session, pytest.raises(DecryptionError):
        brook.keyring(session).system_key("I-ADA").decrypt("event.body", sealed)


def test_a_seal_does_not_show_its_secret(brook: River) -> None:
    with brook.database.transaction() as session:
        seal = brook.keyring(session).system_key("I-ADA")
    assert repr(seal) == "Seal(label='I-ADA')"


def test_a_digest_is_the_same_for_the_same_text_and_another_for_another_key(river: River) -> None:
    with river.database.transaction() as session:
        ring = river.keyring(session)
        one = ring.digest(INDEX, "email:ada@example.com")
        assert ring.digest(TOKENS, "email:ada@example.com") != one
        assert ring.digest(INDEX, "email:bea@example.com") != one
    with river.database.transaction() as session:
        assert river.keyring(session).digest(INDEX, "email:ada@example.com") == one


def test_the_wrong_master_key_says_so(river: River) -> None:
    with river.database.transaction() as session:
        river.keyring(session).system_key("I-ADA")
    with river.database.transaction() as session, pytest.raises(MasterKeyError, match="restore the right key file"):
        Keyring(MasterKey(os.urandom(32)), session, NOON).get("I-ADA")


def test_an_erased_label_seals_nothing_and_stays_erased(river: River) -> None:
    river.store(delivery(happened(person="ada")))
    river.set(river.rows(EncryptionKey)[0], wrapped_key=None, erased_at=NOON)
    with river.database.transaction() as session:
        assert river.keyring(session).get("WH-1") is None
        with pytest.raises(MasterKeyError, match="backup"):
            river.keyring(session).system_key("WH-1")
    assert river.rows(EncryptionKey)[0].wrapped_key is None


def test_an_event_of_an_erased_label_keeps_its_facts_and_nothing_of_the_person(river: River) -> None:
    resource = {
        "id": "I-ADA",
        "status": "ACTIVE",
        "subscriber": {"email_address": "ada@example.com", "name": {"given_name": "Ada"}},
    }
    with river.database.transaction() as session:
        river.keyring(session).load(["I-ADA"])
    river.set(next(row for row in river.rows(EncryptionKey) if row.key_id == "I-ADA"), wrapped_key=None, erased_at=NOON)
    river.store(delivery(happened(kind="BILLING.SUBSCRIPTION.ACTIVATED", resource=resource)))
    row = river.event("WH-1")
    assert row.facts["status"] == "ACTIVE"
    assert (row.personal_data, row.body) == (None, None)
    with river.database.transaction() as session:
        keyring = river.keyring(session)
        (received,) = inbox.lock_received(session, ["WH-1"])
        assert inbox.open_event(received, keyring).person == {}


def test_many_transactions_that_make_one_key_at_once_agree(river: River) -> None:
    met = threading.Barrier(4, timeout=30)

    def make(number: int) -> bytes:
        met.wait()
        with river.database.transaction() as session:
            return river.keyring(session).system_key("I-ADA").encrypt("event.body", str(number).encode())

    with ThreadPoolExecutor(4) as pool:
        sealed = list(pool.map(make, range(4)))
    with river.database.transaction() as session:
        seal = river.keyring(session).system_key("I-ADA")
        assert [seal.decrypt("event.body", each) for each in sealed] == [b"0", b"1", b"2", b"3"]
    assert river.count(EncryptionKey) == 1


# The master key's file


def test_the_master_key_is_made_once_and_for_us_alone(path: Path) -> None:
    was = os.umask(0)
    try:
        first = open_master_key(path)
    finally:
        os.umask(was)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert len(base64.b64decode(path.read_bytes())) == 32
    assert open_master_key(path).id == first.id
    assert [each.name for each in path.parent.iterdir()] == ["master.key"]


def test_a_master_key_is_not_made_where_none_is_wanted(path: Path) -> None:
    with pytest.raises(MasterKeyError, match=r"cannot read the master key .*No such file"):
        open_master_key(path, create=False)
    assert not path.exists()


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o660, 0o444])
def test_a_master_key_that_others_may_read_is_refused(path: Path, mode: int) -> None:
    open_master_key(path)
    path.chmod(mode)
    with pytest.raises(MasterKeyError, match="chmod 600"):
        open_master_key(path)


@pytest.mark.parametrize(
    "text", [b"", b"short", b"\xff" * 40, base64.b64encode(bytes(31)), base64.b64encode(bytes(33))]
)
def test_a_file_that_is_no_master_key_is_refused(path: Path, text: bytes) -> None:
    path.parent.mkdir(mode=0o700)
    path.write_bytes(text)
    path.chmod(0o600)
    with pytest.raises(MasterKeyError, match="32 bytes in base64"):
        open_master_key(path)


def test_a_folder_that_takes_no_file_is_said(data_dir: Path) -> None:
    (data_dir / "keys").write_text("no folder")
    with pytest.raises(MasterKeyError, match="cannot make or read the master key"):
        open_master_key(data_dir / "keys" / "master.key")


KILLED = """
import os, sys
from pathlib import Path
from pipeline.crypto.master_key import open_master_key
os.fsync = lambda _: os._exit(9)
open_master_key(Path(sys.argv[1]))
"""


def test_what_a_start_that_was_killed_left_behind_is_in_nobodys_way(path: Path) -> None:
    """Also where every start has the same process id, as in a container."""
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path)], cwd=ROOT, check=False)
    assert killed.returncode == 9
    assert not path.exists()
    assert len(list(path.parent.iterdir())) == 1
    assert open_master_key(path).id


def test_the_key_is_on_the_disk_before_anything_is_wrapped_with_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name too: a database full of keys that nothing opens would be the end of it."""
    synced: list[Path] = []
    really = os.fsync

    def note(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        really(descriptor)

    monkeypatch.setattr(os, "fsync", note)
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


def test_processes_and_threads_that_make_it_at_once_agree(path: Path) -> None:
    command = [sys.executable, "-c", OPEN, str(path)]
    started = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    for process in started:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    said = [process.communicate("go\n", timeout=30)[0] for process in started]
    assert set(said) == {open_master_key(path).id + "\n"}


def test_threads_that_make_it_at_once_agree(path: Path) -> None:
    met = threading.Barrier(8, timeout=30)

    def make(_: int) -> str:
        met.wait()
        return open_master_key(path).id

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(make, range(8)))) == 1
