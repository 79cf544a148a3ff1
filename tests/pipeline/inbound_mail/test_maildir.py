"""Maildir: new messages are stored and moved, and a message that fails does not stop the others."""

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import DataError
from sqlalchemy.orm import Session

from pipeline.crypto.keyring import Keyring
from pipeline.db.engine import Database, DatabaseUnavailableError
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


def test_new_messages_are_stored_and_moved(pipeline: PipelineUnderTest, maildir: Path) -> None:
    for number in range(3):
        (maildir / "new" / f"{number}.host").write_bytes(mail(f"question {number}"))
    assert len(read(pipeline, maildir)) == 3
    assert sorted(path.name for path in (maildir / "cur").iterdir()) == ["0.host:2,S", "1.host:2,S", "2.host:2,S"]
    assert read(pipeline, maildir) == []


def test_message_is_stored_once_when_killed_before_move(pipeline: PipelineUnderTest, maildir: Path) -> None:
    (maildir / "new" / "1.host").write_bytes(mail("a question"))
    receive(pipeline, mail("a question"))  # stored; then the process is killed before the move
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
        (DatabaseUnavailableError("a statement that took too long"), "DatabaseUnavailableError"),
        (DataError("insert", {"content": "about Ada"}, Exception("about Ada")), "DataError"),
        (OSError(errno.EACCES, "Permission denied"), "Permission denied"),
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


def test_message_that_cannot_be_moved_is_answered_once(pipeline: PipelineUnderTest, maildir: Path) -> None:
    (maildir / "new" / "1.host").write_bytes(mail("a question"))
    (maildir / "cur").rmdir()
    (maildir / "cur").write_text("no folder")
    [unfiled] = read(pipeline, maildir)
    assert isinstance(unfiled, UnfiledMail)
    (maildir / "cur").unlink()
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
