"""Plays the months: time jumps to whatever is due next, an event or a reminder, and everything due is done there."""

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

Advance = Callable[[int], object]  # called with how much more was done
Progress = Callable[[str, int], AbstractContextManager[Advance]]  # called with the work's name and its amount

LAST = timedelta(hours=1)  # before now: what the last event has in its wake still comes due
ARRIVES_SECONDS = 1.0  # how long an id that was just stored may take through the broker; then the sweep finds it
STEP = timedelta(seconds=1)
POLL_SECONDS = 0.25


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM while it is being played."""


def play(stage: DemoEnvironment, asked: DemoRun, progress: Progress) -> DemoRun:
    """Play what was asked for, up to now. What came of it is in the tables. `progress` shows how far it is."""
    ends_at = SystemClock().now()
    deliveries = scenarios.vendor_months(asked.seed, asked.months, ends_at - LAST, asked.subscribers)
    stage.clock.move_to(deliveries[0].at)
    signer = open_signer(stage.parts.settings, deliveries[0].at, ends_at)
    trust_certificate(stage.parts.settings, SystemClock(), signer)
    stop = StopSignal()
    stop.install()
    address = f"{stage.url}/webhooks/paypal"
    with WebhookSender(address, signer, stage.webhook_id) as courier, progress("events", len(deliveries)) as done:
        answers = asyncio.run(_play(Playback(stage, stop), courier, deliveries, ends_at, done))
    stage.clock.release()
    with stage.parts.database.reading() as session:
        accepted = session.execute(select(func.count()).where(Event.source == "webhook")).scalar_one()
    return asked.ended(len(deliveries), answers[200], answers[200] - accepted, ends_at)


def run_live(stage: DemoEnvironment) -> None:
    """Work on by the machine's clock until Ctrl-C or SIGTERM."""
    stop = StopSignal()
    stop.install()
    asyncio.run(_keep_up(Playback(stage, stop), stop))


class Playback:
    """The pipeline's work, done in rounds at the moment the clock shows."""

    def __init__(self, stage: DemoEnvironment, stop: StopSignal) -> None:
        self._stage, self._stop, parts = stage, stop, stage.parts
        self._events, self._jobs, self._post = parts.worker(), jobs.build_scheduler(parts), parts.mailer()

    async def work(self, *, coming: bool = False) -> None:
        """Do all that is due now. `coming`: an id is on its way through the broker."""
        if coming:
            consume_once(self._events, self._stage.inlet, ARRIVES_SECONDS)
        while self._round() + await self._post.send_due():
            pass

    async def pass_time(self, until: datetime) -> None:
        """Let time pass, with everything done at the moment it comes due."""
        while (due := self._next_due()) is not None and due <= until:
            self._stage.clock.move_to(max(due, self._stage.clock.now() + STEP))
            await self.work()
        self._stage.clock.move_to(max(until, self._stage.clock.now()))
        if self._stop.wait(0):
            raise Interrupted

    def post(self, courier: WebhookSender, delivery: Delivery) -> int:
        """Let happen at PayPal what the delivery tells of, then post it. The status it was answered with."""
        self._stage.world.apply(delivery)
        return courier.send(delivery)

    async def close(self) -> None:
        await self._post.close()

    def _round(self) -> int:
        return consume_once(self._events, self._stage.inlet, 0.0) + work_once(
            self._stage.parts, self._events, self._jobs
        )

    def _next_due(self) -> datetime | None:
        """When the next thing is due that somebody must do."""
        waiting = (
            select(func.min(Event.due_at)).where(Event.state == "received"),
            select(func.min(Mail.due_at)).where(Mail.state == "queued"),
            select(func.min(Subscription.remind_at)),
            select(func.min(PaypalLookup.due_at)),
        )
        with self._stage.parts.database.reading() as session:
            found = [session.execute(statement).scalar_one() for statement in waiting]
        return min((due for due in found if due is not None), default=None)


async def _play(
    months: Playback, courier: WebhookSender, deliveries: list[Delivery], ends_at: datetime, done: Advance
) -> Counter[int]:
    answers: Counter[int] = Counter()
    seen: set[str] = set()
    try:
        for delivery in deliveries:
            await months.pass_time(delivery.at)
            answers[months.post(courier, delivery)] += 1
            await months.work(coming=delivery.id not in seen)
            seen.add(delivery.id)
            done(1)
        await months.pass_time(ends_at)
        await months.work()  # what is due by the day, with nothing else due since
    finally:
        await months.close()
    return answers


async def _keep_up(months: Playback, stop: StopSignal) -> None:
    try:
        while not stop.wait(0):
            await months.work()
            await asyncio.sleep(POLL_SECONDS)
    finally:
        await months.close()
