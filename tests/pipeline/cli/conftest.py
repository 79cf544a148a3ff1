"""Calls of the command line in a folder of its own, and books that some events have been through."""

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest

from pipeline.app import logging
from pipeline.simulator.people import PEOPLE
from pipeline.simulator.plans import CLOUD
from pipeline.simulator.subscription import SimulatedSubscription
from tests.support.command_line import Answer, Smt, caught, files_of, run, smt

__all__ = ["NOW", "Answer", "Smt", "Told", "caught", "files_of", "smt"]

NOW = datetime.now(UTC)  # noqa: DTZ005, TID251 - a command asks the machine's clock, so what is news depends on it


@dataclass(frozen=True, slots=True)
class Told:
    """A subscription that began two days ago, paid, and got a part of its money back; its events as files."""

    folder: Path
    life: SimulatedSubscription

    @property
    def sale(self) -> str:
        return next(iter(self.life.sales))


@pytest.fixture(scope="session")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    life = SimulatedSubscription(PEOPLE[0], CLOUD, NOW - timedelta(days=2), Random(4))
    life.start()
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
        patch.setattr(logging, "set_up", lambda _level: None)
        for words in (("db", "upgrade"), ("events", "import", told.folder), ("run", "--until-idle")):
            assert run(*words) == 0
    return folder


@pytest.fixture
def books(smt: Smt, told: Told, kept_books: Path, data_dir: Path) -> Told:
    """What was told, imported and handled; there was no relay, so the mails are owed."""
    shutil.copytree(kept_books, data_dir, dirs_exist_ok=True)
    return told
