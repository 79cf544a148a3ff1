"""`make chaos`: the river under fire, with real servers and processes, and whether it lost or doubled anything."""

import argparse
import signal
import sys
from pathlib import Path

# Run as a file, Python looks for modules beside it, where `run` and `load` are not those of anybody else.
sys.path[0] = str(Path(__file__).resolve().parents[2])

from tests.chaos.run import Fire, run  # noqa: E402
from tests.chaos.stage import Column  # noqa: E402
from tests.services import Missing  # noqa: E402


def main() -> int:
    asked = _arguments().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that all is put away
    columns: list[Column] = ["right", "embedded"] if asked.column == "both" else [asked.column]
    numbers = [asked.seed] if asked.seed is not None else range(asked.first, asked.first + asked.seeds)
    try:
        return run(columns, numbers, Fire(asked.events, patient=asked.patient), json=asked.json, keep=asked.keep)
    except Missing as reason:
        print(reason, file=sys.stderr)  # noqa: T201 - a program
        return 2


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--column", choices=("right", "embedded", "both"), default="both", help="which column is struck"
    )
    parser.add_argument("--seeds", type=int, default=5, help="how many seeds on each column")
    parser.add_argument("--first", type=int, default=1, help="the first of them")
    parser.add_argument("--seed", type=int, help="only this one, again")
    parser.add_argument("--events", type=int, default=450, help="deliveries of each seed, repeats among them")
    parser.add_argument("--patient", action="store_true", help="wait out every pause instead of bringing it forward")
    parser.add_argument("--keep", type=Path, help="a folder for the logs of seeds that violate something")
    parser.add_argument("--json", action="store_true", help="the figures as JSON on stdout")
    return parser


if __name__ == "__main__":
    sys.exit(main())
