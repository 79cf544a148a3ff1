"""Calls of the command line in a folder of its own, and books that some events have been through."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest
import structlog

from pipeline.__main__ import main
from pipeline.app import logging as logs
from pipeline.demo.mail_catcher import catching
from pipeline.policy.evidence import journald as journal
from pipeline.simulator.life import Life
from pipeline.simulator.people import PEOPLE
from pipeline.simulator.plans import CLOUD

NOW = datetime.now(UTC)  # noqa: DTZ005, TID251 - a command asks the machine's clock, so what is news depends on it


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
    monkeypatch.setattr(journal, "SOCKET", tmp_path / "no journald")  # that of the machine is not ours to judge
    monkeypatch.setattr(logs, "_libraries", lambda _before: None)  # the root logger is pytest's

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


@dataclass(frozen=True, slots=True)
class Told:
    """A subscription that began two days ago, paid, and got a part of its money back; its events as files."""

    folder: Path
    life: Life

    @property
    def sale(self) -> str:
        return next(iter(self.life.sales))


@pytest.fixture(scope="session")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    life = Life(PEOPLE[0], CLOUD, NOW - timedelta(days=2), Random(4))
    life.begin()
    life.refund(next(iter(life.sales.values())), NOW - timedelta(hours=1), 900)
    folder = tmp_path_factory.mktemp("events")
    for number, delivery in enumerate(life.deliveries):
        (folder / f"{number}.json").write_bytes(delivery.body)
    return Told(folder, life)


@pytest.fixture(scope="session")
def kept_books(told: Told, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder in which what was told is imported and handled: made once, copied for each test."""
    folder = tmp_path_factory.mktemp("kept") / "var"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SMT_DATA_DIR", str(folder))
        patch.chdir(folder.parent)
        patch.setattr(logs, "set_up", lambda _level: None)
        for words in (("db", "upgrade"), ("events", "import", told.folder), ("run", "--until-idle")):
            assert run(*words) == 0
    return folder


@pytest.fixture
def books(smt: Smt, told: Told, kept_books: Path, data_dir: Path) -> Told:
    """What was told, imported and handled; there was no relay, so the mails are owed."""
    shutil.copytree(kept_books, data_dir, dirs_exist_ok=True)
    return told


@pytest.fixture
def caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder in which SMT_SMTP_URL leaves what it is given."""
    folder = tmp_path / "caught"
    with catching(folder) as url:
        monkeypatch.setenv("SMT_SMTP_URL", url)
        yield folder


def files_of(folder: Path) -> list[Path]:
    """The mails in a folder of caught ones."""
    return sorted(folder.glob("*.eml"))
