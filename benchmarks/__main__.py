"""`python -m benchmarks`: measure ourselves beside the peers, in turns, and show one table.

Needs wrk, Postfix, PostgreSQL and RabbitMQ installed (not running), and root, because only root starts a Postfix. All
servers are private to the run and on loopback. The full table is also written to benchmarks/results.json, after each
part anew, and from there into docs/performance.md and docs/performance.svg. A part that cannot be measured is named, and
the others go on. Ends with 0 when every target is met, 1 when one is missed, 2 when something could not be measured.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import structlog
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import (
    end_to_end,
    event_handling,
    machine,
    mail_delivery,
    memory,
    receipt,
    report,
    scaling,
    webhook_ingest,
)
from benchmarks.context import FULL, QUICK, Bench
from benchmarks.rows import Row
from benchmarks.servers import Servers
from benchmarks.table import Found, show

ROOT = Path(__file__).parents[1]

# Names for `--only` and what each measures. Webhook ingest comes first: it is the part that PayPal sees.
PARTS: dict[str, Callable[[Bench], list[Row]]] = {
    "ingest": webhook_ingest.measure,
    "handling": event_handling.measure,
    "mail": mail_delivery.into_postfix,
    "sink": mail_delivery.into_sink,
    "end-to-end": end_to_end.measure,
    "receipt": receipt.measure,
    "memory": memory.measure,
    "scaling": scaling.measure,
}


def main() -> int:
    """Measure what is asked for. The exit code."""
    asked = _asked()
    if asked.write_docs:
        report.write_docs(ROOT)
        return 0
    if lacking := machine.missing():
        print(f"missing here: apt-get install {' '.join(lacking)}", file=sys.stderr)
        return 2
    if os.geteuid():
        print("run it as root: only root starts a Postfix", file=sys.stderr)
        return 2
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    found = _measure(asked)
    if not asked.only:
        report.write_docs(ROOT)
    if asked.json:
        print(json.dumps(found.as_json(), ensure_ascii=False))
    else:
        show(found)
    return found.exit_code


def _measure(asked: argparse.Namespace) -> Found:
    care = QUICK if asked.quick else FULL
    with tempfile.TemporaryDirectory(prefix="smt-bench-") as name, _progress(len(asked.parts)) as (step, part_done):
        folder = Path(name)
        folder.chmod(0o711)  # the servers run as users of their own
        step("looking what this machine can do")
        found = Found.of_machine(folder, care.rounds, asked.quick)
        keep = partial(report.keep, ROOT, found) if not asked.only else partial(int)
        with Servers(folder) as servers:
            bench = Bench(care, folder, asked.cache, servers, step)
            for part, measure in asked.parts.items():
                found.add(part, lambda measure=measure: measure(bench))
                keep()
                part_done()
    return found


@contextmanager
def _progress(parts: int) -> Iterator[tuple[Callable[[str], None], Callable[[], None]]]:
    """How far it is, on stderr: a function to say what is going on, and one to say that a part is done."""
    columns = (
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("starting", total=parts)

        def step(text: str) -> None:
            progress.update(task, description=text)
            if not console.is_terminal:
                print(text, file=sys.stderr, flush=True)

        yield step, partial(progress.advance, task)


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds: under five minutes")
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="ROW", help=f"some of: {', '.join(PARTS)}")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--write-docs", action="store_true", help="measure nothing: the last results into docs/")
    parser.add_argument("--cache", type=Path, default=ROOT / "var" / "bench", help="what is kept for the next run")
    asked = parser.parse_args()
    asked.parts = {name: measure for name, measure in PARTS.items() if name in (asked.only or PARTS)}
    asked.cache = asked.cache.resolve()
    return asked


if __name__ == "__main__":
    sys.exit(main())
