"""`policy`: the check and its report, texts, changes and their notices, and the record of processing."""

import os
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from pipeline.clock import SystemClock
from pipeline.crypto.keyring import Keyring
from pipeline.crypto.master_key import open_master_key
from pipeline.operations import heartbeat
from pipeline.policy.clauses import document

from .conftest import NOW, SavedEvents, Smt

KEYS = {"clause", "verdict", "figure", "evidence", "control", "unseen"}


def day(days: int) -> str:
    return f"{NOW + timedelta(days=days):%Y-%m-%d}"


@pytest.fixture
def new_text(smt: Smt, imported: SavedEvents, tmp_path: Path) -> Path:
    file = tmp_path / "new.txt"
    file.write_text(smt("policy", "texts", "--new").out.replace("90 days", "60 days"))
    return file


def test_every_clause_is_checked_and_none_is_broken(smt: Smt, imported: SavedEvents) -> None:
    answer = smt("policy", "check", "--json")
    assert [row["clause"] for row in answer.json] == [clause.id for clause in document().clauses]
    assert all(row.keys() == KEYS for row in answer.json)
    assert [row for row in answer.json if row["verdict"] == "broken"] == []
    assert answer.code == 0
    output = smt("policy", "check").out
    assert "0 broken" in output
    assert "Conflicts between policy and law" in output
    assert imported.subscription.person.email not in output


def test_broken_clause_exits_1_with_advice(smt: Smt, imported: SavedEvents, data_dir: Path) -> None:
    (data_dir / "smt-billing.db").chmod(0o644)
    answer = smt("policy", "check", "--clause", "7.permissions", "--json")
    assert answer.code == 1
    [row] = answer.json
    assert row["verdict"] == "broken"
    assert f"chmod -R go-rwx {data_dir}" in row["figure"]
    assert smt("policy", "check", "--clause", "99.none").code == 2


def test_openssl_verifies_report_signature(smt: Smt, imported: SavedEvents, tmp_path: Path) -> None:
    file = tmp_path / "report.md"
    assert smt("policy", "check", "--report", file).code == 0
    text = file.read_text("utf-8")
    assert f"{NOW:%Y-%m}" in text
    assert all(f"| {clause.id} |" in text for clause in document().clauses)
    verify = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", f"{file}.pem", "-rawin", "-in", str(file)]
    assert subprocess.run([*verify, "-sigfile", f"{file}.sig"], check=False, capture_output=True).returncode == 0
    file.write_text(text.replace("holds", "broken", 1))
    assert subprocess.run([*verify, "-sigfile", f"{file}.sig"], check=False, capture_output=True).returncode != 0


def test_last_verdicts_are_public_without_evidence(smt: Smt, imported: SavedEvents, data_dir: Path) -> None:
    from pipeline.policy.clauses import PolicyOwner
    from pipeline.policy.public_pages import evidence

    vendor = PolicyOwner("Example Works", "Example Ledger", "https://works.example.com", "privacy@example.com")
    smt("policy", "check")
    page, rows = evidence(data_dir, vendor)
    assert {tuple(row) for row in rows} == {("clause", "verdict", "date")}
    assert len(rows) == len(list(document().clauses))
    assert "holds" in page
    assert "pipeline" not in page


def test_material_change_is_planned_and_notices_are_queued(smt: Smt, new_text: Path, imported: SavedEvents) -> None:
    dry = smt("policy", "propose", new_text, "--effective", day(60), "--material", "--dry-run")
    assert "customers to notify by mail: 1" in dry.out
    assert [row["day"] for row in smt("policy", "texts", "--json").json] == ["2025-05-01"]
    done = smt("policy", "propose", new_text, "--effective", day(60), "--material", "--yes")
    assert done.code == 0, done.err
    assert "- Server access logs are retained for 90 days." in done.out
    assert "+ Server access logs are retained for 60 days." in done.out
    assert "this version has no check for: Server access logs are retained for 60 days." in done.err
    assert f"planned for {day(60)}, notices queued: 1" in done.out
    [notice] = smt("policy", "notices", day(60), "--json").json
    assert notice["state"] == "queued"
    states = {row["day"]: row["state"] for row in smt("policy", "texts", "--json").json}
    assert states == {"2025-05-01": "in force", day(60): "planned"}
    assert "60 days" in smt("policy", "texts", day(60)).out
    assert "90 days" in smt("policy", "texts", "2025-05-01").out


def test_notice_is_sent_to_customer(smt: Smt, new_text: Path, imported: SavedEvents, caught: Path) -> None:
    smt("policy", "propose", new_text, "--effective", day(60), "--material", "--yes")
    smt("run", "--until-idle")
    [mail] = list(caught.glob("policy_changed*"))
    assert imported.subscription.person.email in mail.read_text("utf-8", "replace")
    [notice] = smt("policy", "notices", day(60), "--json").json
    assert notice["state"] == "sent"
    assert notice["reply"].startswith("250")


def test_too_early_day_is_refused_with_earliest_day(smt: Smt, new_text: Path) -> None:
    answer = smt("policy", "propose", new_text, "--effective", day(10), "--material", "--yes")
    assert answer.code == 2
    assert "30 days' notice" in answer.err
    assert "--effective" in answer.err
    assert smt("policy", "propose", new_text, "--effective", "soon").code == 2


def test_text_can_be_withdrawn_before_its_day(smt: Smt, new_text: Path) -> None:
    smt("policy", "propose", new_text, "--effective", day(20))
    assert smt("policy", "withdraw", day(20)).code == 0
    assert smt("policy", "withdraw", day(20)).code == 2
    assert {row["state"] for row in smt("policy", "texts", "--json").json} == {"in force", "withdrawn"}


def test_processing_record_has_all_sections(smt: Smt, imported: SavedEvents) -> None:
    found = smt("policy", "record", "--json").json
    assert found["controller"]["name"] == "SMT Constructions"
    assert {"contact", "payment", "usage"} <= found["categories"].keys()
    assert found["recipients"][0]["recipient"] == "PayPal"
    assert any(row["period"] == "90 days" for row in found["periods"])
    assert all(row["basis"] for row in found["purposes"])
    record = smt("policy", "record").out
    assert "Purposes" in record
    assert "90 days" in record


READS = (
    ("events show", ("events", "show")),
    ("mail show", ("mail", "show")),
    ("subscriptions show", ("subscriptions", "show")),
)


@pytest.mark.parametrize(("action", "words"), READS, ids=[action for action, _ in READS])
def test_read_is_recorded_with_user_and_purpose(
    smt: Smt, imported: SavedEvents, action: str, words: tuple[str, str], data_dir: Path
) -> None:
    from pipeline.db.engine import Database
    from pipeline.db.models import ReadAudit
    from pipeline.privacy import audit_log

    kind = words[0]
    id = smt(kind, "list", "--limit", "1", "--json").json[0]["id"]
    assert smt(*words, id).code == 0
    assert smt(*words, id, "--purpose", "a question by phone", "--json").code == 0
    assert smt(*words, "nothing").code == 2
    database = Database(f"sqlite:///{data_dir / 'smt-billing.db'}")
    with database.reading() as session:
        rows = [row for row in session.query(ReadAudit).order_by(ReadAudit.id) if row.action == action]
        keyring = Keyring(open_master_key(data_dir / "keys" / "master.key"), session, NOW)
        assert audit_log.verify_chain(session, keyring) is None
        assert [row.actor for row in rows] == [audit_log.this_user()] * 2
        assert [row.purpose for row in rows][1] == "a question by phone"
        assert rows[0].purpose
    database.close()


def test_unrecorded_read_shows_nothing(smt: Smt, imported: SavedEvents, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.db.engine import DatabaseUnavailableError
    from pipeline.privacy import audit_log

    def fail(*_: object, **__: object) -> None:
        raise DatabaseUnavailableError("the database gave up: disk full")

    id = smt("subscriptions", "list", "--json").json[0]["id"]
    monkeypatch.setattr(audit_log, "record_read", fail)
    answer = smt("subscriptions", "show", id)
    assert answer.code == 1
    assert imported.subscription.person.email not in answer.out
    assert answer.out == ""


PAGES = {
    "SMT_PAYPAL_WEBHOOK_ID": "8PT597110X687430L",
    "SMT_PUBLIC_URL": "https://billing.example.com",
}


def test_policy_check_requests_pages_and_finds_open_one(
    smt: Smt, imported: SavedEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.web.site import Site

    clauses = [word for id in ("1.pages", "4.session", "4.none_else", "7.tls", "9.date") for word in ("--clause", id)]
    for name, value in PAGES.items():
        monkeypatch.setenv(name, value)
    found = smt("policy", "check", *clauses, "--json").json
    assert {row["verdict"] for row in found} == {"holds"}, found
    monkeypatch.setattr(Site, "headers", lambda *_, **__: {})
    found = {row["clause"]: row["verdict"] for row in smt("policy", "check", *clauses, "--json").json}
    assert (found["1.pages"], found["7.tls"]) == ("broken", "broken")


CONNECTED = """
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))):
    print("connected", flush=True)
    sys.stdin.read()
"""


def test_policy_check_finds_connection_to_unknown_host(
    smt: Smt, imported: SavedEvents, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = ("policy", "check", "--clause", "5.only", "--json")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        words = [sys.executable, "-c", CONNECTED, str(port), "pipeline"]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            assert process.stdout.readline() == "connected\n"
            with monkeypatch.context() as patched:
                patched.setattr(os, "getpid", lambda: process.pid)
                heartbeat.write(data_dir, "worker", SystemClock().now())
            [row] = smt(*check).json
            assert (row["verdict"], row["figure"]) == ("broken", f"connected to 127.0.0.1:{port}")
            monkeypatch.setenv("SMT_SMTP_URL", f"smtp://127.0.0.1:{port}")
            [row] = smt(*check).json
            assert row["verdict"] == "holds"
            assert "1 process, 1 connection, 0 to others" in row["figure"]
            process.communicate("")
    [row] = smt(*check).json
    assert "no role runs on this machine now" in row["figure"]


@pytest.mark.slow
def test_policy_holds_on_demo_data_after_three_years(smt: Smt, data_dir: Path) -> None:
    before = os.umask(0o077)  # a separate smt-billing process sets it too
    try:
        answer = smt("demo", "--once", "--json", "--months", "36", "--subscribers", "5")
    finally:
        os.umask(before)
    assert answer.code == 0, answer
    found = {row["clause"]: row for row in smt("policy", "check", "--json").json}
    assert {id: row["figure"] for id, row in found.items() if row["verdict"] == "broken"} == {}
    assert found["3.account"]["figure"].startswith("0 of 5 accounts overdue, last retention run 20")
    # How many two-year periods end depends on today's date, because the demo ends today.
    erased = smt("customers", "list", "--state", "erased", "--json").json
    assert int(found["6.delete"]["figure"].split()[0]) == len(erased)
