"""`customers erase`, `retention`, `keys rotate` and `backup`, as an operator calls them."""

import sqlite3
from pathlib import Path

import pytest

from pipeline.app import from_settings, jobs, maintenance
from pipeline.app.container import Container
from pipeline.privacy.erasure import workflow
from pipeline.settings import load

from .conftest import Smt, Told


def the_one(smt: Smt) -> str:
    [row] = smt("customers", "list", "--json").json
    return str(row["id"])


@pytest.fixture
def ended(smt: Smt, books: Told, data_dir: Path) -> str:
    """The id of a customer whose subscription PayPal will not collect for any more."""
    with sqlite3.connect(data_dir / "smt-billing.db") as connection:
        connection.execute("UPDATE subscription SET status = 'CANCELLED'")
    return the_one(smt)


@pytest.fixture
def shelf(smt: Smt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """SMT_BACKUP_DIR, and beside it the identity that opens what is in it."""
    answer = smt("backup", "identity", tmp_path / "identity.txt")
    name, _, recipient = answer.out.strip().partition("=")
    monkeypatch.setenv(name, recipient)
    monkeypatch.setenv("SMT_BACKUP_DIR", str(tmp_path / "backups"))
    return tmp_path / "backups"


def test_an_erasure_waits_and_can_be_cancelled(smt: Smt, books: Told) -> None:
    id = the_one(smt)
    answer = smt("customers", "erase", id)
    assert answer.code == 0
    assert f"smt-billing customers erase {id} --cancel" in answer.out
    assert [row["kind"] for row in smt("customers", "requests", "--open", "--json").json] == ["erase"]
    assert smt("customers", "erase", id, "--cancel", "--json").json["state"] == "cancelled"
    assert smt("customers", "erase", id, "--cancel").code == 1
    assert smt("customers", "requests", "--open", "--json").json == []


def test_a_running_subscription_without_credentials_is_said_to_stand_in_the_way(smt: Smt, books: Told) -> None:
    id = the_one(smt)
    said = smt("customers", "erase", id, "--now")
    assert said.code == 1
    assert books.life.id in said.out
    assert "SMT_PAYPAL_CLIENT_ID" in said.out
    assert smt("customers", "show", id, "--json").json["email"] == books.life.person.email
    assert smt("customers", "erase", id, "--receipt").code == 1


def test_a_deletion_that_is_under_way_is_not_done_by_saying_so(smt: Smt, books: Told) -> None:
    id = the_one(smt)
    states = []
    for wish in ((), ("--now",)):  # it waits; then it runs, and waits for PayPal
        smt("customers", "erase", id, *wish)
        [asked] = smt("customers", "requests", "--open", "--json").json
        states.append(asked["state"])
        for word in (("--done",), ("--refuse", "no reason")):
            answer = smt("customers", "answer", asked["id"], *word)
            assert answer.code == 2
            assert "closes automatically" in answer.err
    assert states == ["waiting", "running"]
    assert len(smt("customers", "requests", "--open", "--json").json) == 1


def test_who_is_erased_now_is_gone_and_the_receipt_proves_it(smt: Smt, ended: str) -> None:
    assert smt("customers", "erase", ended, "--now", "--json").json["state"] == "running"
    [receipt] = smt("customers", "erase", ended, "--receipt", "--json").json
    assert receipt["customer"] == ended
    assert receipt["complete_at"] is None
    assert receipt["receipt"]["rows"]["payment"]["rows"] == 1
    assert "kept, restricted" in smt("customers", "erase", ended, "--receipt").out
    again = smt("customers", "erase", ended)
    assert again.code == 2
    assert f"there is no customer {ended}" in again.err


def test_who_has_no_address_is_not_said_to_be_told(smt: Smt, ended: str, data_dir: Path) -> None:
    with sqlite3.connect(data_dir / "smt-billing.db") as connection:
        connection.execute("UPDATE subscription SET personal_data = NULL, email_hash = NULL")
    assert "no address was known" in smt("customers", "erase", ended, "--now").out


def test_wishes_that_contradict_each_other_are_asked_wrongly(smt: Smt, ended: str) -> None:
    assert smt("customers", "erase", ended, "--now", "--cancel").code == 2


@pytest.mark.parametrize("wish", [[], ["--now"], ["--cancel"]])
def test_nobody_there_cannot_be_erased_and_no_request_is_noted(smt: Smt, books: Told, wish: list[str]) -> None:
    answer = smt("customers", "erase", "c-nobody", *wish)
    assert (answer.code, "there is no customer c-nobody; see: smt-billing customers list" in answer.err) == (2, True)
    assert smt("customers", "requests", "--json").json == []


def test_a_rotation_completes_the_erasure_and_says_that_old_copies_are_of_no_use(
    smt: Smt, ended: str, data_dir: Path
) -> None:
    smt("customers", "erase", ended, "--now")
    confirmed(data_dir)
    before = (data_dir / "keys" / "master.key").read_bytes()
    answer = smt("keys", "rotate")
    assert answer.code == 0
    assert "1 erasures complete" in answer.out
    assert "the old copy opens nothing" in answer.err
    assert (data_dir / "keys" / "master.key").read_bytes() != before
    [receipt] = smt("customers", "erase", ended, "--receipt", "--json").json
    assert receipt["complete_at"]
    again = smt("keys", "rotate", "--json").json
    assert (again["erasures_completed"], again["old"] != again["new"]) == (0, True)


def test_a_rotation_without_a_master_key_makes_none(smt: Smt, books: Told, data_dir: Path) -> None:
    (data_dir / "keys" / "master.key").unlink()
    assert smt("keys", "rotate").code == 2
    assert not (data_dir / "keys" / "master.key").exists()


def test_what_is_due_is_told_and_then_ended(smt: Smt, books: Told, data_dir: Path) -> None:
    assert "nothing has reached its period" in smt("retention", "sweep").out
    with sqlite3.connect(data_dir / "smt-billing.db") as connection:
        connection.execute("INSERT INTO rate_limit_counter VALUES ('k', 1, '2020-01-01 00:00:00')")
    assert smt("retention", "sweep", "--dry-run", "--json").json["rate limit counters"] == 1
    assert smt("retention", "sweep", "--json").json["rate limit counters"] == 1
    assert smt("retention", "sweep", "--dry-run", "--json").json["rate limit counters"] == 0


def test_the_periods_are_listed_with_the_law_of_the_country(smt: Smt, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "2 years: the privacy policy" in smt("retention", "rules").out
    monkeypatch.setenv("SMT_COUNTRY", "DE")
    assert "8 years: AO section 147" in smt("retention", "rules").out
    assert {"name": "access log", "period": "90 days"}.items() <= smt("retention", "rules", "--json").json[7].items()
    monkeypatch.setenv("SMT_COUNTRY", "Germany")
    assert smt("retention", "rules").code == 2


def test_a_backup_is_made_and_brought_back(
    smt: Smt, books: Told, shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = the_one(smt)
    made = smt("backup", "create", "--json").json
    assert Path(made["data"]).parent == shelf
    assert smt("backup", "restore", "--identity", tmp_path / "identity.txt").code == 2  # the database is not empty
    monkeypatch.setenv("SMT_DATA_DIR", str(tmp_path / "other"))
    answer = smt("backup", "restore", "--identity", tmp_path / "identity.txt")
    assert answer.code == 0, answer.err
    assert "smt-billing db upgrade" in answer.err
    assert smt("db", "upgrade").code == 0
    assert smt("customers", "show", id, "--json").json["email"] == books.life.person.email


def test_backups_that_are_not_set_up_say_what_to_set(smt: Smt, books: Told) -> None:
    answer = smt("backup", "create")
    assert answer.code == 2
    assert "SMT_BACKUP_DIR" in answer.err
    assert "SMT_BACKUP_RECIPIENT" in answer.err


def test_a_recipient_that_is_none_is_said_in_one_line(
    smt: Smt, books: Told, shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMT_BACKUP_RECIPIENT", "ssh-ed25519 AAAA")
    answer = smt("backup", "create")
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert "SMT_BACKUP_RECIPIENT" in answer.err


def confirmed(data_dir: Path) -> None:
    """The confirmation has been sent: only then can an erasure be complete."""
    with sqlite3.connect(data_dir / "smt-billing.db") as connection:
        connection.execute("UPDATE privacy_request SET state = 'done' WHERE state = 'running'")


def parts_here() -> Container:
    return Container(load(_env_file=None), {})


def test_the_scheduler_rotates_by_itself_only_where_backups_hold_the_new_key(
    smt: Smt, ended: str, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smt("customers", "erase", ended, "--now")
    confirmed(data_dir)
    before = (data_dir / "keys" / "master.key").read_bytes()
    parts = parts_here()
    assert maintenance.complete_erasures(parts) == 0
    assert (data_dir / "keys" / "master.key").read_bytes() == before
    smt("backup", "identity", tmp_path / "identity.txt")
    recipient = (tmp_path / "identity.txt").read_text().splitlines()[0].split()[-1]
    monkeypatch.setenv("SMT_BACKUP_RECIPIENT", recipient)
    monkeypatch.setenv("SMT_BACKUP_DIR", str(tmp_path / "backups"))
    parts.database.close()
    parts = parts_here()
    assert maintenance.complete_erasures(parts) == 1
    assert (data_dir / "keys" / "master.key").read_bytes() != before
    assert [path.name for path in (tmp_path / "backups").glob("*.keys.age")]
    assert maintenance.complete_erasures(parts) == 0  # nothing is owed any more
    parts.database.close()


def test_an_erasure_is_noted_beside_the_backups_at_once(smt: Smt, ended: str, shelf: Path) -> None:
    smt("backup", "create")
    smt("customers", "erase", ended, "--now")
    assert ended in (shelf / "erasures.json").read_text()


def test_the_scheduler_has_jobs_for_all_of_it(smt: Smt, books: Told) -> None:
    parts = parts_here()
    names = {job.name for job in jobs.build_scheduler(parts).jobs}
    assert names >= {"erase who asked for it", "keep the retention periods", "complete erasures"}
    assert from_settings.erasure_wait(parts.settings) == workflow.WAIT
    parts.database.close()
