"""Fixtures for the command line: calls in a separate folder, saved events, and a data folder that has imported them."""

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
from tests.support.vendor import ENVIRONMENT

__all__ = ["NOW", "Answer", "SavedEvents", "Smt", "caught", "files_of", "smt"]

NOW = datetime.now(UTC)  # noqa: DTZ005, TID251 - commands use the machine's clock, and old events queue no mail


@dataclass(frozen=True, slots=True)
class SavedEvents:
    """A subscription that began two days ago, paid, and was partly refunded. The folder contains its events as files."""

    folder: Path
    subscription: SimulatedSubscription

    @property
    def sale(self) -> str:
        return next(iter(self.subscription.sales))


@pytest.fixture(scope="session")
def saved_events(tmp_path_factory: pytest.TempPathFactory) -> SavedEvents:
    subscription = SimulatedSubscription(PEOPLE[0], CLOUD, NOW - timedelta(days=2), Random(4))
    subscription.start()
    subscription.refund(next(iter(subscription.sales.values())), NOW - timedelta(hours=1), 900)
    folder = tmp_path_factory.mktemp("events")
    for number, delivery in enumerate(subscription.deliveries):
        (folder / f"{number}.json").write_bytes(delivery.body)
    return SavedEvents(folder, subscription)


@pytest.fixture(scope="session")
def imported_folder(saved_events: SavedEvents, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder in which the saved events are imported and handled. Created once, copied for each test."""
    folder = tmp_path_factory.mktemp("imported") / "var"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (ENVIRONMENT | {"SMT_DATA_DIR": str(folder)}).items():
            patch.setenv(name, value)
        patch.chdir(folder.parent)
        patch.setattr(logging, "set_up", lambda _level: None)
        for words in (("db", "upgrade"), ("events", "import", saved_events.folder), ("run", "--until-idle")):
            assert run(*words) == 0
    return folder


@pytest.fixture
def imported(smt: Smt, saved_events: SavedEvents, imported_folder: Path, data_dir: Path) -> SavedEvents:
    """SMT_DATA_DIR with the imported and handled events. Without a relay, their mails are queued."""
    shutil.copytree(imported_folder, data_dir, dirs_exist_ok=True)
    return saved_events
