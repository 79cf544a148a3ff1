"""`make soak`: the lives, seed after seed. A seed that fails is told, and fails again the same way when run alone."""

import argparse
import sys
from pathlib import Path

# Run as a file, Python looks for modules beside it, where `process` and `storm` are not those of anybody else.
sys.path[0] = str(Path(__file__).resolve().parents[2])

import structlog  # noqa: E402
from hypothesis import HealthCheck, Phase, seed, settings  # noqa: E402
from hypothesis.stateful import run_state_machine_as_test  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: E402

from tests.soak.state_machine import ScenarioMachine  # noqa: E402

COLUMNS = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())


def main() -> int:
    asked = _arguments().parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))  # what goes wrong is wanted here
    numbers = [asked.seed] if asked.seed is not None else range(asked.first, asked.first + asked.seeds)
    with Progress(*COLUMNS, console=Console(stderr=True)) as progress:
        for number in progress.track(numbers, description="seeds"):
            failure = live(number, asked.lives, asked.steps, shrink=asked.seed is not None)
            if failure is not None:
                progress.stop()
                sys.excepthook(type(failure), failure, failure.__traceback__)
                print(f"\nseed {number} breaks a promise, and does again: make soak SEED={number}", file=sys.stderr)  # noqa: T201
                return 1
    print(f"{len(numbers)} seeds, {asked.lives} lives of up to {asked.steps} steps each: no promise broken")  # noqa: T201
    return 0


def live(number: int, lives: int, steps: int, *, shrink: bool) -> Exception | None:
    """The lives of one seed; what broke, if anything. `shrink` looks for the shortest life that breaks, for minutes."""
    asked = settings(
        max_examples=lives,
        stateful_step_count=steps,
        phases=[Phase.generate, *([Phase.shrink] if shrink else [])],
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    try:
        run_state_machine_as_test(seed(number)(ScenarioMachine), settings=asked)
    except Exception as error:  # noqa: BLE001 - whatever it was, it is told with its seed
        return error
    return None


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10, help="how many seeds")
    parser.add_argument("--first", type=int, default=1, help="the first of them")
    parser.add_argument("--seed", type=int, help="only this one, and the shortest life in it that breaks")
    parser.add_argument("--lives", type=int, default=20, help="lives of each seed")
    parser.add_argument("--steps", type=int, default=60, help="steps of each life at most")
    return parser


if __name__ == "__main__":
    sys.exit(main())
