"""What every row is given: how long and how often to measure, the folders, the servers, the peers."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from benchmarks import load, peer
from benchmarks.load import Load
from benchmarks.servers import Servers

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Care:
    """How much of everything. A quick run takes fewer rounds and smaller loads; what it says is the same."""

    rounds: int
    post_seconds: int  # how long wrk posts
    posted: int  # events prepared for that: more than anybody answers in the time
    handled: int  # events that our worker handles in a round
    handled_by_peer: int
    mailed: int
    mailed_by_peer: int
    end_to_end: int
    end_to_end_by_peer: int
    built: int
    grown: tuple[int, ...]  # subscriptions
    repeats: int  # of each step of `growth`


FULL = Care(
    rounds=5,
    post_seconds=4,
    posted=60_000,
    handled=20_000,
    handled_by_peer=4_000,
    mailed=4_000,
    mailed_by_peer=1_500,
    end_to_end=4_000,
    end_to_end_by_peer=1_500,
    built=3_000,
    grown=(10_000, 100_000),
    repeats=15,
)
QUICK = Care(
    rounds=3,
    post_seconds=1,
    posted=16_000,
    handled=6_000,
    handled_by_peer=600,
    mailed=1_000,
    mailed_by_peer=300,
    end_to_end=800,
    end_to_end_by_peer=200,
    built=400,
    grown=(2_000, 20_000),
    repeats=5,
)


@dataclass(slots=True)
class Bench:
    """One run of the benchmarks."""

    care: Care
    folder: Path  # gone afterwards
    cache: Path  # kept: the peers' environment, signed loads
    servers: Servers
    step: Callable[[str], None]  # told what is going on now
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)
    _bins: Path | None = None

    @property
    def bins(self) -> Path:
        """The peers' environment."""
        if self._bins is None:
            self._bins = peer.environment(self.cache, self.step)
        return self._bins

    def load(self, kind: str, events: int) -> Load:
        self.step(f"preparing {events} signed events")
        return load.prepare(self.cache / "load", kind, events)

    def new_folder(self) -> Path:
        """A folder that does not exist yet, for one side of one round."""
        return self.folder / f"{next(self._numbers)}"

    def rounds(self, sides: Mapping[str, Callable[[], T]]) -> dict[str, list[T]]:
        """Measure the sides in turns: one after the other, then all again. What each round said, by side."""
        taken: dict[str, list[T]] = {name: [] for name in sides}
        for number in range(self.care.rounds):
            for name, measure in sides.items():
                self.step(f"{name}, round {number + 1} of {self.care.rounds}")
                taken[name].append(measure())
        return taken
