"""Maildir: new messages are stored and moved, and a message that fails does not stop the others."""

import errno
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import DataError
from sqlalchemy.orm import Session
from structlog.testing import capture_logs

from pipeline.crypto.keyring import Keyring
from pipeline.db.engine import Database, DatabaseUnavailableError
from pipeline.db.models import InboundMail, PrivacyRequest
from pipeline.inbound_mail import intake
from pipeline.inbound_mail import maildir as inbound
from pipeline.inbound_mail.intake import FiledMail
from pipeline.inbound_mail.maildir import UnfiledMail
from tests.pipeline.inbound_mail.test_intake import PAGE, SUPPORT_MAILS, mail_kinds, receive
from tests.pipeline.inbound_mail.test_parser import mail
from tests.support.pipeline_under_test import PipelineUnderTest


@pytest.fixture
def maildir(tmp_path: Path) -> Path:
    folder = tmp_path / "Maildir"
    for name in ("new", "cur", "tmp"):
        (folder / name).mkdir(parents=True)
    return folder


def read(pipeline: PipelineUnderTest, maildir: Path) -> list[FiledMail | UnfiledMail]:
    return list(inbound.read_maildir(maildir, pipeline.database, pipeline.master, pipeline.clock, PAGE))


def test_new_messages_are_stored_and_their_files_deleted(pipeline: PipelineUnderTest, maildir: Path) -> None:
    for number in range(3):
        (maildir / "new" / f"{number}.host").write_bytes(mail(f"question {number}"))
    assert len(read(pipeline, maildir)) == 3
    assert [path for path in maildir.rglob("*") if path.is_file()] == [], "a file is in plain text"
    assert read(pipeline, maildir) == []


def test_message_is_stored_once_when_killed_before_its_file_is_deleted(
    pipeline: PipelineUnderTest, maildir: Path
) -> None:
    (maildir / "new" / "1.host").write_bytes(mail("a question"))
    receive(pipeline, mail("a question"))  # stored; then the process is killed
    [filed] = read(pipeline, maildir)
    assert isinstance(filed, FiledMail)
    assert filed.known
    assert mail_kinds(pipeline) == SUPPORT_MAILS
    assert list((maildir / "new").iterdir()) == []


def test_symbolic_link_is_not_followed_and_stops_no_message(
    pipeline: PipelineUnderTest, maildir: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("a private file")
    (maildir / "new" / "1.host").symlink_to(tmp_path / "secret")
    (maildir / "new" / "2.host").write_bytes(mail("a question"))
    unfiled, filed = read(pipeline, maildir)
    assert isinstance(unfiled, UnfiledMail)
    assert isinstance(filed, FiledMail)
    assert unfiled.file == "1.host"
    assert [path.name for path in (maildir / "new").iterdir()] == ["1.host"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (DatabaseUnavailableError("a statement that took too long"), "a statement that took too long"),
        (OSError(errno.EACCES, "Permission denied"), "permission denied"),
    ],
)
def test_failed_message_stops_no_other_and_is_retried(
    pipeline: PipelineUnderTest, maildir: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    for number in range(3):
        (maildir / "new" / f"{number}.host").write_bytes(mail(f"question {number}"))
    with monkeypatch.context() as patch:
        patch.setattr(intake, "file_mail", failing_for(b"question 1", error))
        done = read(pipeline, maildir)
    assert [each for each in done if isinstance(each, UnfiledMail)] == [UnfiledMail("1.host", reason)]
    assert [path.name for path in (maildir / "new").iterdir()] == ["1.host"]
    [later] = read(pipeline, maildir)
    assert isinstance(later, FiledMail)
    assert mail_kinds(pipeline) == sorted(SUPPORT_MAILS * 3, reverse=True)
    assert list((maildir / "new").iterdir()) == []


@pytest.mark.parametrize(
    "error", [DataError("insert", {"content": "about Ada"}, Exception("about Ada")), RecursionError("about Ada")]
)
def test_message_that_causes_an_error_is_stored_unread_and_reported_once(
    pipeline: PipelineUnderTest, maildir: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    (maildir / "new" / "1.host").write_bytes(mail("question 1"))
    monkeypatch.setattr(intake, "file_mail", failing_for(b"question 1", error))
    with capture_logs() as logs:
        [filed] = read(pipeline, maildir)
        assert read(pipeline, maildir) == []
    assert isinstance(filed, FiledMail)
    assert [(each["event"], each["log_level"]) for each in logs] == [
        ("message_stored_unread", "error"), ("message_stored", "info")
    ]  # fmt: skip
    assert "Ada" not in repr(logs)
    [row] = pipeline.rows(InboundMail)
    [request] = pipeline.rows(PrivacyRequest)
    assert (row.request_id, row.customer_id) == (request.id, None)
    with pipeline.database.transaction() as session:
        data_key = pipeline.keyring(session).load([row.key_id], create=False)[row.key_id]
        assert data_key
        assert data_key.decrypt("inbound_mail.content", row.content or b"") == mail("question 1")
    assert mail_kinds(pipeline) == ["request_due"]  # to the operator; the sender is not known for certain


@pytest.mark.parametrize("kind", ["symbolic link", "error"])
def test_message_that_fails_for_a_day_is_set_aside(
    sqlite_pipeline: PipelineUnderTest, maildir: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path, delivered = maildir / "new" / "1.host", sqlite_pipeline.now.timestamp()
    if kind == "symbolic link":
        path.symlink_to("/etc/hostname")
    else:
        path.write_bytes(mail("question 1"))
        monkeypatch.setattr(intake, "file_mail", failing_for(b"question 1", OSError(errno.EIO, "Input/output error")))
    os.utime(path, (delivered, delivered), follow_symlinks=False)
    sqlite_pipeline.clock.advance(inbound.RETRIED - timedelta(seconds=1))
    assert [each.is_final for each in read(sqlite_pipeline, maildir) if isinstance(each, UnfiledMail)] == [False]
    sqlite_pipeline.clock.advance(timedelta(seconds=1))
    with capture_logs() as logs:
        assert [each.is_final for each in read(sqlite_pipeline, maildir) if isinstance(each, UnfiledMail)] == [True]
        assert read(sqlite_pipeline, maildir) == []
    assert [each["event"] for each in logs] == ["message_set_aside"]
    assert [each.name for each in (maildir / inbound.FAILED).iterdir()] == ["1.host"]


def test_message_that_cannot_be_deleted_is_answered_once(
    pipeline: PipelineUnderTest, maildir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (maildir / "new" / "1.host").write_bytes(mail("a question"))

    def refuse(_: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        [unfiled] = read(pipeline, maildir)
    assert isinstance(unfiled, UnfiledMail)
    [filed] = read(pipeline, maildir)
    assert isinstance(filed, FiledMail)
    assert filed.known
    assert mail_kinds(pipeline) == SUPPORT_MAILS


def test_message_moved_by_another_reader_is_skipped(
    pipeline: PipelineUnderTest, maildir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = maildir / "new" / "1.host"
    path.write_bytes(mail("a question"))
    monkeypatch.setattr(inbound, "_new", lambda _: [path, path])
    assert [isinstance(each, FiledMail) for each in read(pipeline, maildir)] == [True]


def test_reading_stops_when_database_is_unavailable(maildir: Path, sqlite_pipeline: PipelineUnderTest) -> None:
    for number in range(3):
        (maildir / "new" / f"{number}.host").write_bytes(mail(f"question {number}"))
    unavailable, results = Database("postgresql://127.0.0.1:1/nowhere"), list[FiledMail | UnfiledMail]()
    with pytest.raises(DatabaseUnavailableError):
        results.extend(inbound.read_maildir(maildir, unavailable, sqlite_pipeline.master, sqlite_pipeline.clock, PAGE))
    unavailable.close()
    assert results == []


def failing_for(words: bytes, error: Exception) -> Callable[..., FiledMail]:
    """Return a `file_mail` that fails for messages with these words."""
    original = intake.file_mail

    def fail_or_store(session: Session, keyring: Keyring, raw: bytes, *others: Any, **more: Any) -> FiledMail:
        if words in raw:
            raise error
        return original(session, keyring, raw, *others, **more)

    return fail_or_store
