"""`make soak`: run random scenarios seed by seed. A seed that fails is printed and fails the same way when run alone."""

import argparse
import sys
from pathlib import Path

# When this file is run as a script, sys.path[0] is its folder. Replace it by the root, so that `tests` can be imported.
sys.path[0] = str(Path(__file__).resolve().parents[2])

import structlog  # noqa: E402
from hypothesis import HealthCheck, Phase, seed, settings  # noqa: E402
from hypothesis.stateful import run_state_machine_as_test  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: E402

from tests.soak.state_machine import ScenarioMachine  # noqa: E402

COLUMNS = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())


def main() -> int:
    options = _arguments().parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))  # Errors are expected here.
    numbers = [options.seed] if options.seed is not None else range(options.first, options.first + options.seeds)
    with Progress(*COLUMNS, console=Console(stderr=True)) as progress:
        for number in progress.track(numbers, description="seeds"):
            failure = run_seed(number, options.lives, options.steps, shrink=options.seed is not None)
            if failure is not None:
                progress.stop()
                sys.excepthook(type(failure), failure, failure.__traceback__)
                message = f"\nseed {number} violates an invariant. To reproduce it: make soak SEED={number}"
                print(message, file=sys.stderr)  # noqa: T201
                return 1
    print(f"{len(numbers)} seeds, {options.lives} scenarios of up to {options.steps} steps each: no invariant violated")  # noqa: T201
    return 0


def run_seed(number: int, scenarios: int, steps: int, *, shrink: bool) -> Exception | None:
    """Run the scenarios of one seed and return the failure, if any. `shrink` searches for the shortest one, for minutes."""
    hypothesis_settings = settings(
        max_examples=scenarios,
        stateful_step_count=steps,
        phases=[Phase.generate, *([Phase.shrink] if shrink else [])],
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    try:
        run_state_machine_as_test(seed(number)(ScenarioMachine), settings=hypothesis_settings)
    except Exception as error:  # noqa: BLE001 - reported with its seed
        return error
    return None


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10, help="number of seeds")
    parser.add_argument("--first", type=int, default=1, help="first seed")
    parser.add_argument("--seed", type=int, help="run only this seed and search its shortest failing scenario")
    parser.add_argument("--lives", type=int, default=20, help="scenarios of each seed")
    parser.add_argument("--steps", type=int, default=60, help="maximum steps of each scenario")
    return parser


if __name__ == "__main__":
    sys.exit(main())
