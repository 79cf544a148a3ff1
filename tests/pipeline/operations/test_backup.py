"""A backup restores everything except erased customers; only its age identity decrypts it, and its keys expire sooner."""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any

import orjson
import psycopg
import pyrage
import pytest
from psycopg import sql
from sqlalchemy import make_url, text

from pipeline.clock import MovableClock
from pipeline.crypto import rotation
from pipeline.crypto.keyring import Keyring
from pipeline.crypto.master_key import MasterKey, open_master_key
from pipeline.crypto.signing import PublicKey, encode_public
from pipeline.customers import accounts
from pipeline.db import migrations
from pipeline.db.engine import Database
from pipeline.db.models import Base, Customer, EncryptionKey, Erasure, Event, Payment
from pipeline.operations.backup import database_dump, signatures, store
from pipeline.operations.backup.signatures import BackupSigner, audit_anchors, signature_of
from pipeline.operations.backup.store import BackupError, BackupStore
from pipeline.privacy import audit_log
from tests.pipeline.privacy.erased_customer import assert_erased, create_alice, erase_completely
from tests.support.example_people import ALICE
from tests.support.pipeline_under_test import PipelineUnderTest, create_tables
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
def identity(full: PipelineUnderTest, tmp_path: Path) -> Path:
    """The file of an age identity, with the line that names the signer of the backups."""
    path = tmp_path / "identity.txt"
    store.new_identity(path)
    signer = BackupSigner.open(full.database, key_of(full), full.now)
    path.write_text(f"{path.read_text()}{store.SIGNER_LINE}{encode_public(signer.public)}\n")
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


def test_draft_that_is_swapped_before_it_is_signed_gets_no_valid_signature(
    full: PipelineUnderTest, backups: BackupStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever can write to the folder must not get a signature of this installation for a file of their own."""
    dump = database_dump.dump

    def dump_and_swap(database: Database, writer: IO[bytes], recipients: Sequence[pyrage.x25519.Recipient]) -> None:
        dump(database, writer, recipients)
        [draft] = backups.folder.glob("*.age.*")
        draft.unlink()
        draft.write_bytes(b"forged")

    monkeypatch.setattr(store, "dump", dump_and_swap)
    made = create(full, backups)
    assert made.data.read_bytes() == b"forged"
    statement = orjson.loads(orjson.loads(signature_of(made.data).read_bytes())["statement"])
    assert statement["sha256"] != sha256_of(made.data)


@pytest.mark.parametrize("in_place", [True, False])
def test_file_that_is_swapped_after_its_check_is_not_restored(
    full: PipelineUnderTest,
    empty: PipelineUnderTest,
    backups: BackupStore,
    identity: Path,
    monkeypatch: pytest.MonkeyPatch,
    in_place: bool,  # noqa: FBT001
) -> None:
    """Whoever can write to the folder must not be able to replace a file between the check of its signature and its use."""
    made = create(full, backups)

    def swap(path: Path) -> None:
        if not in_place:
            path.unlink()
        path.write_bytes(b"forged")

    check, require_empty = signatures._require_signed, store._require_empty

    def check_and_swap(file: Path, public: PublicKey, sha256: str) -> None:
        check(file, public, sha256)
        swap(file)

    monkeypatch.setattr(signatures, "_require_signed", check_and_swap)

    def swap_and_require_empty(database: Database) -> None:
        swap(made.data)
        require_empty(database)

    monkeypatch.setattr(store, "_require_empty", swap_and_require_empty)
    restore(empty, backups, identity)
    assert (made.data.read_bytes(), made.keys.read_bytes()) == (b"forged", b"forged")
    assert empty.count(Payment) == full.count(Payment) > 0


def save_erasures(pipeline: PipelineUnderTest, backups: BackupStore) -> None:
    backups.save_erasures(pipeline.database, key_of(pipeline), pipeline.now)


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
    save_erasures(full, backups)
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
    old = create(full, backups).keys
    old_keys = old.read_bytes()
    [id] = [row.id for row in full.rows(Customer)]
    erase_completely(full, id)
    full.clock.advance(timedelta(hours=1))
    save_erasures(full, backups)
    newer = create(full, backups)
    newer.keys.unlink()  # the newer ones are lost
    assert old.read_bytes() == old_keys
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
    save_erasures(full, backups)
    with full.database.transaction() as session:
        session.execute(text("DELETE FROM erasure"))
    save_erasures(full, backups)
    assert [row["customer_id"] for row in backups.erasures(None)] == [id]
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


# Signatures


def reencrypt(file: Path, identity: Path, recipient: str, change: Callable[[bytes], bytes]) -> None:
    """Do what somebody does who has the recipient, which is no secret, and knows the content."""
    plain = change(pyrage.decrypt(file.read_bytes(), store._identities(identity)))
    file.write_bytes(pyrage.encrypt(plain, [store.read_recipient(recipient)]))


def renamed(file: Path, name: str) -> None:
    """Rename a file and its signature."""
    for path in (file, signature_of(file)):
        path.rename(path.with_name(path.name.replace(file.name, name)))


def sha256_of(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def signed_again(file: Path, folder: Path, name: str | None = None) -> None:
    """Sign a file with the key of another installation."""
    database = Database("sqlite:///:memory:")
    create_tables(database)
    open_master_key(folder / "other.key")
    signer = BackupSigner.open(database, folder / "other.key", datetime(2026, 3, 1, tzinfo=UTC))
    signature_of(file).write_bytes(signer.sign_file(name or file.name, sha256_of(file)))
    database.close()


TAMPERINGS: dict[str, tuple[Callable[[Path, Path, str], Any], str]] = {
    "encrypted again": (lambda file, identity, recipient: reencrypt(file, identity, recipient, bytes), "changed or is damaged"),
    "changed": (
        lambda file, identity, recipient: reencrypt(file, identity, recipient, lambda plain: plain.replace(b"1", b"2")),
        "changed or is damaged",
    ),
    "shortened": (lambda file, *_: file.write_bytes(file.read_bytes()[:-1]), "changed or is damaged"),
    "renamed to a newer time": (lambda file, *_: renamed(file, file.name.replace("2026", "2027", 1)), "was renamed"),
    "signature missing": (lambda file, *_: signature_of(file).unlink(), "is missing"),
    "signature empty": (lambda file, *_: signature_of(file).write_bytes(b""), "not signed with"),
    "signature of nothing": (lambda file, *_: signature_of(file).write_bytes(b'{"statement": 1}'), "not signed with"),
    "signed by another": (lambda file, identity, _: signed_again(file, identity.parent), "not signed with"),
}  # fmt: skip


@pytest.mark.parametrize("part", ["data", "keys"])
@pytest.mark.parametrize("tampering", TAMPERINGS)
def test_tampered_copy_is_refused(
    full: PipelineUnderTest, empty: PipelineUnderTest, backups: BackupStore, identity: Path, part: str, tampering: str
) -> None:
    made = create(full, backups)
    tamper, message = TAMPERINGS[tampering]
    tamper(getattr(made, part), identity, backups.recipient)
    with pytest.raises(BackupError, match=message):
        restore(empty, backups, identity)
    assert not key_of(empty).exists(), "nothing is written before all files are verified"


def test_signature_of_another_file_is_refused(
    full: PipelineUnderTest, empty: PipelineUnderTest, backups: BackupStore, identity: Path
) -> None:
    made = create(full, backups)
    signature_of(made.data).write_bytes(signature_of(made.keys).read_bytes())
    with pytest.raises(BackupError, match="was renamed"):
        restore(empty, backups, identity)


def with_false_erasure(found: dict[str, Any]) -> dict[str, Any]:
    return found | {"erasures": [*found["erasures"], found["erasures"][0] | {"id": "another"}]}


@pytest.mark.parametrize(("change", "message"), [
    (with_false_erasure, "was changed"),
    (lambda found: found | {"erasures": []}, "was changed"),
    (lambda found: {"erasures": found["erasures"]}, "cannot be read"),
    (lambda found: found["erasures"], "cannot be read"),
    (lambda _: None, "older than the keys"),
])  # fmt: skip
def test_tampered_list_of_erasures_is_refused(
    full: PipelineUnderTest, empty: PipelineUnderTest, backups: BackupStore, identity: Path, change: Any, message: str
) -> None:
    [id] = [row.id for row in full.rows(Customer)]
    erase_completely(full, id)
    create(full, backups)
    path = backups.folder / "erasures.json"
    changed = change(orjson.loads(path.read_bytes()))
    path.write_bytes(orjson.dumps(changed)) if changed else path.unlink()
    with pytest.raises(BackupError, match=message):
        restore(empty, backups, identity)
    if changed:
        with pytest.raises(BackupError, match=message):
            create(full, backups)


def test_signer_is_required_and_an_option_overrides_the_file(
    full: PipelineUnderTest, empty: PipelineUnderTest, backups: BackupStore, identity: Path
) -> None:
    create(full, backups)
    line = identity.read_text().splitlines()[-1]
    identity.write_text(identity.read_text().replace(line, ""))
    with pytest.raises(BackupError, match="smt-billing backup signer"):
        restore(empty, backups, identity)
    for wrong in ("", "x", "AAAA", line):
        with pytest.raises(BackupError, match="signer"):
            backups.restore(empty.database, key_of(empty), identity, empty.now, signer=wrong)
    signer = line.removeprefix(store.SIGNER_LINE)
    backups.restore(empty.database, key_of(empty), identity, empty.now, signer=signer)
    assert empty.count(Event) == full.count(Event)


def test_restore_needs_no_recipient(
    full: PipelineUnderTest, empty: PipelineUnderTest, backups: BackupStore, identity: Path
) -> None:
    create(full, backups)
    restore(empty, BackupStore(backups.folder, ""), identity)
    assert empty.count(Event) == full.count(Event)


def test_signatures_expire_with_their_files(full: PipelineUnderTest, backups: BackupStore) -> None:
    create(full, backups)
    full.clock.advance(timedelta(days=40))
    left = create(full, backups)
    expected = {path.name for file in (left.data, left.keys) for path in (file, signature_of(file))}
    assert {path.name for path in backups.folder.iterdir()} == expected


def test_restored_installation_signs_with_the_same_key(
    full: PipelineUnderTest, empty: PipelineUnderTest, backups: BackupStore, identity: Path
) -> None:
    create(full, backups)
    restore(empty, backups, identity)
    again = BackupSigner.open(empty.database, key_of(empty), empty.now)
    assert encode_public(again.public) in identity.read_text()


def test_signature_confirms_the_head_of_the_audit_log(full: PipelineUnderTest, backups: BackupStore) -> None:
    for _ in range(2):
        with full.database.transaction() as session:
            audit_log.record_read(
                session, full.keyring(session), full.now, actor="ada", action="mail show", purpose="test", subject=None
            )
        create(full, backups)
        full.clock.advance(timedelta(hours=1))
    signer = BackupSigner.open(full.database, key_of(full), full.now)
    anchors = list(audit_anchors(backups.folder, signer.public))
    with full.database.transaction() as session:
        assert audit_log.verify_chain(session, full.keyring(session), anchors) is None
        session.execute(text("DELETE FROM read_audit WHERE id = (SELECT max(id) FROM read_audit)"))
        assert ".age.sig confirms" in str(audit_log.verify_chain(session, full.keyring(session), anchors))
