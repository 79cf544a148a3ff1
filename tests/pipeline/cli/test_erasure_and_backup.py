"""`customers erase`, `retention`, `keys rotate` and `backup`."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.app import from_settings, jobs, maintenance
from pipeline.app.container import Container
from pipeline.privacy.erasure import workflow
from pipeline.settings import load

from .conftest import SavedEvents, Smt


def only_customer(smt: Smt) -> str:
    [row] = smt("customers", "list", "--json").json
    return str(row["id"])


@pytest.fixture
def former_customer(smt: Smt, imported: SavedEvents, data_dir: Path) -> str:
    """The id of a customer whose subscription is cancelled."""
    with closing(sqlite3.connect(data_dir / "smt-billing.db")) as connection, connection:
        connection.execute("UPDATE subscription SET status = 'CANCELLED'")
    return only_customer(smt)


@pytest.fixture
def backups(smt: Smt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """SMT_BACKUP_DIR. The identity that decrypts the backups is `identity.txt` in the same parent folder."""
    answer = smt("backup", "identity", tmp_path / "identity.txt")
    name, _, recipient = answer.out.strip().partition("=")
    monkeypatch.setenv(name, recipient)
    monkeypatch.setenv("SMT_BACKUP_DIR", str(tmp_path / "backups"))
    return tmp_path / "backups"


def test_waiting_erasure_can_be_cancelled(smt: Smt, imported: SavedEvents) -> None:
    id = only_customer(smt)
    answer = smt("customers", "erase", id)
    assert answer.code == 0
    assert f"smt-billing customers erase {id} --cancel" in answer.out
    assert [row["kind"] for row in smt("customers", "requests", "--open", "--json").json] == ["erase"]
    assert smt("customers", "erase", id, "--cancel", "--json").json["state"] == "cancelled"
    assert smt("customers", "erase", id, "--cancel").code == 1
    assert smt("customers", "requests", "--open", "--json").json == []


def test_active_subscription_without_credentials_blocks_erasure(smt: Smt, imported: SavedEvents) -> None:
    id = only_customer(smt)
    answer = smt("customers", "erase", id, "--now", "--yes")
    assert answer.code == 1
    assert imported.subscription.id in answer.out
    assert "SMT_PAYPAL_CLIENT_ID" in answer.out
    assert smt("customers", "show", id, "--json").json["email"] == imported.subscription.person.email
    assert smt("customers", "erase", id, "--receipt").code == 1


def test_running_erasure_cannot_be_closed_by_hand(smt: Smt, imported: SavedEvents) -> None:
    id = only_customer(smt)
    states = []
    for options in ((), ("--now", "--yes")):  # first the erasure waits; then it runs, and is blocked by PayPal
        smt("customers", "erase", id, *options)
        [request] = smt("customers", "requests", "--open", "--json").json
        states.append(request["state"])
        for result in (("--done",), ("--refuse", "no reason")):
            answer = smt("customers", "answer", request["id"], *result)
            assert answer.code == 2
            assert "closes automatically" in answer.err
    assert states == ["waiting", "running"]
    assert len(smt("customers", "requests", "--open", "--json").json) == 1


def test_immediate_erasure_has_receipt(smt: Smt, former_customer: str) -> None:
    assert smt("customers", "erase", former_customer, "--now", "--yes", "--json").json["state"] == "running"
    [receipt] = smt("customers", "erase", former_customer, "--receipt", "--json").json
    assert receipt["customer"] == former_customer
    assert receipt["complete_at"] is None
    assert receipt["receipt"]["rows"]["payment"]["rows"] == 1
    assert "kept, restricted" in smt("customers", "erase", former_customer, "--receipt").out
    again = smt("customers", "erase", former_customer)
    assert again.code == 2
    assert f"there is no customer {former_customer}" in again.err


def test_erasure_without_address_sends_no_confirmation(smt: Smt, former_customer: str, data_dir: Path) -> None:
    with closing(sqlite3.connect(data_dir / "smt-billing.db")) as connection, connection:
        connection.execute("UPDATE subscription SET personal_data = NULL, email_hash = NULL")
    assert "no address was known" in smt("customers", "erase", former_customer, "--now", "--yes").out


def test_conflicting_erase_options_are_usage_error(smt: Smt, former_customer: str) -> None:
    assert smt("customers", "erase", former_customer, "--now", "--yes", "--cancel").code == 2


@pytest.mark.parametrize("options", [[], ["--now", "--yes"], ["--cancel"]])
def test_erasing_unknown_customer_creates_no_request(smt: Smt, imported: SavedEvents, options: list[str]) -> None:
    answer = smt("customers", "erase", "c-unknown", *options)
    assert (answer.code, "there is no customer c-unknown; see: smt-billing customers list" in answer.err) == (2, True)
    assert smt("customers", "requests", "--json").json == []


def test_rotation_completes_erasure_and_warns_about_old_copies(smt: Smt, former_customer: str, data_dir: Path) -> None:
    smt("customers", "erase", former_customer, "--now", "--yes")
    mark_confirmed(data_dir)
    before = (data_dir / "keys" / "master.key").read_bytes()
    answer = smt("keys", "rotate", "--yes")
    assert answer.code == 0
    assert "1 erasures complete" in answer.out
    assert "the old copy decrypts nothing" in answer.err
    assert (data_dir / "keys" / "master.key").read_bytes() != before
    [receipt] = smt("customers", "erase", former_customer, "--receipt", "--json").json
    assert receipt["complete_at"]
    again = smt("keys", "rotate", "--yes", "--json").json
    assert (again["erasures_completed"], again["old"] != again["new"]) == (0, True)


def test_rotation_without_master_key_creates_none(smt: Smt, imported: SavedEvents, data_dir: Path) -> None:
    (data_dir / "keys" / "master.key").unlink()
    assert smt("keys", "rotate", "--yes").code == 2
    assert not (data_dir / "keys" / "master.key").exists()


def test_retention_deletes_what_dry_run_shows(smt: Smt, imported: SavedEvents, data_dir: Path) -> None:
    assert "no data is past its retention period" in smt("retention", "sweep", "--yes").out
    with closing(sqlite3.connect(data_dir / "smt-billing.db")) as connection, connection:
        connection.execute("INSERT INTO rate_limit_counter VALUES ('k', 1, '2020-01-01 00:00:00')")
    assert smt("retention", "sweep", "--yes", "--dry-run", "--json").json["rate limit counters"] == 1
    assert smt("retention", "sweep", "--yes", "--json").json["rate limit counters"] == 1
    assert smt("retention", "sweep", "--yes", "--dry-run", "--json").json["rate limit counters"] == 0


def test_retention_rules_name_law_of_country(smt: Smt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SMT_COUNTRY")
    assert "2 years: the privacy policy" in smt("retention", "rules").out
    assert "SMT_COUNTRY" in smt("retention", "sweep").err  # nothing is deleted by the law of no country
    monkeypatch.setenv("SMT_COUNTRY", "DE")
    assert "8 years: AO section 147" in smt("retention", "rules").out
    assert {"name": "access log", "period": "90 days"}.items() <= next(
        each for each in smt("retention", "rules", "--json").json if each["name"] == "access log"
    ).items()
    monkeypatch.setenv("SMT_COUNTRY", "Germany")
    assert smt("retention", "rules").code == 2


def test_backup_is_created_and_restored(
    smt: Smt, imported: SavedEvents, backups: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = only_customer(smt)
    made, identity = smt("backup", "create", "--json").json, tmp_path / "identity.txt"
    assert Path(made["data"]).parent == backups
    assert "names no signer" in smt("backup", "restore", "--identity", identity, "--yes").err
    line = smt("backup", "signer").out
    identity.write_text(identity.read_text() + line)
    assert "not empty" in smt("backup", "restore", "--identity", identity, "--yes").err
    monkeypatch.setenv("SMT_DATA_DIR", str(tmp_path / "other"))
    monkeypatch.delenv("SMT_BACKUP_RECIPIENT")  # another machine, which creates no backups
    assert "signer" in smt("backup", "restore", "--identity", identity, "--signer", "AAAA", "--yes").err
    answer = smt("backup", "restore", "--identity", identity, "--signer", line.split()[-1], "--yes")
    assert answer.code == 0, answer.err
    assert "smt-billing db upgrade" in answer.err
    assert smt("db", "upgrade").code == 0
    assert smt("customers", "show", id, "--json").json["email"] == imported.subscription.person.email


def test_backup_without_settings_names_them(smt: Smt, imported: SavedEvents) -> None:
    answer = smt("backup", "create")
    assert answer.code == 2
    assert "SMT_BACKUP_DIR" in answer.err
    assert "SMT_BACKUP_RECIPIENT" in answer.err


def test_invalid_recipient_is_one_line(
    smt: Smt, imported: SavedEvents, backups: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMT_BACKUP_RECIPIENT", "ssh-ed25519 AAAA")
    answer = smt("backup", "create")
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert "SMT_BACKUP_RECIPIENT" in answer.err


def mark_confirmed(data_dir: Path) -> None:
    """Mark the erasure's confirmation as sent. An erasure cannot be complete before that."""
    with closing(sqlite3.connect(data_dir / "smt-billing.db")) as connection, connection:
        connection.execute("UPDATE privacy_request SET state = 'done' WHERE state = 'running'")


def container_from_environment() -> Container:
    return Container(load(_env_file=None), {})


def test_scheduler_rotates_only_with_backups(
    smt: Smt, former_customer: str, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smt("customers", "erase", former_customer, "--now", "--yes")
    mark_confirmed(data_dir)
    before = (data_dir / "keys" / "master.key").read_bytes()
    container = container_from_environment()
    assert maintenance.complete_erasures(container) == 0
    assert (data_dir / "keys" / "master.key").read_bytes() == before
    smt("backup", "identity", tmp_path / "identity.txt")
    recipient = (tmp_path / "identity.txt").read_text().splitlines()[0].split()[-1]
    monkeypatch.setenv("SMT_BACKUP_RECIPIENT", recipient)
    monkeypatch.setenv("SMT_BACKUP_DIR", str(tmp_path / "backups"))
    container.database.close()
    container = container_from_environment()
    assert maintenance.complete_erasures(container) == 1
    assert (data_dir / "keys" / "master.key").read_bytes() != before
    assert [path.name for path in (tmp_path / "backups").glob("*.keys.age")]
    assert maintenance.complete_erasures(container) == 0  # no erasure is pending any more
    container.database.close()


def test_erasure_is_recorded_in_backup_folder(smt: Smt, former_customer: str, backups: Path) -> None:
    smt("backup", "create")
    smt("customers", "erase", former_customer, "--now", "--yes")
    assert former_customer in (backups / "erasures.json").read_text()


def test_scheduler_has_privacy_jobs(smt: Smt, imported: SavedEvents) -> None:
    container = container_from_environment()
    names = {job.name for job in jobs.build_scheduler(container, watches_roles=True).jobs}
    assert names >= {"run due erasures", "apply the retention periods", "complete erasures"}
    assert from_settings.erasure_wait(container.settings) == workflow.WAIT
    container.database.close()
