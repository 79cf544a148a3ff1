"""Calls of the command line within the test's process, and a mail catcher that SMT_SMTP_URL names."""

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


@dataclass(frozen=True, slots=True)
class Answer:
    """How a call ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.out.count("\n") == 1, f"not one line: {self.out!r}"
        return orjson.loads(self.out)


Smt = Callable[..., Answer]


@pytest.fixture
def smt(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Smt]:
    """Calls `smt-billing` within this process, with SMT_DATA_DIR and nothing else set."""
    monkeypatch.setenv("SMT_DATA_DIR", str(data_dir))
    monkeypatch.chdir(tmp_path)  # away from a developer's .env
    monkeypatch.setattr(journald, "SOCKET", tmp_path / "no journald")  # that of the machine is not ours to judge
    monkeypatch.setattr(logging, "_libraries", lambda _before: None)  # the root logger is pytest's

    def call(*arguments: str | Path) -> Answer:
        capsys.readouterr()
        code = run(*arguments)
        said = capsys.readouterr()
        return Answer(code, said.out, said.err)

    yield call
    structlog.reset_defaults()


def run(*arguments: str | Path) -> int:
    """Call `smt-billing` within this process; its exit code."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    code = ended.value.code
    return code if isinstance(code, int) else 0


@pytest.fixture
def caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder in which SMT_SMTP_URL leaves what it is given."""
    folder = tmp_path / "caught"
    with catch_mail(folder) as url:
        monkeypatch.setenv("SMT_SMTP_URL", url)
        yield folder


def files_of(folder: Path) -> list[Path]:
    """The mails in a folder of caught ones."""
    return sorted(folder.glob("*.eml"))
