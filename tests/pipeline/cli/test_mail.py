"""`mail`: list and show mails, preview, test mail, and resolving a doubt by hand."""

import email
import email.policy
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import orjson
import pytest

from pipeline.db.engine import Database
from pipeline.db.models import Mail

from .conftest import SavedEvents, Smt, files_of

ROW = {"id", "kind", "key", "to", "subject", "state", "message_id"}


def test_list_shows_queued_mails_with_address_and_subject(smt: Smt, imported: SavedEvents) -> None:
    rows = smt("mail", "list", "--json").json
    assert all(row.keys() >= ROW for row in rows)
    assert {(row["kind"], row["state"], row["to"], row["message_id"]) for row in rows} == {
        (kind, "queued", imported.subscription.person.email, None)
        for kind in ("account_setup", "receipt", "refund_receipt")
    }
    [receipt] = [row for row in rows if row["kind"] == "receipt"]
    assert receipt["key"] == f"receipt:{imported.sale}"
    assert "€29.00" in receipt["subject"]


def test_list_shows_sent_mails_as_frozen(smt: Smt, imported: SavedEvents, caught: Path) -> None:
    assert smt("run", "--until-idle", "--json").json["mails"]["sent"] == 3
    rows = smt("mail", "list", "--state", "sent", "--json").json
    sent = {
        path.stem: email.message_from_bytes(path.read_bytes(), policy=email.policy.default) for path in files_of(caught)
    }
    assert {row["message_id"] for row in rows} == {message["Message-ID"] for message in sent.values()}
    for row in rows:
        message = sent[f"{row['kind']}.{row['id']}"]
        assert (row["subject"], row["to"]) == (message["Subject"], message["Delivered-To"])
        assert message["Return-Path"].startswith("<b+")
    assert smt("mail", "list", "--kind", "receipt", "--limit", "5", "--json").json[0]["attempts"] == 1


def test_caught_mails_are_private(smt: Smt, imported: SavedEvents, caught: Path) -> None:
    smt("run", "--until-idle")
    assert {stat.S_IMODE(path.stat().st_mode) for path in files_of(caught)} == {0o600}


def test_long_subject_is_shown_completely(
    smt: Smt, imported: SavedEvents, caught: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMT_PRODUCT_NAME", "The Great Customer Relations Programme of Görlitz und Zittau")
    before = {row["id"]: row["subject"] for row in smt("mail", "list", "--json").json}
    smt("run", "--until-idle")
    assert {row["id"]: row["subject"] for row in smt("mail", "list", "--json").json} == before
    assert max(map(len, before.values())) > 80  # long enough to be folded


def test_show_prints_text_before_and_after_sending(smt: Smt, imported: SavedEvents, caught: Path) -> None:
    [queued] = smt("mail", "list", "--kind", "receipt", "--json").json
    assert imported.sale in smt("mail", "show", queued["id"]).out
    smt("run", "--until-idle")
    found = smt("mail", "show", queued["id"], "--json").json
    assert imported.sale in found["text"]
    assert found["facts"]["payment"] == imported.sale
    assert found["reply"].startswith("250")
    assert smt("mail", "show", "nothing").code == 2


def test_preview_needs_no_database_and_no_relay(smt: Smt, data_dir: Path, tmp_path: Path) -> None:
    text = smt("mail", "preview", "receipt")
    assert (text.code, text.out.splitlines()[1]) == (0, "")
    assert "<html" in smt("mail", "preview", "receipt", "--html").out
    assert smt("mail", "preview", "receipt", "--html", "--out", tmp_path / "out.html").out == ""
    assert "<html" in (tmp_path / "out.html").read_text("utf-8")
    assert list(data_dir.iterdir()) == []
    unknown = smt("mail", "preview", "unknown_kind")
    assert unknown.code == 2
    assert "receipt" in unknown.err


def test_preview_uses_vendor_settings(smt: Smt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMT_VENDOR_NAME", "Kestrel Works")
    assert "Kestrel Works" in smt("mail", "preview", "receipt").out


def test_send_test_uses_relay(smt: Smt, caught: Path) -> None:
    answer = smt("mail", "send-test", "renewal_reminder", "me@example.com", "--json")
    assert (answer.code, answer.json) == (0, {"outcome": "sent", "reply": "250 stored"})
    [path] = files_of(caught)
    message = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
    assert message["Subject"].startswith("[Test] ")
    assert message["To"] == "me@example.com"


def test_send_test_reports_problems(smt: Smt, monkeypatch: pytest.MonkeyPatch) -> None:
    without = smt("mail", "send-test", "receipt", "me@example.com")
    assert (without.code, "SMT_SMTP_URL" in without.err) == (2, True)
    monkeypatch.setenv("SMT_SMTP_URL", "smtp://127.0.0.1:1")
    closed = smt("mail", "send-test", "receipt", "me@example.com")
    assert (closed.code, closed.out.startswith("later: cannot connect to the relay")) == (1, True)
    assert smt("mail", "send-test", "receipt", "no-address").code == 2
    monkeypatch.setenv("SMT_SMTP_URL", "gopher://127.0.0.1")
    assert smt("mail", "send-test", "receipt", "me@example.com").code == 2


def test_settle_accepts_only_mail_in_doubt(smt: Smt, imported: SavedEvents, data_dir: Path) -> None:
    ids = [row["id"] for row in smt("mail", "list", "--json").json]
    refused = smt("mail", "settle", ids[0], "--sent", "--yes")
    assert (refused.code, "not in doubt" in refused.err) == (1, True)
    set_to_doubt(data_dir, *ids[:2])
    assert smt("mail", "settle", ids[0]).code == smt("mail", "settle", ids[0], "--sent", "--again", "--yes").code == 2
    assert (
        smt("mail", "settle", ids[0], "--sent", "--yes").code
        == smt("mail", "settle", ids[1], "--again", "--yes").code
        == 0
    )
    states = {row["id"]: row["state"] for row in smt("mail", "list", "--json").json}
    assert [states[id] for id in ids[:2]] == ["sent", "queued"]
    assert smt("mail", "settle", "nothing", "--sent", "--yes").code == 2


@pytest.mark.parametrize(("command", "state"), [("resend", "queued"), ("dismiss", "withheld")])
def test_failed_mail_is_sent_again_or_given_up(
    smt: Smt, imported: SavedEvents, data_dir: Path, command: str, state: str
) -> None:
    id = smt("mail", "list", "--json").json[0]["id"]
    assert "not failed" in smt("mail", command, id).err
    with closing(sqlite3.connect(data_dir / "smt-billing.db")) as connection, connection:
        connection.execute("UPDATE mail SET state = 'failed', due_at = NULL, attempts = 8 WHERE id = ?", (id,))
    assert smt("mail", command, id).code == 0
    assert smt("mail", "show", id, "--json").json["state"] == state
    assert smt("mail", command, "unknown").code == 2


def test_control_characters_from_outside_are_removed(smt: Smt, imported: SavedEvents, tmp_path: Path) -> None:
    event = {"id": "WH-EVIL", "event_type": "X.Y", "resource": {"note": "A\x1b]0;title\x07\u202eB\u009bC"}}
    (tmp_path / "evil.json").write_bytes(orjson.dumps(event))
    smt("events", "import", tmp_path / "evil.json")
    output = smt("events", "show", "WH-EVIL").out
    assert "title" in output
    assert not {"\x1b", "\x07", "\u202e", "\u009b"} & set(output)


def test_mail_without_address_is_listed(smt: Smt, saved_events: SavedEvents, tmp_path: Path) -> None:
    """A payment whose subscription event has not arrived yet."""
    sale = next(each for each in saved_events.subscription.deliveries if each.type == "PAYMENT.SALE.COMPLETED")
    (tmp_path / "sale.json").write_bytes(sale.body)
    smt("db", "upgrade")
    smt("events", "import", tmp_path / "sale.json")
    smt("run", "--until-idle")
    [row] = smt("mail", "list", "--json").json
    assert (row["kind"], row["to"], row["state"], row["due_at"]) == ("receipt", None, "queued", None)


def set_to_doubt(data_dir: Path, *ids: str) -> None:
    database = Database(f"sqlite:///{data_dir / 'smt-billing.db'}")
    with database.transaction() as session:
        for id in ids:
            row = session.get(Mail, id)
            assert row is not None
            row.state = "doubt"
    database.close()
