"""What a run found, as one table and as JSON."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import machine
from benchmarks.rows import Figure, Row


@dataclass(slots=True)
class Found:
    """The rows of a run, and the machine they were measured on. `began` is ISO 8601 in UTC.

    `failed` names what could not be measured, and why; `took` how many seconds each part took.
    """

    rounds: int
    quick: bool
    began: str
    machine: dict[str, str | int]
    fsyncs: float
    verifications: float
    rows: list[Row] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    took: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of_machine(cls, folder: Path, rounds: int, quick: bool) -> "Found":
        """Nothing measured yet but the machine."""
        began = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return cls(rounds, quick, began, machine.describe(), machine.fsyncs(folder), machine.verifications())

    def add(self, part: str, measure: Callable[[], list[Row]]) -> None:
        """Measure one part. What was measured before stays when it fails."""
        start = time.monotonic()
        try:
            self.rows += measure()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told, and the other parts are measured
            self.failed[part] = str(error) or type(error).__name__
        self.took[part] = time.monotonic() - start

    @property
    def exit_code(self) -> int:
        """0: every target is met; 1: one is missed; 2: something could not be measured."""
        if self.failed:
            return 2
        return 0 if all(row.met for row in self.rows) else 1

    def as_json(self) -> dict[str, Any]:
        return {
            "rows": [row.as_json() for row in self.rows],
            "failed": self.failed,
            "rounds": self.rounds,
            "quick": self.quick,
            "began": self.began,
            "seconds": round(sum(self.took.values())),
            "seconds_of_each": {part: round(seconds) for part, seconds in self.took.items()},
            "machine": self.machine,
            "fsyncs_per_second": round(self.fsyncs),
            "rsa_2048_verifications_per_second": round(self.verifications),
        }


def show(found: Found) -> None:
    """Print the table. Figures are medians with the lowest and highest round."""
    table = Table(title=f"{'quick, ' if found.quick else ''}{found.rounds} rounds in turns: median [lowest-highest]")
    table.add_column("row", overflow="fold")
    for name in ("ours", "peer_name", "ratio", "target"):
        table.add_column(name, justify="right", no_wrap=name != "peer_name")
    table.add_column("met")
    for row in found.rows:
        for cells in _cells(row):
            table.add_row(*cells)
    console = Console()
    console.print(table)
    console.print(
        f"this disk: {found.fsyncs:,.0f} fdatasync/s; one core: {found.verifications:,.0f} RSA-2048 verifications/s; "
        + ", ".join(f"{name} {value}" for name, value in found.machine.items()),
        highlight=False,
    )
    for part, reason in found.failed.items():
        console.print(f"could not be measured: {part}: {reason}", style="red", markup=False, highlight=False)


def _cells(row: Row) -> list[tuple[str, ...]]:
    target = f">= {row.target:.2f}" + (f" (stretch {row.stretch:g})" if row.stretch else "")
    first = (
        f"{row.name}, {row.unit}",
        _figure(row.ours),
        f"{_figure(row.peer)} {row.peer_name}",
        f"{row.ratio:.2f}",
        target,
        _yes(row.ratio >= row.target),
    )
    if row.limit is None:
        return [first]
    limit = row.limit
    return [
        first,
        (f"    {limit.name}", _figure(limit.ours), _figure(limit.peer), "", f"<= {limit.most:g}", _yes(limit.met)),
    ]


def _figure(figure: Figure) -> str:
    return str(figure).replace("[", "\\[")


def _yes(met: bool) -> str:
    return "[green]yes[/]" if met else "[red]no[/]"
