"""Plays the months of a demo: the clock jumps to the next due event or job, and everything due is processed there."""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime, timedelta

from sqlalchemy import func, select

from pipeline.app import jobs
from pipeline.app.run_until_idle import work_once
from pipeline.app.shutdown import StopSignal
from pipeline.clock import SystemClock
from pipeline.db.models import Event, Mail, PaypalLookup, Subscription
from pipeline.demo.data_folder import DemoRun
from pipeline.demo.environment import DemoEnvironment
from pipeline.demo.simulated_paypal import open_signer, trust_certificate
from pipeline.simulator import scenarios
from pipeline.simulator.server.delivery import WebhookSender
from pipeline.simulator.timeline import Delivery
from pipeline.worker.worker import consume_once

Advance = Callable[[int], object]  # called with the number of additional finished items
Progress = Callable[[str, int], AbstractContextManager[Advance]]  # called with a name and the total number of items

LAST = timedelta(hours=1)  # the last event is this long before now, so that its follow-up work becomes due
ARRIVES_SECONDS = 1.0  # maximum wait for an id from the broker; after that, the inbox recovery finds the event
STEP = timedelta(seconds=1)
POLL_SECONDS = 0.25


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM stopped the playback."""


def play(environment: DemoEnvironment, run: DemoRun, progress: Progress) -> DemoRun:
    """Play the months until now and return the completed run. Its results are in the database. `progress` reports progress."""
    ends_at = SystemClock().now()
    deliveries = scenarios.vendor_months(run.seed, run.months, ends_at - LAST, run.subscribers)
    environment.clock.move_to(deliveries[0].at)
    signer = open_signer(environment.parts.settings, deliveries[0].at, ends_at)
    trust_certificate(environment.parts.settings, SystemClock(), signer)
    stop = StopSignal()
    stop.install()
    address = f"{environment.url}/webhooks/paypal"
    with (
        WebhookSender(address, signer, environment.webhook_id) as sender,
        progress("events", len(deliveries)) as advance,
    ):
        answers = asyncio.run(_play(Playback(environment, stop), sender, deliveries, ends_at, advance))
    environment.clock.release()
    with environment.parts.database.reading() as session:
        accepted = session.execute(select(func.count()).where(Event.source == "webhook")).scalar_one()
    return run.ended(len(deliveries), answers[200], answers[200] - accepted, ends_at)


def run_live(environment: DemoEnvironment) -> None:
    """Process due work in real time until Ctrl-C or SIGTERM."""
    stop = StopSignal()
    stop.install()
    asyncio.run(_run_until_stopped(Playback(environment, stop), stop))


class Playback:
    """Runs the pipeline's work at the time that the demo's clock shows."""

    def __init__(self, environment: DemoEnvironment, stop: StopSignal) -> None:
        self._environment, self._stop, container = environment, stop, environment.parts
        self._worker, self._jobs = container.worker(), jobs.build_scheduler(container)
        self._mailer = container.mailer()

    async def work(self, *, expect_message: bool = False) -> None:
        """Do everything that is due now. `expect_message`: wait for an id from the broker first."""
        if expect_message:
            consume_once(self._worker, self._environment.inlet, ARRIVES_SECONDS)
        while self._round() + await self._mailer.send_due():
            pass

    async def pass_time(self, until: datetime) -> None:
        """Move the clock to `until` and do all work at the time when it is due. Raises Interrupted."""
        while (due := self._next_due()) is not None and due <= until:
            self._environment.clock.move_to(max(due, self._environment.clock.now() + STEP))
            await self.work()
        self._environment.clock.move_to(max(until, self._environment.clock.now()))
        if self._stop.wait(0):
            raise Interrupted

    def post(self, sender: WebhookSender, delivery: Delivery) -> int:
        """Update the simulated PayPal, then post the webhook. Return the response status."""
        self._environment.world.apply(delivery)
        return sender.send(delivery)

    async def close(self) -> None:
        await self._mailer.close()

    def _round(self) -> int:
        return consume_once(self._worker, self._environment.inlet, 0.0) + work_once(
            self._environment.parts, self._worker, self._jobs
        )

    def _next_due(self) -> datetime | None:
        """Return the time of the next due event, mail, reminder or look-up."""
        waiting = (
            select(func.min(Event.due_at)).where(Event.state == "received"),
            select(func.min(Mail.due_at)).where(Mail.state == "queued"),
            select(func.min(Subscription.remind_at)),
            select(func.min(PaypalLookup.due_at)),
        )
        with self._environment.parts.database.reading() as session:
            found = [session.execute(statement).scalar_one() for statement in waiting]
        return min((due for due in found if due is not None), default=None)


async def _play(
    playback: Playback, sender: WebhookSender, deliveries: list[Delivery], ends_at: datetime, advance: Advance
) -> Counter[int]:
    answers: Counter[int] = Counter()
    seen: set[str] = set()
    try:
        for delivery in deliveries:
            await playback.pass_time(delivery.at)
            answers[playback.post(sender, delivery)] += 1
            await playback.work(expect_message=delivery.id not in seen)
            seen.add(delivery.id)
            advance(1)
        await playback.pass_time(ends_at)
        await playback.work()  # daily jobs, if nothing else was due since
    finally:
        await playback.close()
    return answers


async def _run_until_stopped(playback: Playback, stop: StopSignal) -> None:
    try:
        while not stop.wait(0):
            await playback.work()
            await asyncio.sleep(POLL_SECONDS)
    finally:
        await playback.close()
