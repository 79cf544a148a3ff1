"""The web role alone in embedded mode, to measure webhook ingest: `python -m benchmarks.web_only`.

The program itself refuses this, because a queue inside one process needs a worker in the same process. In this
measurement no event is handled.
"""

from handlers import HANDLERS
from pipeline.app import logging, roles
from pipeline.app.container import Container
from pipeline.app.shutdown import StopSignal
from pipeline.db import migrations
from pipeline.settings import load


def run() -> None:
    """Serve webhooks until SIGTERM."""
    logging.set_up(logging.INFO)
    roles.tune_gc()
    stop, container = StopSignal(), Container(load(), HANDLERS)
    stop.install()
    migrations.upgrade(container.database)
    roles.run_web(container, stop)


if __name__ == "__main__":
    run()
