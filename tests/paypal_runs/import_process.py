"""`smt-billing paypal import` as a process of its own, without the rate limit that spares PayPal: for runs that kill it."""

import os
import sys
from pathlib import Path

from pipeline import __main__ as program
from pipeline.app.container import Container
from pipeline.clock import SystemClock
from pipeline.paypal.rate_limit import TokenBucket
from tests.support.subprocesses import ManagedProcess, run
from tests.support.vendor import ENVIRONMENT

ROOT = Path(__file__).parents[2]
PER_SECOND = "TEST_IMPORT_PER_SECOND"


def create_tables(data_dir: Path) -> None:
    """Create the database in this data folder."""
    environment = ENVIRONMENT | {"SMT_DATA_DIR": str(data_dir), "PYTHONPATH": str(ROOT)}
    run([sys.executable, "-m", "pipeline", "db", "upgrade"], data_dir, environment=environment)


def start(folder: Path, data_dir: Path, paypal: str, per_second: float) -> ManagedProcess:
    """Start an import into this data folder. Its output is in `folder`."""
    settings = {"data_dir": data_dir, "paypal_base_url": paypal}
    settings |= {"paypal_client_id": "simulator", "paypal_client_secret": "simulator-secret"}
    environment = ENVIRONMENT | {f"SMT_{name.upper()}": str(value) for name, value in settings.items()}
    environment |= {"PYTHONPATH": str(ROOT), PER_SECOND: str(per_second)}
    return ManagedProcess([sys.executable, "-m", "tests.paypal_runs.import_process"], folder, environment=environment)


def main() -> None:
    bucket = TokenBucket(SystemClock(), float(os.environ[PER_SECOND]))
    Container.paypal_rate = bucket  # type: ignore[assignment,method-assign]
    program.main(["paypal", "import", "--json"])


if __name__ == "__main__":
    main()
