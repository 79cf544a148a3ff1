"""Do all the work that is due now, in this thread, and return when nothing is left: for `run --until-idle` and the demo."""

import asyncio
from collections.abc import Callable

from pipeline.app import jobs
from pipeline.app.container import Container
from pipeline.db import migrations
from pipeline.inbox import lookup_fetcher
from pipeline.inbox import store as inbox
from pipeline.scheduler.scheduler import Scheduler
from pipeline.worker.worker import Worker, take

DRAIN_SECONDS = 0.2  # how long to wait for a message of the broker


def until_idle(parts: Container, on_round: Callable[[int], None] = lambda _: None) -> None:
    """Work in rounds until nothing is due. `on_round` is called with the amount of work of each. Raises StoreDown."""
    migrations.upgrade(parts.database)
    asyncio.run(_until_idle(parts, on_round))


async def _until_idle(parts: Container, on_round: Callable[[int], None]) -> None:
    events, scheduler = parts.worker(), jobs.scheduler(parts)
    post = parts.mailer() if parts.settings.smtp_url else None
    try:
        while done := _round(parts, events, scheduler) + (await post.send_due() if post else 0):
            on_round(done)
    finally:
        if post is not None:
            await post.close()


def _round(parts: Container, events: Worker, scheduler: Scheduler) -> int:
    drained = 0 if parts.broker.exclusive else _drain(parts, events)
    return drained + work_once(parts, events, scheduler)


def work_once(parts: Container, events: Worker, scheduler: Scheduler) -> int:
    """Handle due events, ask PayPal the due questions, run all jobs. Return how much there was to do; mail is left out."""
    with parts.database.transaction() as session:
        ids = inbox.lease_due(session, parts.clock.now())
    events.handle(ids)
    asked = (
        lookup_fetcher.fetch_due(parts.database, parts.master, parts.clock, parts.paypal)
        if parts.settings.has_paypal_credentials
        else []
    )
    return len(ids) + len(asked) + scheduler.run_all()


def _drain(parts: Container, events: Worker) -> int:
    """Handle the events whose ids wait in the broker."""
    with parts.broker.inlet("events") as inlet:
        return take(events, inlet, DRAIN_SECONDS)
