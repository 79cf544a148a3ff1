"""`mail`: what is owed and was sent, previews, a test mail, and settling a doubt by hand."""

import email
import email.policy
import stat
from pathlib import Path

import orjson
import pytest

from pipeline.db.engine import Database
from pipeline.db.models import Mail

from .conftest import Smt, Told, files_of

ROW = {"id", "kind", "key", "to", "subject", "state", "message_id"}


def test_the_list_shows_what_is_owed_with_the_address_and_subject_it_would_have(smt: Smt, books: Told) -> None:
    rows = smt("mail", "list", "--json").json
    assert all(row.keys() >= ROW for row in rows)
    assert {(row["kind"], row["state"], row["to"], row["message_id"]) for row in rows} == {
        (kind, "queued", books.life.person.email, None) for kind in ("account_setup", "receipt", "refund_receipt")
    }
    [receipt] = [row for row in rows if row["kind"] == "receipt"]
    assert receipt["key"] == f"receipt:{books.sale}"
    assert "€29.00" in receipt["subject"]


def test_what_was_sent_shows_what_it_was_frozen_as(smt: Smt, books: Told, caught: Path) -> None:
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


def test_caught_mails_are_readable_by_their_owner_alone(smt: Smt, books: Told, caught: Path) -> None:
    smt("run", "--until-idle")
    assert {stat.S_IMODE(path.stat().st_mode) for path in files_of(caught)} == {0o600}


def test_a_long_subject_is_shown_whole(smt: Smt, books: Told, caught: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMT_PRODUCT_NAME", "The Great Customer Relations Programme of Görlitz und Zittau")
    before = {row["id"]: row["subject"] for row in smt("mail", "list", "--json").json}
    smt("run", "--until-idle")
    assert {row["id"]: row["subject"] for row in smt("mail", "list", "--json").json} == before
    assert max(map(len, before.values())) > 80  # long enough to be folded


def test_one_mail_is_shown_with_its_text_before_and_after_it_is_sent(smt: Smt, books: Told, caught: Path) -> None:
    [owed] = smt("mail", "list", "--kind", "receipt", "--json").json
    assert books.sale in smt("mail", "show", owed["id"]).out
    smt("run", "--until-idle")
    found = smt("mail", "show", owed["id"], "--json").json
    assert books.sale in found["text"]
    assert found["facts"]["payment"] == books.sale
    assert found["reply"].startswith("250")
    assert smt("mail", "show", "nothing").code == 2


def test_a_preview_needs_neither_database_nor_relay(smt: Smt, data_dir: Path, tmp_path: Path) -> None:
    text = smt("mail", "preview", "receipt")
    assert (text.code, text.out.splitlines()[1]) == (0, "")
    assert "<html" in smt("mail", "preview", "receipt", "--html").out
    assert smt("mail", "preview", "receipt", "--html", "--out", tmp_path / "out.html").out == ""
    assert "<html" in (tmp_path / "out.html").read_text("utf-8")
    assert list(data_dir.iterdir()) == []
    unknown = smt("mail", "preview", "love_letter")
    assert unknown.code == 2
    assert "receipt" in unknown.err


def test_the_vendors_settings_show_in_a_preview(smt: Smt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMT_VENDOR_NAME", "Kestrel Works")
    assert "Kestrel Works" in smt("mail", "preview", "receipt").out


def test_a_test_mail_goes_through_the_relay(smt: Smt, caught: Path) -> None:
    answer = smt("mail", "send-test", "renewal_reminder", "me@example.com", "--json")
    assert (answer.code, answer.json) == (0, {"outcome": "sent", "reply": "250 stored"})
    [path] = files_of(caught)
    message = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
    assert message["Subject"].startswith("[Test] ")
    assert message["To"] == "me@example.com"


def test_a_test_mail_says_what_is_wrong(smt: Smt, monkeypatch: pytest.MonkeyPatch) -> None:
    without = smt("mail", "send-test", "receipt", "me@example.com")
    assert (without.code, "SMT_SMTP_URL" in without.err) == (2, True)
    monkeypatch.setenv("SMT_SMTP_URL", "smtp://127.0.0.1:1")
    closed = smt("mail", "send-test", "receipt", "me@example.com")
    assert (closed.code, closed.out.startswith("later: no connection")) == (1, True)
    assert smt("mail", "send-test", "receipt", "nobody").code == 2
    monkeypatch.setenv("SMT_SMTP_URL", "gopher://127.0.0.1")
    assert smt("mail", "send-test", "receipt", "me@example.com").code == 2


def test_only_a_mail_in_doubt_is_settled_by_hand(smt: Smt, books: Told, data_dir: Path) -> None:
    ids = [row["id"] for row in smt("mail", "list", "--json").json]
    refused = smt("mail", "settle", ids[0], "--sent")
    assert (refused.code, "not in doubt" in refused.err) == (1, True)
    doubt(data_dir, *ids[:2])
    assert smt("mail", "settle", ids[0]).code == smt("mail", "settle", ids[0], "--sent", "--again").code == 2
    assert smt("mail", "settle", ids[0], "--sent").code == smt("mail", "settle", ids[1], "--again").code == 0
    states = {row["id"]: row["state"] for row in smt("mail", "list", "--json").json}
    assert [states[id] for id in ids[:2]] == ["sent", "queued"]
    assert smt("mail", "settle", "nothing", "--sent").code == 2


def test_a_terminal_is_not_steered_by_what_strangers_wrote(smt: Smt, books: Told, tmp_path: Path) -> None:
    event = {"id": "WH-EVIL", "event_type": "X.Y", "resource": {"note": "A\x1b]0;title\x07\u202eB\u009bC"}}
    (tmp_path / "evil.json").write_bytes(orjson.dumps(event))
    smt("events", "import", tmp_path / "evil.json")
    said = smt("events", "show", "WH-EVIL").out
    assert "title" in said
    assert not {"\x1b", "\x07", "\u202e", "\u009b"} & set(said)


def test_a_mail_without_an_address_is_listed_without_one(smt: Smt, told: Told, tmp_path: Path) -> None:
    """Money for a subscription that nobody has told of yet."""
    sale = next(each for each in told.life.deliveries if each.type == "PAYMENT.SALE.COMPLETED")
    (tmp_path / "sale.json").write_bytes(sale.body)
    smt("db", "upgrade")
    smt("events", "import", tmp_path / "sale.json")
    smt("run", "--until-idle")
    [row] = smt("mail", "list", "--json").json
    assert (row["kind"], row["to"], row["state"], row["due_at"]) == ("receipt", None, "queued", None)


def doubt(data_dir: Path, *ids: str) -> None:
    database = Database(f"sqlite:///{data_dir / 'smt-billing.db'}")
    with database.transaction() as session:
        for id in ids:
            row = session.get(Mail, id)
            assert row is not None
            row.state = "doubt"
    database.close()
