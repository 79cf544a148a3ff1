"""Process everything due in this thread, then return. `run --until-idle` and the demo use it."""

import asyncio
from collections.abc import Callable

from pipeline.app import jobs
from pipeline.app.container import Container
from pipeline.db import migrations
from pipeline.inbox import lookup_fetcher
from pipeline.inbox import store as inbox
from pipeline.scheduler.scheduler import Scheduler
from pipeline.worker.worker import Worker, consume_once

DRAIN_SECONDS = 0.2  # how long to wait for a broker message


def run_until_idle(container: Container, on_round: Callable[[int], None] = lambda _: None) -> None:
    """Work in rounds until nothing is due. Calls `on_round` with the number of items of each round.

    Raises DatabaseUnavailableError.
    """
    migrations.upgrade(container.database)
    asyncio.run(_until_idle(container, on_round))


async def _until_idle(container: Container, on_round: Callable[[int], None]) -> None:
    worker, scheduler = container.worker(), jobs.build_scheduler(container)
    mailer = container.mailer() if container.settings.smtp_url else None
    try:
        while done := _round(container, worker, scheduler) + (await mailer.send_due() if mailer else 0):
            on_round(done)
    finally:
        if mailer is not None:
            await mailer.close()


def _round(container: Container, worker: Worker, scheduler: Scheduler) -> int:
    drained = 0 if container.broker.exclusive else _drain(container, worker)
    return drained + work_once(container, worker, scheduler)


def work_once(container: Container, worker: Worker, scheduler: Scheduler) -> int:
    """Process due events, run due look-ups and all jobs, but send no mail. Return the number of items processed."""
    with container.database.transaction() as session:
        ids = inbox.lease_due(session, container.clock.now())
    worker.handle(ids)
    looked_up = (
        lookup_fetcher.fetch_due(container.database, container.master_key, container.clock, container.paypal)
        if container.settings.has_paypal_credentials
        else []
    )
    return len(ids) + len(looked_up) + scheduler.run_all()


def _drain(container: Container, worker: Worker) -> int:
    """Process the events whose ids are in the broker's queue."""
    with container.broker.consumer("events") as consumer:
        return consume_once(worker, consumer, DRAIN_SECONDS)
