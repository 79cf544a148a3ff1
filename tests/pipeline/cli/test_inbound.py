"""`smt-billing inbound` with messages that a real Postfix delivered, and with a message from standard input."""

import io
import smtplib
import stat
import zipfile
from contextlib import closing
from email import policy
from email.parser import BytesParser
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from sqlalchemy import select

from pipeline.crypto.master_key import MasterKeyError
from pipeline.db.engine import Database
from pipeline.db.models import ReadAudit
from pipeline.settings import load
from tests.pipeline.cli.conftest import SavedEvents, Smt, files_of
from tests.pipeline.inbound_mail.test_parser import mail
from tests.support.servers import Relay


class Piped(io.TextIOWrapper):
    """Standard input that contains these bytes."""

    def __init__(self, raw: bytes) -> None:
        super().__init__(io.BytesIO(raw))


def test_message_delivered_by_postfix_is_filed_and_moved(smt: Smt, imported: SavedEvents, mailbox: Relay) -> None:
    relay = urlsplit(mailbox.smtp_url)
    with smtplib.SMTP(str(relay.hostname), relay.port or 25) as client:
        client.sendmail("ada@example.com", ["info@example.com"], mail("How do I add a second user?"))
        client.sendmail("<>", ["info@example.com"], mail("I am away", Auto_Submitted="auto-replied"))
    mailbox.wait_for(2)
    answer = smt("inbound", mailbox.maildir, "--json")
    assert answer.code == 0
    assert sorted((row["kind"], row["asks"]) for row in answer.json) == [("automatic", None), ("support", None)]
    assert list((mailbox.maildir / "new").iterdir()) == []
    assert smt("inbound", mailbox.maildir).out == "no new mail\n"
    kinds = [row["kind"] for row in smt("mail", "list", "--json", "--kind", "support_received").json]
    assert kinds == ["support_received"]


def test_message_from_stdin_is_filed(smt: Smt, imported: SavedEvents, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Piped(mail("please delete my account")))
    answer = smt("inbound", "-", "--json")
    assert (answer.code, answer.json[0]["asks"]) == (0, "erase")
    (request,) = smt("customers", "requests", "--open", "--json").json
    assert (request["kind"], request["state"]) == ("erase", "received")
    assert smt("customers", "answer", request["id"], "--done").out == "done\n"
    assert smt("customers", "requests", "--open", "--json").json == []
    again = smt("customers", "answer", request["id"], "--done")
    assert (again.code, request["id"] in again.err) == (2, True)


def test_unreachable_database_makes_postfix_try_again(smt: Smt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMT_DATABASE_URL", "postgresql://127.0.0.1:1/nowhere")
    monkeypatch.setattr("sys.stdin", Piped(mail("a question")))
    answer = smt("inbound", "-")
    assert answer.code == 75
    assert "try again" in answer.err


def test_missing_setting_makes_postfix_try_again(
    smt: Smt, imported: SavedEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SMT_PUBLIC_URL")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"From: a@example.com\r\n\r\nhello\r\n")))
    answer = smt("inbound", "-")
    assert (answer.code, "set SMT_PUBLIC_URL" in answer.err) == (75, True)


def test_unfiled_message_is_reported_with_exit_code_1(smt: Smt, imported: SavedEvents, tmp_path: Path) -> None:
    for name in ("new", "cur", "tmp"):
        (tmp_path / name).mkdir()
    (tmp_path / "new" / "1.host").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "new" / "2.host").write_bytes(mail("a question"))
    (tmp_path / "elsewhere").write_bytes(mail("a file outside the Maildir"))
    answer = smt("inbound", tmp_path, "--json")
    assert answer.code == 1
    assert [row.get("kind") for row in answer.json] == ["support", None]
    assert answer.json[1]["file"] == "1.host"
    assert answer.json[1]["failed"]
    again = smt("inbound", tmp_path)
    assert (again.code, "1.host" in again.err) == (1, True)


@pytest.mark.parametrize(
    ("failing", "error", "code"),
    [
        (("file_mail",), ValueError("about Ada"), 0),  # stored unread
        (("file_mail", "_file_unread"), ValueError("about Ada"), 65),
        (("file_mail",), OSError("disk"), 75),
        (("file_mail",), MasterKeyError("the master key is missing"), 75),
    ],
)
def test_only_an_error_that_can_pass_makes_postfix_try_again(
    smt: Smt,
    imported: SavedEvents,
    monkeypatch: pytest.MonkeyPatch,
    failing: tuple[str, ...],
    error: Exception,
    code: int,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    for name in failing:
        monkeypatch.setattr(f"pipeline.inbound_mail.intake.{name}", fail)
    monkeypatch.setattr("sys.stdin", Piped(mail("a question")))
    answer = smt("inbound", "-")
    assert (answer.code, "Ada" in answer.err) == (code, False)


def test_missing_maildir_or_message_is_usage_error(
    smt: Smt, imported: SavedEvents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", Piped(b"\n"))
    for words, message in (
        (("inbound",), "SMT_INBOUND_MAILDIR"),
        (("inbound", tmp_path), "is not a Maildir"),
        (("inbound", "-"), "there is no message"),
    ):
        answer = smt(*words)
        assert (answer.code, message in answer.err) == (2, True), words


def test_export_is_written_once_and_can_be_verified(smt: Smt, imported: SavedEvents, tmp_path: Path) -> None:
    customer = smt("subscriptions", "list", "--json").json[0]["customer"]
    file = tmp_path / "copy.zip"
    answer = smt("customers", "export", customer, "--to", file, "--json")
    assert (answer.code, answer.json["file"]) == (0, str(file))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with zipfile.ZipFile(file) as opened:
        assert imported.subscription.person.email.encode() in opened.read("data.json")
    assert smt("customers", "verify", file).code == 0
    assert smt("customers", "export", customer, "--to", file).code == 2
    file.write_bytes(b"changed")
    assert smt("customers", "verify", file).code == 1


def test_export_of_unknown_customer_writes_nothing(smt: Smt, imported: SavedEvents, tmp_path: Path) -> None:
    answer = smt("customers", "export", "c-unknown", "--to", tmp_path / "copy.zip")
    assert (answer.code, "smt-billing customers list" in answer.err) == (2, True)
    assert not (tmp_path / "copy.zip").exists()


def file_message(smt: Smt, monkeypatch: pytest.MonkeyPatch, raw: bytes) -> str:
    monkeypatch.setattr("sys.stdin", Piped(raw))
    return str(smt("inbound", "-", "--json").json[0]["letter"])


def test_message_is_listed_shown_and_answered(
    smt: Smt, imported: SavedEvents, monkeypatch: pytest.MonkeyPatch, caught: Path, tmp_path: Path
) -> None:
    raw = mail("How do I add a second user?", Message_ID="<question@example.com>")
    id = file_message(smt, monkeypatch, raw)
    [row] = smt("inbound", "list", "--open", "--json").json
    assert (row["id"], row["state"], row["from"], row["subject"]) == (id, "open", "Ada <ada@example.com>", "A question")
    assert id[:12] in smt("inbound", "list").out
    assert "How do I add a second user?" in smt("inbound", "show", id[:12]).out
    assert smt("inbound", "show", id, "--json").json["text"].strip() == "How do I add a second user?"
    assert smt("inbound", "show", id, "--raw").out.encode() == raw

    (tmp_path / "answer.txt").write_text("Open the settings.\nThen choose Add user.\n")
    answer = smt("inbound", "reply", id, "--file", tmp_path / "answer.txt", "--json")
    assert (answer.code, answer.json["to"], answer.json["open_request"]) == (0, "ada@example.com", None)
    assert smt("inbound", "list", "--unanswered", "--json").json == []
    assert smt("run", "--until-idle").code == 0
    [sent] = [path for path in files_of(caught) if path.name.startswith("inbound_reply")]
    message = BytesParser(policy=policy.default).parsebytes(sent.read_bytes())
    assert message["To"].addresses[0].addr_spec == "ada@example.com"
    assert (message["Subject"], message["In-Reply-To"], message["References"]) == (
        "Re: A question", "<question@example.com>", "<question@example.com>",
    )  # fmt: skip
    assert message["Auto-Submitted"] is None  # a person wrote it
    part = message.get_body(("plain",))
    assert part
    assert "Open the settings.\r\nThen choose Add user." in part.get_content()


def test_reply_is_read_from_stdin(smt: Smt, imported: SavedEvents, monkeypatch: pytest.MonkeyPatch) -> None:
    id = file_message(smt, monkeypatch, mail("please delete my account"))
    monkeypatch.setattr("sys.stdin", Piped(b"Please follow the link that we sent you.\n"))
    answer = smt("inbound", "reply", id)
    assert (answer.code, answer.out) == (0, "queued the reply to ada@example.com\n")
    assert "customers answer" in answer.err
    monkeypatch.setattr("sys.stdin", Piped(b"\xff\xfe"))
    assert smt("inbound", "reply", id).code == 2


def test_reading_messages_is_recorded(smt: Smt, imported: SavedEvents, monkeypatch: pytest.MonkeyPatch) -> None:
    id = file_message(smt, monkeypatch, mail("a question"))
    monkeypatch.setattr("sys.stdin", Piped(b"An answer."))
    for words in (("list",), ("show", id), ("reply", id)):
        assert smt("inbound", *words, "--purpose", f"ticket {words[0]}").code == 0
    with closing(Database(load().database)) as database, database.reading() as session:
        found = select(ReadAudit.action, ReadAudit.purpose, ReadAudit.subject).order_by(ReadAudit.id)
        recorded = [tuple(row) for row in session.execute(found)]
    assert recorded == [
        ("inbound list", "ticket list", None), ("inbound show", "ticket show", id), ("inbound reply", "ticket reply", id),
    ]  # fmt: skip


@pytest.mark.parametrize("words", [("show", "0" * 12), ("reply", "0" * 12), ("show", "abc")])
def test_unknown_message_is_usage_error(
    smt: Smt, imported: SavedEvents, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.setattr("sys.stdin", Piped(b"An answer."))
    answer = smt("inbound", *words)
    assert (answer.code, "smt-billing inbound list" in answer.err) == (2, True)


def test_doctor_warns_if_nobody_is_told_about_messages(
    smt: Smt, imported: SavedEvents, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def found() -> tuple[str, str]:
        [row] = [row for row in smt("doctor", "--json").json if row["name"] == "inbound mail"]
        return row["state"], row["found"] + row["advice"]

    assert found()[0] == "ok"
    (tmp_path / "new").mkdir()
    monkeypatch.setenv("SMT_INBOUND_MAILDIR", str(tmp_path))
    assert (found()[0], "SMT_OPERATOR_EMAIL" in found()[1]) == ("warn", True)
    monkeypatch.delenv("SMT_INBOUND_MAILDIR")
    file_message(smt, monkeypatch, mail("a question"))  # from a pipe
    assert (found()[0], "SMT_OPERATOR_EMAIL" in found()[1]) == ("warn", True)
    monkeypatch.setenv("SMT_OPERATOR_EMAIL", "ops@example.com")
    assert (found()[0], "1 open" in found()[1]) == ("ok", True)


def test_raw_message_does_not_control_the_terminal(
    smt: Smt, imported: SavedEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = mail("Hello \x1b]0;title\x07\x1b[2J")
    id = file_message(smt, monkeypatch, raw)
    assert smt("inbound", "show", id, "--raw").out.encode() == raw
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    shown = smt("inbound", "show", id, "--raw").out
    assert "Hello" in shown
    assert "\x1b" not in shown
    assert "\x07" not in shown


def test_long_subject_is_shortened_in_the_list(
    smt: Smt, imported: SavedEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = mail("Hello").replace(b"Subject: ", b"Subject: " + b"S" * 5000)
    id = file_message(smt, monkeypatch, raw)
    assert smt("inbound", "list").out.count("S") < 100
    assert len(smt("inbound", "show", id, "--json").json["subject"]) > 100
