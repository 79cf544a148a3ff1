"""`make paypal-runs`: months of a vendor with lost webhooks, and an import that is killed, against the simulated PayPal."""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

# When this file is run as a script, sys.path[0] is its folder. Replace it by the root, so that `tests` can be imported.
sys.path[0] = str(Path(__file__).resolve().parents[2])

import structlog  # noqa: E402

from pipeline.clock import MovableClock  # noqa: E402
from tests.paypal_runs import killed_import, lost_events  # noqa: E402
from tests.support.pipeline_under_test import PipelineUnderTest  # noqa: E402


def main() -> int:
    options = _arguments().parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))  # lost events are expected here
    with tempfile.TemporaryDirectory(prefix="paypal-runs-") as folder:
        report, is_right = options.run(options, Path(folder))
    text = json.dumps(report, indent=1, ensure_ascii=False)
    if options.json:
        options.json.write_text(text + "\n", "utf-8")
    print(text)  # noqa: T201
    return 0 if is_right else 1


def _lost_events(options: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], bool]:
    plan = lost_events.Plan(
        options.customers, options.months, options.lost, options.unlisted, timedelta(hours=options.step_hours),
        http_lookups=options.http_lookups, seed=options.seed,
    )  # fmt: skip
    pipeline = PipelineUnderTest(f"sqlite:///{folder / 'run.db'}", folder, MovableClock(lost_events.START))
    run = lost_events.LostEventsRun(pipeline, plan, _progress(plan.months * 365 // 12))
    report = run.run()
    pipeline.database.close()
    return report, lost_events.is_right(report)


def _killed_import(options: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], bool]:
    plan = killed_import.Plan(options.subscriptions, options.kills, options.seed)
    say = lambda line: print(line, file=sys.stderr, flush=True)  # noqa: T201,E731 - progress
    report = killed_import.KilledImport(plan, say).run(folder, unkilled=options.unkilled)
    return report, killed_import.is_right(report)


def _progress(total: int) -> Callable[[int], None]:
    """Return a function that prints every tenth day to standard error."""
    began = time.monotonic()

    def show(day: int) -> None:
        if day % 10 == 0:
            print(f"day {day} of {total}, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)  # noqa: T201

    return show


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="also write the report to this file")
    runs = parser.add_subparsers(required=True)
    lost = runs.add_parser("lost-events", help="webhooks get lost; a daily reconciliation finds them")
    lost.add_argument("--customers", type=int, default=44)
    lost.add_argument("--months", type=int, default=13)
    lost.add_argument("--lost", type=float, default=0.08, help="share of the webhooks that never arrive")
    lost.add_argument("--unlisted", type=float, default=0.0, help="share of these that PayPal does not list either")
    lost.add_argument("--step-hours", type=float, default=1.0, help="simulated time between two deliveries")
    lost.add_argument("--http-lookups", action=argparse.BooleanOptionalAction, default=True)
    lost.set_defaults(run=_lost_events)
    killed = runs.add_parser("killed-import", help="an import of all subscriptions is killed and started again")
    killed.add_argument("--subscriptions", type=int, default=5000)
    killed.add_argument("--kills", type=int, default=20)
    killed.add_argument(
        "--unkilled", action=argparse.BooleanOptionalAction, default=True, help="import without kills first"
    )
    killed.set_defaults(run=_killed_import)
    return parser


if __name__ == "__main__":
    sys.exit(main())
