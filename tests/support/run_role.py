"""One role as a process of its own, for tests that kill it: `python -m tests.support.run_role worker`, with SMT_… set.

Beside our own handlers it knows events that tests make up, whose effect shows when it happens twice.
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

ROOT = Path(__file__).parents[2]
COUNTED = "TEST.COUNTED"


def count(event: Event, uow: UnitOfWork) -> None:
    """Each time it is handled leaves a row: nothing here is idempotent but the inbox."""
    time.sleep(0.002)
    told = {"old_status": None, "new_status": "ACTIVE", "reason": event.type, "event_id": event.id}
    uow.add_status_change(subscription_id="I-COUNTED", at=uow.now, **told)


EVERY_HANDLER: Mapping[str, Handler] = {**HANDLERS, COUNTED: count}


def start(role: str, folder: Path, **settings: str | int | Path) -> ManagedProcess:
    """Start a role; it ends with the test. Its output is in `folder`."""
    environment = {f"SMT_{name.upper()}": str(value) for name, value in settings.items()}
    environment |= {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    return ManagedProcess([sys.executable, "-m", "tests.support.run_role", role], folder, environment=environment)


def main(role: str) -> None:
    parts = Container(load(_env_file=None), EVERY_HANDLER)
    if trusted := os.environ.get("SMT_TEST_CERTIFICATE"):
        url, pem = trusted.split(" ", 1)
        parts.certificates.add(url, Path(pem).read_bytes())
    stop = StopSignal()
    stop.install()
    getattr(roles, f"run_{role}")(parts, stop)


if __name__ == "__main__":
    main(sys.argv[1])
