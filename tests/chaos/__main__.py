"""`make chaos`: the river under fire, with real servers and processes, and whether it lost or doubled anything."""

import argparse
import signal
import sys
import time
from pathlib import Path

# Run as a file, Python looks for modules beside it, where `run` and `load` are not those of anybody else.
sys.path[0] = str(Path(__file__).resolve().parents[2])

from rich.console import Console  # noqa: E402
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: E402

from tests.chaos import report  # noqa: E402
from tests.chaos.environment import Column, libfaketime  # noqa: E402
from tests.chaos.parallel_seeds import Task, play  # noqa: E402
from tests.chaos.run import Fire, Result  # noqa: E402
from tests.support.servers import Missing  # noqa: E402


def main() -> int:
    asked = _arguments().parse_args()
    if asked.write_docs:
        report.write_docs(asked.write_docs)
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that all is put away
    columns: list[Column] = ["right", "embedded"] if asked.column == "both" else [asked.column]
    numbers = [asked.seed] if asked.seed is not None else range(asked.first, asked.first + asked.seeds)
    tasks: list[Task] = [(column, number) for number in numbers for column in columns]
    fire, began = Fire(asked.events, patient=asked.patient), time.monotonic()
    console = Console(width=None if sys.stdout.isatty() else 140)
    try:
        results = _play(tasks, fire, asked, console)
    except Missing as reason:
        console.print(reason, style="red")
        return 2
    if asked.json:
        report.write_json(asked.json, results, fire, time.monotonic() - began)
    console.print(report.table(results))
    for line in report.summary(results):
        console.print(line, highlight=False)
    return int(any(result.violations for result in results))


def _play(tasks: list[Task], fire: Fire, asked: argparse.Namespace, console: Console) -> list[Result]:
    """All seeds, each told of as it ends."""
    if libfaketime() is None:
        console.print("libfaketime is not installed (apt-get install libfaketime): no clock is moved", style="yellow")
    results: list[Result] = []
    bars = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*bars, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("chaos", total=len(tasks))
        for result in play(tasks, fire, min(asked.jobs, len(tasks)), asked.keep):
            results.append(result)
            progress.advance(bar)
            for line in report.lines(result):
                console.print(f"{len(results)}/{len(tasks)} {line}", highlight=False, markup=False, soft_wrap=True)
            if asked.json:  # a run that is broken off has kept what it saw
                report.write_json(asked.json, results, fire, 0)
    return results


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--column", choices=("right", "embedded", "both"), default="both", help="which column is struck"
    )
    parser.add_argument("--seeds", type=int, default=5, help="how many seeds on each column")
    parser.add_argument("--first", type=int, default=1, help="the first of them")
    parser.add_argument("--seed", type=int, help="only this one, again")
    parser.add_argument("--events", type=int, default=450, help="deliveries of each seed, repeats among them")
    parser.add_argument("--jobs", type=int, default=1, help="how many seeds at once, each on servers of its own")
    parser.add_argument("--patient", action="store_true", help="wait out every pause instead of bringing it forward")
    parser.add_argument("--keep", type=Path, help="a folder for the logs of seeds that violate something")
    parser.add_argument("--json", type=Path, help="a file for the figures, written anew after each seed")
    parser.add_argument("--write-docs", type=Path, help="put the figures of that file into docs/reliability.md")
    return parser


if __name__ == "__main__":
    sys.exit(main())
