"""The web role alone on the embedded column, for measuring the door: `python -m benchmarks.web_only door`.

The program refuses this, because a queue inside one process is of no use without a worker in it. Here nothing is to be
handled meanwhile.
"""

import sys

from handlers import HANDLERS
from pipeline.app import logging, roles
from pipeline.app.container import Container
from pipeline.app.shutdown import StopSignal
from pipeline.db import migrations
from pipeline.settings import load


def door() -> None:
    """Serve webhooks until told to stop."""
    logging.set_up(logging.INFO)
    roles.tune_gc()
    stop, parts = StopSignal(), Container(load(), HANDLERS)
    stop.install()
    migrations.upgrade(parts.database)
    roles.run_web(parts, stop)


if __name__ == "__main__":
    {"door": door}[sys.argv[1]]()
