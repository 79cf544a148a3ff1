"""`doctor`: one line per check, with advice for each problem."""

import os
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url

from pipeline.app.container import Container
from pipeline.app.doctor import program_checks, unfinished_checks
from pipeline.app.doctor.file_checks import check_trust_anchors
from pipeline.cli.context import CommandContext
from pipeline.clock import MovableClock
from pipeline.operations.limits import LIMITS, WorkKind
from pipeline.operations.unfinished_work import Unfinished, UnfinishedWork
from pipeline.settings import load
from tests.support.servers import plain

from .conftest import Answer, SavedEvents, Smt


@pytest.fixture(autouse=True)
def _webhook_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMT_PAYPAL_WEBHOOK_ID", "8PT597110X687430L")


def by_name(answer: Answer) -> dict[str, Any]:
    return {found["name"]: found for found in answer.json}


def test_doctor_warns_of_missing_settings_in_healthy_folder(smt: Smt, imported: SavedEvents) -> None:
    answer = smt("doctor", "--json")
    assert answer.code == 0
    found = by_name(answer)
    assert {name for name, each in found.items() if each["state"] == "warn"} <= {
        "settings", "relay", "PayPal", "interpreter",
    }  # fmt: skip
    assert {
        "data folder",
        "master key",
        "database",
        "encrypted data",
        "clock",
        "broker",
        "certificates",
        "templates",
    } <= {name for name, each in found.items() if each["state"] == "ok"}
    assert "SMT_SMTP_URL" in found["settings"]["found"]
    assert "ok" in smt("doctor").out


def test_doctor_checks_whether_relay_answers(
    smt: Smt, imported: SavedEvents, caught: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert by_name(smt("doctor", "--json"))["relay"]["state"] == "ok"
    monkeypatch.setenv("SMT_SMTP_URL", "smtp://127.0.0.1:1")
    answer = smt("doctor", "--json")
    assert (answer.code, by_name(answer)["relay"]["state"]) == (1, "fail")


def test_new_installation_has_no_failed_check(smt: Smt, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`doctor` comes before the first `run`, which creates the folder, the key and the tables."""
    monkeypatch.setenv("SMT_DATA_DIR", str(tmp_path / "new" / "folder"))
    answer = smt("doctor", "--json")
    found = by_name(answer)
    assert answer.code == 0
    assert [found[name]["state"] for name in ("data folder", "master key", "database")] == ["warn"] * 3
    assert "smt-billing run creates" in found["database"]["advice"]
    assert not (tmp_path / "new").exists()


def test_missing_vendor_is_reported_once(smt: Smt, imported: SavedEvents, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SMT_VENDOR_NAME")
    found = by_name(smt("doctor", "--json"))
    assert [name for name, each in found.items() if each["state"] == "fail"] == ["settings"]
    assert found["templates"]["state"] == "warn"


def test_new_postgresql_database_has_no_failed_check(
    smt: Smt, monkeypatch: pytest.MonkeyPatch, postgres_url: str
) -> None:
    monkeypatch.setenv("SMT_DATABASE_URL", postgres_url)
    answer = smt("doctor", "--json")
    assert (answer.code, by_name(answer)["database"]["state"]) == (0, "warn")


def test_lost_database_fails(smt: Smt, imported: SavedEvents, data_dir: Path) -> None:
    (data_dir / "smt-billing.db").unlink()
    answer = smt("doctor", "--json")
    database = by_name(answer)["database"]
    assert (answer.code, database["state"], "restore a backup" in database["advice"]) == (1, "fail", True)


def test_damaged_sqlite_file_is_not_called_a_server(smt: Smt, imported: SavedEvents, data_dir: Path) -> None:
    (data_dir / "smt-billing.db").write_bytes(b"no database" * 1000)
    for name in ("smt-billing.db-wal", "smt-billing.db-shm"):
        (data_dir / name).unlink(missing_ok=True)
    database = by_name(smt("doctor", "--json"))["database"]
    assert (database["state"], str(data_dir / "smt-billing.db") in database["advice"]) == ("fail", True)
    assert "smt-billing backup restore" in database["advice"]
    assert "server" not in database["advice"]


def test_permissions_for_others_fail(smt: Smt, imported: SavedEvents, data_dir: Path) -> None:
    data_dir.chmod(0o755)
    (data_dir / "keys" / "master.key").chmod(0o640)
    found = by_name(smt("doctor", "--json"))
    assert found["data folder"]["advice"] == f"run: chmod 700 {data_dir}"
    assert (found["master key"]["state"], found["encrypted data"]["state"]) == ("fail", "fail")


def test_master_key_in_readonly_folder_is_warning(
    smt: Smt, imported: SavedEvents, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != data_dir / "keys" and access(path, mode))
    found = by_name(smt("doctor", "--json"))
    assert (found["master key"]["state"], "no erasure" in found["master key"]["found"]) == ("warn", True)


def test_wrong_master_key_fails(
    smt: Smt, imported: SavedEvents, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = tmp_path / "other.key"
    other.write_text("QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=\n")
    other.chmod(0o600)
    monkeypatch.setenv("SMT_MASTER_KEY_FILE", str(other))
    assert by_name(smt("doctor", "--json"))["encrypted data"]["state"] == "fail"


def test_invalid_settings_are_only_result(smt: Smt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMT_WEB_PORT", "many")
    answer = smt("doctor", "--json")
    assert (answer.code, [found["name"] for found in answer.json]) == (1, ["settings"])


@pytest.mark.parametrize(
    ("host", "proxies", "state"),
    [
        ("127.0.0.1", None, "ok"),
        ("::1", "", "ok"),
        ("0.0.0.0", None, "warn"),
        ("::", "127.0.0.1", "warn"),
        ("192.0.2.1", "", "warn"),
        ("0.0.0.0", "10.213.78.1", "ok"),
        ("0.0.0.0", "10.0.0.0/8, 2001:db8::/32", "ok"),
        ("0.0.0.0", "0.0.0.0/0", "fail"),
        ("127.0.0.1", "127.0.0.1, ::/0", "fail"),
    ],
)
def test_trusted_proxies_are_checked(
    smt: Smt, imported: SavedEvents, monkeypatch: pytest.MonkeyPatch, host: str, proxies: str | None, state: str
) -> None:
    monkeypatch.setenv("SMT_WEB_HOST", host)
    if proxies is not None:
        monkeypatch.setenv("SMT_TRUSTED_PROXIES", proxies)
    found = by_name(smt("doctor", "--json"))["proxies"]
    assert (found["state"], bool(found["advice"])) == (state, state != "ok")


def test_messages_that_could_not_be_filed_fail(
    smt: Smt, imported: SavedEvents, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("new", "failed"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("SMT_INBOUND_MAILDIR", str(tmp_path))
    assert by_name(smt("doctor", "--json"))["other settings"]["state"] == "ok"
    (tmp_path / "failed" / "1.host").write_text("x")
    found = by_name(smt("doctor", "--json"))["other settings"]
    assert (found["state"], "could not be filed" in found["found"]) == ("fail", True)


def test_clock_older_than_program_fails(smt: Smt, imported: SavedEvents, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CommandContext, "clock", MovableClock(datetime(1970, 1, 1, tzinfo=UTC)))
    assert by_name(smt("doctor", "--json"))["clock"]["state"] == "fail"


def test_clock_behind_newest_event_is_warning(smt: Smt, imported: SavedEvents, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CommandContext, "clock", MovableClock(datetime(2026, 1, 2, tzinfo=UTC)))
    assert by_name(smt("doctor", "--json"))["clock"]["state"] == "warn"


def test_vulnerable_python_is_warning_with_fixed_versions(
    smt: Smt, imported: SavedEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program_checks, "injection_probe", lambda: True)
    found = by_name(smt("doctor", "--json"))["interpreter"]
    assert (found["state"], "3.12.5" in found["advice"]) == ("warn", True)
    monkeypatch.setattr(program_checks, "injection_probe", lambda: False)
    assert by_name(smt("doctor", "--json"))["interpreter"]["state"] == "ok"


def test_probe_matches_behaviour_of_this_python() -> None:
    mail = EmailMessage()
    try:
        mail["Comments"] = "=?utf-8?q?x=0D=0AX-Injected=3A_yes?="
        injects = "X-Injected" in message_from_bytes(mail.as_bytes(policy=SMTP))
    except Exception:  # noqa: BLE001 - newer Python versions raise one of several errors
        injects = False
    assert program_checks.injection_probe() is injects


def test_unreadable_trust_anchors_fail(smt: Smt, imported: SavedEvents, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMT_PAYPAL_TRUST_ANCHORS", "/nowhere.pem")
    answer = smt("doctor", "--json")
    assert (answer.code, by_name(answer)["trust anchors"]["state"]) == (1, "fail")


@pytest.mark.parametrize(
    ("base_url", "state"), [("https://api-m.paypal.com", "warn"), ("https://api-m.sandbox.paypal.com", "ok")]
)
def test_unchecked_certificate_chain_is_said(
    smt: Smt, clock: MovableClock, data_dir: Path, base_url: str, state: str
) -> None:
    container = Container(load(_env_file=None, data_dir=data_dir, paypal_base_url=base_url), {}, clock)
    result = check_trust_anchors(container)
    assert (result.state, "not its chain of issuers" in result.text) == (state, True)
    assert "SMT_PAYPAL_TRUST_ANCHORS" in result.advice


def test_parked_event_is_warning(smt: Smt, imported: SavedEvents, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"id": "WH-P", "event_type": "PAYMENT.SALE.COMPLETED", "resource": {"id": "1A"}}')
    smt("events", "import", tmp_path / "x.json")
    smt("run", "--until-idle")
    assert by_name(smt("doctor", "--json"))["events"]["advice"] == "see: smt-billing parked list"


def test_advice_names_every_command_that_is_needed() -> None:
    kinds: dict[WorkKind, Unfinished] = {kind: Unfinished() for kind in LIMITS}
    kinds |= {"mails_in_doubt": Unfinished(2, 60), "mails_failed": Unfinished(1, 60)}
    work = UnfinishedWork(datetime(2026, 3, 1, tzinfo=UTC), kinds)
    found = unfinished_checks.check_group("mails", unfinished_checks.GROUPS["mails"], work, 300)
    assert found.advice == "see: smt-billing mail list --state doubt, smt-billing mail list --state failed"


@pytest.mark.parametrize(
    ("name", "value", "state"),
    [
        ("SMT_RELAY_LOG", "/nowhere.log", "fail"),
        ("SMT_INBOUND_MAILDIR", "/nowhere", "fail"),
        ("SMT_PRODUCT_COMMAND", "/nowhere/command --all", "fail"),
        ("SMT_BACKUP_DIR", "/nowhere", "fail"),
        ("SMT_PAYPAL_WEBHOOKID", "an unknown setting", "warn"),
        ("SMT_COUNTRY", "XX", "warn"),
        ("SMT_COUNTRY", "DE", "ok"),
    ],
)
def test_doctor_checks_what_settings_name(
    smt: Smt, imported: SavedEvents, monkeypatch: pytest.MonkeyPatch, name: str, value: str, state: str
) -> None:
    monkeypatch.setenv(name, value)
    found = by_name(smt("doctor", "--json"))["other settings"]
    assert found["state"] == state
    assert state == "ok" or name in found["found"]


def test_doctor_names_settings_file(smt: Smt, imported: SavedEvents, tmp_path: Path) -> None:
    assert by_name(smt("doctor", "--json"))["settings file"]["found"].startswith(f"no .env in {tmp_path}")
    path = tmp_path / ".env"
    path.write_text("SMT_WEB_PORT=8081\nSMT_WEBPORT=1\n")
    path.chmod(0o640)
    found = by_name(smt("doctor", "--json"))
    assert (found["settings file"]["state"], found["settings file"]["found"]) == ("ok", f"{path}, 0640, 2 variables")
    assert found["other settings"]["found"] == "unknown settings: SMT_WEBPORT"


def test_refused_settings_file_is_only_result(smt: Smt, imported: SavedEvents, tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("SMT_PRODUCT_COMMAND=/bin/true\n")
    path.chmod(0o666)
    answer = smt("doctor", "--json")
    assert (answer.code, [each["name"] for each in answer.json]) == (1, ["settings"])
    assert answer.json[0]["found"].startswith(f"{path} is writable by other accounts")
    assert smt("customers", "list").code == 2


def test_setting_whose_name_ends_with_file_is_known(
    smt: Smt, imported: SavedEvents, monkeypatch: pytest.MonkeyPatch, data_dir: Path
) -> None:
    monkeypatch.setenv("SMT_MASTER_KEY_FILE", str(data_dir / "keys" / "master.key"))
    assert by_name(smt("doctor", "--json"))["other settings"]["state"] == "ok"


def test_rotated_relay_log_is_accepted(
    smt: Smt, imported: SavedEvents, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "mail.log-20260301").write_text("a line\n")
    monkeypatch.setenv("SMT_RELAY_LOG", str(tmp_path / "mail.log"))
    assert by_name(smt("doctor", "--json"))["other settings"]["state"] == "ok"


def test_backup_folder_inside_data_folder_fails(
    smt: Smt, imported: SavedEvents, monkeypatch: pytest.MonkeyPatch, data_dir: Path
) -> None:
    monkeypatch.setenv("SMT_BACKUP_DIR", str(data_dir / "backups"))
    assert "is inside the data folder" in by_name(smt("doctor", "--json"))["other settings"]["found"]


def test_missing_master_key_must_be_restored_before_start(
    smt: Smt, imported: SavedEvents, monkeypatch: pytest.MonkeyPatch, data_dir: Path
) -> None:
    (data_dir / "keys" / "master.key").rename(data_dir / "kept.key")
    found = by_name(smt("doctor", "--json"))["master key"]
    assert (found["state"], "restore it" in found["advice"]) == ("fail", True)
    monkeypatch.setenv("SMT_PAYPAL_WEBHOOK_ID", "7AB11223CD445566E")
    answer = smt("run")
    assert (answer.code, answer.err.count("restore it")) == (2, 1)
    assert "Traceback" not in answer.out + answer.err


def test_superuser_of_database_is_reported(smt: Smt, postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMT_DATABASE_URL", postgres_url)
    smt("db", "upgrade")
    assert by_name(smt("doctor", "--json"))["database role"]["state"] == "warn"
    role = make_url(postgres_url).database
    with psycopg.connect(plain(postgres_url), autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN IN ROLE pg_read_all_data")
        own = make_url(postgres_url).set(username=role, password="any")  # noqa: S106 - the test server asks for none
        monkeypatch.setenv("SMT_DATABASE_URL", own.render_as_string(hide_password=False))
        assert by_name(smt("doctor", "--json"))["database role"]["state"] == "ok"
        connection.execute(f"DROP ROLE {role}")
