"""What a run found, as one table and as JSON."""

from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.rows import Figure, Row


@dataclass(frozen=True, slots=True)
class Found:
    """The rows of a run, and the machine they were measured on. `began` is ISO 8601 in UTC."""

    rows: list[Row]
    rounds: int
    quick: bool
    began: str
    seconds: float
    machine: dict[str, str | int]
    fsyncs: float
    verifications: float

    def as_json(self) -> dict[str, Any]:
        return {
            "rows": [row.as_json() for row in self.rows],
            "rounds": self.rounds,
            "quick": self.quick,
            "began": self.began,
            "seconds": round(self.seconds),
            "machine": self.machine,
            "fsyncs_per_second": round(self.fsyncs),
            "rsa_2048_verifications_per_second": round(self.verifications),
        }


def show(found: Found) -> None:
    """Print the table. Figures are medians with the lowest and highest round."""
    table = Table(title=f"{'quick, ' if found.quick else ''}{found.rounds} rounds in turns: median [lowest-highest]")
    table.add_column("row", overflow="fold")
    for name in ("ours", "beside", "ratio", "target"):
        table.add_column(name, justify="right", no_wrap=name != "beside")
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


def _cells(row: Row) -> list[tuple[str, ...]]:
    target = f">= {row.target:.2f}" + (f" (stretch {row.stretch:g})" if row.stretch else "")
    first = (
        f"{row.name}, {row.unit}",
        _figure(row.ours),
        f"{_figure(row.peer)} {row.beside}",
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
    return f"{_number(figure.median)} \\[{_number(figure.low)}-{_number(figure.high)}]"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _yes(met: bool) -> str:
    return "[green]yes[/]" if met else "[red]no[/]"
