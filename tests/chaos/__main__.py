"""`make chaos`: inject faults into real servers and processes, and check that nothing is lost or duplicated."""

import argparse
import signal
import sys
import time
from pathlib import Path

# When this file is run as a script, sys.path[0] is its folder. Replace it by the root, so that `tests` can be imported.
sys.path[0] = str(Path(__file__).resolve().parents[2])

from rich.console import Console  # noqa: E402
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: E402

from tests.chaos import report  # noqa: E402
from tests.chaos.environment import Column, libfaketime  # noqa: E402
from tests.chaos.parallel_seeds import Task, play  # noqa: E402
from tests.chaos.run import Fire, Result  # noqa: E402
from tests.support.servers import Missing  # noqa: E402


def main() -> int:
    options = _arguments().parse_args()
    if options.write_docs:
        report.write_docs(options.write_docs)
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # So that the context managers clean up.
    columns: list[Column] = ["right", "embedded"] if options.column == "both" else [options.column]
    numbers = [options.seed] if options.seed is not None else range(options.first, options.first + options.seeds)
    tasks: list[Task] = [(column, number) for number in numbers for column in columns]
    fire, began = Fire(options.events, patient=options.patient), time.monotonic()
    console = Console(width=None if sys.stdout.isatty() else 140)
    try:
        results = _play(tasks, fire, options, console)
    except Missing as reason:
        console.print(reason, style="red")
        return 2
    if options.json:
        report.write_json(options.json, results, fire, time.monotonic() - began)
    console.print(report.table(results))
    for line in report.summary(results):
        console.print(line, highlight=False)
    return int(any(result.violations for result in results))


def _play(tasks: list[Task], fire: Fire, options: argparse.Namespace, console: Console) -> list[Result]:
    """Run all seeds and print each result when it is ready."""
    if libfaketime() is None:
        console.print(
            "libfaketime is not installed (apt-get install libfaketime): the clock faults are replaced by kills",
            style="yellow",
        )
    results: list[Result] = []
    bars = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*bars, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("chaos", total=len(tasks))
        for result in play(tasks, fire, min(options.jobs, len(tasks)), options.keep):
            results.append(result)
            progress.advance(bar)
            for line in report.lines(result):
                console.print(f"{len(results)}/{len(tasks)} {line}", highlight=False, markup=False, soft_wrap=True)
            if options.json:  # Keep the results even if the run is interrupted.
                report.write_json(options.json, results, fire, 0)
    return results


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--column", choices=("right", "embedded", "both"), default="both", help="column to test")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds for each column")
    parser.add_argument("--first", type=int, default=1, help="first seed")
    parser.add_argument("--seed", type=int, help="run only this seed")
    parser.add_argument("--events", type=int, default=450, help="deliveries of each seed, including repetitions")
    parser.add_argument(
        "--jobs", type=int, default=1, help="number of seeds that run in parallel, each with its own servers"
    )
    parser.add_argument(
        "--patient", action="store_true", help="wait for every retry and lease instead of shortening it"
    )
    parser.add_argument("--keep", type=Path, help="folder for the logs of seeds with violations")
    parser.add_argument("--json", type=Path, help="file for the figures, rewritten after each seed")
    parser.add_argument("--write-docs", type=Path, help="copy the figures of this file into docs/reliability.md")
    return parser


if __name__ == "__main__":
    sys.exit(main())
