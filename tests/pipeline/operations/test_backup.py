"""A backup restores everything except erased customers; only its age identity decrypts it, and its keys expire sooner."""

import os
import stat
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pyrage
import pytest
from psycopg import sql
from sqlalchemy import make_url, text

from pipeline.clock import MovableClock
from pipeline.crypto import rotation
from pipeline.crypto.keyring import Keyring
from pipeline.crypto.master_key import MasterKey, open_master_key
from pipeline.customers import accounts
from pipeline.db import migrations
from pipeline.db.engine import Database
from pipeline.db.models import Base, Customer, EncryptionKey, Erasure, Event, Payment
from pipeline.operations.backup import store
from pipeline.operations.backup.store import BackupError, BackupStore
from tests.pipeline.privacy.erased_customer import assert_erased, create_alice, erase_completely
from tests.support.example_people import ALICE
from tests.support.pipeline_under_test import PipelineUnderTest
from tests.support.servers import plain


@pytest.fixture
def full(database_url: str, data_dir: Path, clock: MovableClock) -> Iterator[PipelineUnderTest]:
    """A database with the customer Alice, once per database kind, with tables created by migrations."""
    database = Database(database_url)
    migrations.upgrade(database)
    database.close()
    pipeline = PipelineUnderTest(database_url, data_dir, clock)
    create_alice(pipeline)
    yield pipeline
    pipeline.database.close()


@pytest.fixture
def identity(tmp_path: Path) -> Path:
    path = tmp_path / "identity.txt"
    store.new_identity(path)
    return path


@pytest.fixture
def backups(tmp_path: Path, identity: Path) -> BackupStore:
    recipient = identity.read_text().splitlines()[0].removeprefix("# public key: ")
    return BackupStore(tmp_path / "backups", recipient)


@pytest.fixture
def empty(full: PipelineUnderTest, tmp_path: Path) -> Iterator[PipelineUnderTest]:
    """Another machine: an empty database of the same kind, without a master key."""
    folder = tmp_path / "other"
    folder.mkdir(mode=0o700)
    if full.database.is_sqlite:
        made = empty_river(f"sqlite:///{folder / 'smt-billing.db'}", folder, full.clock)
        yield made
        made.database.close()
        return
    name = f"{make_url(full.url).database}_other"
    with psycopg.connect(plain(full.url), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        made = empty_river(
            make_url(full.url).set(database=name).render_as_string(hide_password=False), folder, full.clock
        )
        yield made
        made.database.close()
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def empty_river(url: str, folder: Path, clock: MovableClock) -> PipelineUnderTest:
    pipeline = PipelineUnderTest.__new__(PipelineUnderTest)
    pipeline.url, pipeline.folder, pipeline.clock, pipeline.database = url, folder, clock, Database(url)
    return pipeline


def key_of(pipeline: PipelineUnderTest) -> Path:
    return pipeline.folder / "keys" / "master.key"


def create(pipeline: PipelineUnderTest, backups: BackupStore) -> store.BackupFiles:
    return backups.create(pipeline.database, key_of(pipeline), pipeline.now)


def restore(
    pipeline: PipelineUnderTest, backups: BackupStore, identity: Path, data: Path | None = None
) -> store.RestoreResult:
    done = backups.restore(pipeline.database, key_of(pipeline), identity, pipeline.now, data=data)
    pipeline.master = open_master_key(key_of(pipeline), create=False)
    return done


def everything(pipeline: PipelineUnderTest) -> dict[str, list[Any]]:
    return {
        mapper.class_.__tablename__: [columns(row) for row in pipeline.rows(mapper.class_)]
        for mapper in Base.registry.mappers
    }


def columns(row: Base) -> dict[str, Any]:
    return {column.name: getattr(row, column.name) for column in row.__table__.columns}


def test_backup_is_restored_on_another_machine(
    full: PipelineUnderTest, empty: PipelineUnderTest, backups: BackupStore, identity: Path
) -> None:
    before = everything(full)
    create(full, backups)
    assert restore(empty, backups, identity).erased_again == 0
    assert everything(empty) == before
    assert migrations.current(empty.database) == migrations.newest()
    assert key_of(empty).read_bytes() == key_of(full).read_bytes()
    assert stat.S_IMODE(key_of(empty).stat().st_mode) == 0o600
    with empty.database.transaction() as session:
        [id] = accounts.find_by_email(session, empty.keyring(session), ALICE.email)
        assert accounts.personal_data(session, empty.keyring(session), id)["name"] == "Alice Newname"


def test_backup_files_are_encrypted_and_private(full: PipelineUnderTest, backups: BackupStore, tmp_path: Path) -> None:
    made = create(full, backups)
    for path in backups.folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert ALICE.email.encode() not in path.read_bytes()
        assert ALICE.subscription.encode() not in path.read_bytes()
    assert stat.S_IMODE(backups.folder.stat().st_mode) == 0o700
    other = tmp_path / "other.txt"
    store.new_identity(other)
    for path in (made.data, made.keys):
        with pytest.raises(pyrage.DecryptError):
            pyrage.decrypt(path.read_bytes(), store._identities(other))


def test_keys_are_in_a_separate_file(full: PipelineUnderTest, backups: BackupStore, identity: Path) -> None:
    made = create(full, backups)
    dump = pyrage.decrypt(made.data.read_bytes(), store._identities(identity))
    kept = pyrage.decrypt(made.keys.read_bytes(), store._identities(identity))
    rows = [row for row in full.rows(EncryptionKey) if row.wrapped_key]
    assert rows
    assert [row.key_id for row in rows if row.wrapped_key and row.wrapped_key in dump] == []
    assert full.rows(Event)[0].id.encode() not in kept
    assert not list(full.folder.glob(".backup-*"))


def test_restore_repeats_later_erasures(
    full: PipelineUnderTest, empty: PipelineUnderTest, backups: BackupStore, identity: Path
) -> None:
    made = create(full, backups)
    old_keys = made.keys.read_bytes()
    [id] = [row.id for row in full.rows(Customer)]
    erase_completely(full, id)
    backups.save_erasures(full.database)
    made.keys.write_bytes(old_keys)  # the worst case: only keys from before the erasure are left
    assert restore(empty, backups, identity).erased_again == 1
    assert_erased(empty)
    assert empty.count(Payment) == 1
    [erasure] = empty.rows(Erasure)
    assert (erasure.customer_id, erasure.completed_at) == (id, None)
    assert [row.erased_at is None for row in empty.rows(Customer)] == [False]


def test_old_keys_of_erased_customer_are_not_restored(
    full: PipelineUnderTest, empty: PipelineUnderTest, backups: BackupStore, identity: Path
) -> None:
    old_keys = create(full, backups).keys.read_bytes()
    [id] = [row.id for row in full.rows(Customer)]
    erase_completely(full, id)
    full.clock.advance(timedelta(hours=1))
    backups.save_erasures(full.database)
    create(full, backups).keys.write_bytes(old_keys)  # the newer ones are lost
    restore(empty, backups, identity)
    [erasure] = empty.rows(Erasure)
    alive = {row.key_id for row in empty.rows(EncryptionKey) if row.wrapped_key}
    assert alive.isdisjoint(erasure.key_ids)
    with empty.database.transaction() as session:
        assert empty.keyring(session).get(id) is None


def test_saved_erasure_is_never_removed(full: PipelineUnderTest, backups: BackupStore) -> None:
    create(full, backups)
    [id] = [row.id for row in full.rows(Customer)]
    erase_completely(full, id)
    backups.save_erasures(full.database)
    with full.database.transaction() as session:
        session.execute(text("DELETE FROM erasure"))
    backups.save_erasures(full.database)
    assert [row["customer_id"] for row in backups.erasures()] == [id]
    assert ALICE.email.encode() not in (backups.folder / "erasures.json").read_bytes()


def test_expired_backups_and_keys_are_deleted(full: PipelineUnderTest, backups: BackupStore) -> None:
    first = create(full, backups)
    full.clock.advance(timedelta(days=8))
    second = create(full, backups)
    assert (first.data.exists(), first.keys.exists()) == (True, False)
    full.clock.advance(timedelta(days=23))
    third = create(full, backups)
    assert not first.data.exists()
    assert second.data.exists()
    assert third.data.exists()
    assert [path.name for path in backups.folder.glob("*.keys.age")] == [third.keys.name]


def test_newest_keys_decrypt_older_backups_after_rotation(
    full: PipelineUnderTest, empty: PipelineUnderTest, backups: BackupStore, identity: Path
) -> None:
    made = create(full, backups)
    full.clock.advance(timedelta(hours=1))

    def save(_: MasterKey) -> None:
        backups.save_keys(full.database, key_of(full), full.now, only=True)

    rotation.rotate(full.database, key_of(full), full.now, save=save, grace_seconds=0)
    assert not made.keys.exists()
    restore(empty, backups, identity, made.data)
    with empty.database.transaction() as session:
        assert accounts.find_by_email(session, Keyring(empty.master, session, empty.now), ALICE.email)


def test_restore_into_used_database_is_rejected(full: PipelineUnderTest, backups: BackupStore, identity: Path) -> None:
    create(full, backups)
    before = everything(full)
    with pytest.raises(BackupError, match="not empty"):
        restore(full, backups, identity)
    assert everything(full) == before


def test_damaged_backup_is_rejected(
    full: PipelineUnderTest, empty: PipelineUnderTest, backups: BackupStore, identity: Path
) -> None:
    made = create(full, backups)
    whole = made.data.read_bytes()
    for broken in (whole[:-1], whole[: len(whole) // 2], whole[:-40] + b"x" + whole[-39:]):
        made.data.write_bytes(broken)
        with pytest.raises(BackupError, match="damaged"):
            restore(empty, backups, identity)
        with empty.database.reading() as session, pytest.raises(Exception, match=r"(no such table|does not exist)"):
            session.execute(text("SELECT 1 FROM event"))
    made.data.write_bytes(whole)
    restore(empty, backups, identity)
    assert empty.count(Event) == full.count(Event)


def test_no_role_can_use_an_incomplete_restore(
    full: PipelineUnderTest,
    empty: PipelineUnderTest,
    backups: BackupStore,
    identity: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    create(full, backups)
    monkeypatch.setattr(store, "replay_erasures", interrupt)
    with pytest.raises(KeyboardInterrupt):
        restore(empty, backups, identity)
    assert migrations.current(empty.database) is None


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_different_master_key_is_not_overwritten(
    full: PipelineUnderTest, empty: PipelineUnderTest, backups: BackupStore, identity: Path
) -> None:
    create(full, backups)
    open_master_key(key_of(empty))
    with pytest.raises(BackupError, match="not the master key of the backup"):
        restore(empty, backups, identity)


def test_errors_say_what_to_do(
    full: PipelineUnderTest, empty: PipelineUnderTest, backups: BackupStore, identity: Path, tmp_path: Path
) -> None:
    with pytest.raises(BackupError, match="SMT_BACKUP_DIR"):
        restore(empty, backups, identity)
    with pytest.raises(BackupError, match="smt-billing backup identity"):
        BackupStore(tmp_path / "b", "age1wrong").create(full.database, key_of(full), full.now)
    with pytest.raises(BackupError, match="already exists"):
        store.new_identity(identity)
    create(full, backups)
    wrong = tmp_path / "wrong.txt"
    wrong.write_text("# nothing\n")
    with pytest.raises(BackupError, match="AGE-SECRET-KEY-1"):
        restore(empty, backups, wrong)
    (backups.folder / "erasures.json").write_bytes(b"[")
    with pytest.raises(BackupError, match="brings erased customers back"):
        restore(empty, backups, identity)


def test_missing_pg_dump_names_package_to_install(
    full: PipelineUnderTest, backups: BackupStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    if full.database.is_sqlite:
        create(full, backups)
        return
    monkeypatch.setitem(os.environ, "PATH", "/nowhere")
    with pytest.raises(BackupError, match="postgresql-client"):
        create(full, backups)
    assert [path.name for path in backups.folder.iterdir()] == []
