"""Run `smt-billing` commands within the test's process, and catch their mails in a folder."""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
import structlog

from pipeline.__main__ import main
from pipeline.app import logging
from pipeline.demo.mail_catcher import catch_mail
from pipeline.policy.evidence import journald
from tests.support.vendor import ENVIRONMENT


@dataclass(frozen=True, slots=True)
class Answer:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.out.count("\n") == 1, f"expected one line, got {self.out!r}"
        return orjson.loads(self.out)


Smt = Callable[..., Answer]


@pytest.fixture
def smt(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Smt]:
    """Function that runs `smt-billing` within this process. Only SMT_DATA_DIR and the tests' vendor are set."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SMT_DATA_DIR", str(data_dir))
    monkeypatch.chdir(tmp_path)  # A developer's .env must not be read.
    monkeypatch.setattr(journald, "SOCKET", tmp_path / "no journald")  # Do not read the machine's journal.
    monkeypatch.setattr(logging, "_libraries", lambda _before: None)  # pytest owns the root logger.

    def call(*arguments: str | Path) -> Answer:
        capsys.readouterr()
        code = run(*arguments)
        output = capsys.readouterr()
        return Answer(code, output.out, output.err)

    yield call
    structlog.reset_defaults()


def run(*arguments: str | Path) -> int:
    """Run `smt-billing` within this process and return its exit code."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    code = ended.value.code
    return code if isinstance(code, int) else 0


@pytest.fixture
def caught(tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Folder that receives the mails. SMT_SMTP_URL is set to its mail catcher."""
    folder = tmp_path / "caught"
    with catch_mail(folder, lambda mail_id: kind_of(data_dir / "smt-billing.db", mail_id)) as url:
        monkeypatch.setenv("SMT_SMTP_URL", url)
        yield folder


def kind_of(database: Path, mail_id: str) -> str | None:
    """Return the kind of a mail in a SQLite database; None if there is no such mail or database."""
    if not database.exists():
        return None
    with contextlib.closing(sqlite3.connect(database)) as connection:
        found = connection.execute("SELECT kind FROM mail WHERE id = ?", (mail_id,)).fetchone()
    return found[0] if found else None


def files_of(folder: Path) -> list[Path]:
    """Return the mail files in a mail catcher's folder."""
    return sorted(folder.glob("*.eml"))
