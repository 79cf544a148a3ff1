"""Do all the work that is due now, in this thread, and return when nothing is left: for `run --until-idle` and the demo."""

import asyncio
from collections.abc import Callable

from pipeline.app import jobs
from pipeline.app.container import Container
from pipeline.db import migrations
from pipeline.inbox import lookup_fetcher
from pipeline.inbox import store as inbox
from pipeline.scheduler.scheduler import Scheduler
from pipeline.worker.worker import Worker, consume_once

DRAIN_SECONDS = 0.2  # how long to wait for a message of the broker


def run_until_idle(container: Container, on_round: Callable[[int], None] = lambda _: None) -> None:
    """Work in rounds until nothing is due. `on_round` is called with the amount of work of each. Raises StoreDown."""
    migrations.upgrade(container.database)
    asyncio.run(_until_idle(container, on_round))


async def _until_idle(container: Container, on_round: Callable[[int], None]) -> None:
    events, scheduler = container.worker(), jobs.build_scheduler(container)
    post = container.mailer() if container.settings.smtp_url else None
    try:
        while done := _round(container, events, scheduler) + (await post.send_due() if post else 0):
            on_round(done)
    finally:
        if post is not None:
            await post.close()


def _round(container: Container, events: Worker, scheduler: Scheduler) -> int:
    drained = 0 if container.broker.exclusive else _drain(container, events)
    return drained + work_once(container, events, scheduler)


def work_once(container: Container, events: Worker, scheduler: Scheduler) -> int:
    """Handle due events, ask PayPal the due questions, run all jobs. Return how much there was to do; mail is left out."""
    with container.database.transaction() as session:
        ids = inbox.lease_due(session, container.clock.now())
    events.handle(ids)
    asked = (
        lookup_fetcher.fetch_due(container.database, container.master_key, container.clock, container.paypal)
        if container.settings.has_paypal_credentials
        else []
    )
    return len(ids) + len(asked) + scheduler.run_all()


def _drain(container: Container, events: Worker) -> int:
    """Handle the events whose ids wait in the broker."""
    with container.broker.consumer("events") as inlet:
        return consume_once(events, inlet, DRAIN_SECONDS)
