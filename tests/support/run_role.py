"""Run one role as a separate process, for tests that kill it: `python -m tests.support.run_role worker`, with SMT_… set.

In addition to the product's handlers it has one for TEST.COUNTED, whose effect is visible when it happens twice.
"""

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from handlers import HANDLERS
from pipeline.app import roles
from pipeline.app.container import Container
from pipeline.app.shutdown import StopSignal
from pipeline.billing.unit_of_work import Handler, UnitOfWork
from pipeline.inbox.event import Event
from pipeline.settings import load
from tests.support.subprocesses import ManagedProcess
from tests.support.vendor import ENVIRONMENT

ROOT = Path(__file__).parents[2]
COUNTED = "TEST.COUNTED"


def count(event: Event, uow: UnitOfWork) -> None:
    """Insert one row per call. The handler is not idempotent, so only the inbox prevents a second row."""
    time.sleep(0.002)
    change = {"old_status": None, "new_status": "ACTIVE", "reason": event.type, "event_id": event.id}
    uow.add_status_change(subscription_id="I-COUNTED", at=uow.now, **change)


EVERY_HANDLER: Mapping[str, Handler] = {**HANDLERS, COUNTED: count}


def start(role: str, folder: Path, **settings: str | int | Path) -> ManagedProcess:
    """Start a role that ends with the test. Its output is in `folder`."""
    environment = ENVIRONMENT | {f"SMT_{name.upper()}": str(value) for name, value in settings.items()}
    environment |= {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    return ManagedProcess([sys.executable, "-m", "tests.support.run_role", role], folder, environment=environment)


def main(role: str) -> None:
    container = Container(load(_env_file=None), EVERY_HANDLER)
    if trusted := os.environ.get("SMT_TEST_CERTIFICATE"):
        url, pem = trusted.split(" ", 1)
        container.certificates.add(url, Path(pem).read_bytes())
    stop = StopSignal()
    stop.install()
    getattr(roles, f"run_{role}")(container, stop)


if __name__ == "__main__":
    main(sys.argv[1])
