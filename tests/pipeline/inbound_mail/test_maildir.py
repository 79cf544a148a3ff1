"""A Maildir: what is new in it is filed and moved, and a message that fails holds up no other."""

import errno
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from sqlalchemy.exc import DataError
from sqlalchemy.orm import Session

from pipeline.crypto.keyring import Keyring
from pipeline.db.engine import Database, DatabaseUnavailableError
from pipeline.inbound_mail import intake
from pipeline.inbound_mail import maildir as inbound
from pipeline.inbound_mail.intake import FiledMail
from pipeline.inbound_mail.maildir import UnfiledMail
from tests.pipeline.inbound_mail.test_intake import ASKED, PAGE, owed, took
from tests.pipeline.inbound_mail.test_parser import mail
from tests.support.pipeline_under_test import River


@pytest.fixture
def maildir(tmp_path: Path) -> Path:
    folder = tmp_path / "Maildir"
    for name in ("new", "cur", "tmp"):
        (folder / name).mkdir(parents=True)
    return folder


def read(river: River, maildir: Path) -> list[FiledMail | UnfiledMail]:
    return list(inbound.read_maildir(maildir, river.database, river.master, river.clock, PAGE))


def test_what_is_new_in_a_maildir_is_filed_and_moved(river: River, maildir: Path) -> None:
    for number in range(3):
        (maildir / "new" / f"{number}.host").write_bytes(mail(f"question {number}"))
    assert len(read(river, maildir)) == 3
    assert sorted(path.name for path in (maildir / "cur").iterdir()) == ["0.host:2,S", "1.host:2,S", "2.host:2,S"]
    assert read(river, maildir) == []


def test_a_death_between_filing_and_moving_files_nothing_twice(river: River, maildir: Path) -> None:
    (maildir / "new" / "1.host").write_bytes(mail("a question"))
    took(river, mail("a question"))  # filed, and then the process died
    [filed] = read(river, maildir)
    assert isinstance(filed, FiledMail)
    assert filed.known
    assert owed(river) == ASKED
    assert list((maildir / "new").iterdir()) == []


def test_a_link_in_a_maildir_leads_nowhere_and_holds_up_no_letter(river: River, maildir: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("a file of ours")
    (maildir / "new" / "1.host").symlink_to(tmp_path / "secret")
    (maildir / "new" / "2.host").write_bytes(mail("a question"))
    left, filed = read(river, maildir)
    assert isinstance(left, UnfiledMail)
    assert isinstance(filed, FiledMail)
    assert left.file == "1.host"
    assert [path.name for path in (maildir / "new").iterdir()] == ["1.host"]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (DatabaseUnavailableError("a statement that took too long"), "DatabaseUnavailableError"),
        (DataError("insert", {"content": "about Ada"}, Exception("about Ada")), "DataError"),
        (OSError(errno.EACCES, "Permission denied"), "Permission denied"),
    ],
)
def test_a_letter_at_fault_holds_up_no_other_and_is_tried_again(
    river: River, maildir: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception, reason: str
) -> None:
    for number in range(3):
        (maildir / "new" / f"{number}.host").write_bytes(mail(f"question {number}"))
    with monkeypatch.context() as patch:
        patch.setattr(intake, "file_mail", failing_for(b"question 1", fault))
        done = read(river, maildir)
    assert [each for each in done if isinstance(each, UnfiledMail)] == [UnfiledMail("1.host", reason)]
    assert [path.name for path in (maildir / "new").iterdir()] == ["1.host"]
    [later] = read(river, maildir)
    assert isinstance(later, FiledMail)
    assert owed(river) == sorted(ASKED * 3, reverse=True)
    assert list((maildir / "new").iterdir()) == []


def test_a_letter_that_cannot_be_moved_stays_and_is_answered_once(river: River, maildir: Path) -> None:
    (maildir / "new" / "1.host").write_bytes(mail("a question"))
    (maildir / "cur").rmdir()
    (maildir / "cur").write_text("no folder")
    [left] = read(river, maildir)
    assert isinstance(left, UnfiledMail)
    (maildir / "cur").unlink()
    [filed] = read(river, maildir)
    assert isinstance(filed, FiledMail)
    assert filed.known
    assert owed(river) == ASKED


def test_a_letter_that_another_reader_moved_meanwhile_is_no_fault(
    river: River, maildir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = maildir / "new" / "1.host"
    path.write_bytes(mail("a question"))
    monkeypatch.setattr(inbound, "_new", lambda _: [path, path])
    assert [isinstance(each, FiledMail) for each in read(river, maildir)] == [True]


def test_while_the_database_is_away_no_letter_is_tried_after_the_first(maildir: Path, brook: River) -> None:
    for number in range(3):
        (maildir / "new" / f"{number}.host").write_bytes(mail(f"question {number}"))
    away, told = Database("postgresql://127.0.0.1:1/nowhere"), list[FiledMail | UnfiledMail]()
    with pytest.raises(DatabaseUnavailableError):
        told.extend(inbound.read_maildir(maildir, away, brook.master, brook.clock, PAGE))
    away.close()
    assert told == []


def failing_for(words: bytes, fault: Exception) -> Callable[..., FiledMail]:
    """Filing that fails for the letter with these words in it."""
    really = intake.file_mail

    def file(session: Session, keyring: Keyring, raw: bytes, now: datetime, page: str) -> FiledMail:
        if words in raw:
            raise fault
        return really(session, keyring, raw, now, page)

    return file
