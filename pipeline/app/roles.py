"""The roles: web, worker, mailer and scheduler. Each is a loop; they run in one process together, or in one each."""

import asyncio
import contextlib
import gc
import sys
from collections.abc import AsyncIterator, Callable
from functools import partial

import structlog
import uvloop

from pipeline.app import jobs, site
from pipeline.app.container import Container
from pipeline.app.shutdown import StopSignal, call_at_stop, start_thread, supervised_thread
from pipeline.app.web_server import WebServer, web_server
from pipeline.broker import BrokerUnavailableError
from pipeline.db import migrations
from pipeline.db.engine import DatabaseUnavailableError
from pipeline.inbox import lookup_fetcher
from pipeline.operations import heartbeat
from pipeline.worker.recovery import InboxRecovery
from pipeline.worker.worker import consume_until_stopped

log = structlog.get_logger(__name__)

# How long a thread that writes mails may keep the one waiting that speaks to the relay; Python's own 5 ms leave the relay
# idle for as long, time and again.
SWITCH_SECONDS = 0.0005
HEARTBEAT_SECONDS = 5.0  # between two signs of life; far below `alive.ALIVE_SECONDS`
LOOKUP_POLL_SECONDS = 2.0  # how often owed questions to PayPal are looked for


def tune_gc() -> None:
    """Collect garbage seldom: roles make many objects and few reference cycles, and to look for them cost a fifth."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def run_web(container: Container, stop: StopSignal) -> None:
    """Serve HTTP until it is time to stop."""
    with container.event_publisher, container.group_committer, site.serve_pages(container) as (routes, lost):
        server = web_server(container.settings, container.web().app(routes, lost))
        watcher = call_at_stop(stop, server.end)
        try:
            with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
                runner.run(_serve(container, server))
        finally:
            stop.set()
            watcher.join()


def run_worker(container: Container, stop: StopSignal) -> None:
    """Handle events until told to stop; beside it a thread sweeps, and one asks PayPal what is owed an answer.

    Two threads handle: one works while the other waits for the database. SQLite has one writer at a time, so one is enough.
    """
    reader = (
        [supervised_thread("reader", partial(_fetch_lookups, container, stop), stop)]
        if container.settings.has_paypal_credentials
        else []
    )
    with contextlib.ExitStack() as stack:
        stack.enter_context(container.mail_publisher)
        count = 1 if container.database.is_sqlite else 2
        inlets = [stack.enter_context(container.broker.consumer("events")) for _ in range(count)]
        sweep = InboxRecovery(
            container.worker(), container.database, container.clock, lambda: min(each.idle_seconds() for each in inlets)
        )
        threads = [supervised_thread("sweep", partial(sweep.run, stop.wait), stop)]
        for other in inlets[1:]:
            threads += [
                supervised_thread(
                    "second worker", partial(consume_until_stopped, container.worker(), other, stop.wait), stop
                )
            ]
        consume_until_stopped(container.worker(), inlets[0], _stop_with_heartbeat(container, "worker", stop))
        for thread in (*threads, *reader):
            thread.join()


def run_mailer(container: Container, stop: StopSignal) -> None:
    """Send mails until told to stop; a thread beside it listens for new ones."""
    sys.setswitchinterval(SWITCH_SECONDS)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_mailer(container, stop))


def run_scheduler(container: Container, stop: StopSignal) -> None:
    """Run the due jobs until told to stop."""
    due, wait = jobs.build_scheduler(container), _stop_with_heartbeat(container, "scheduler", stop)
    while not wait(0.5):
        due.run_due()


def run_all(container: Container, stop: StopSignal) -> None:
    """All roles in this process. Without a relay mails stay owed."""
    migrations.upgrade(container.database)
    roles = [run_worker, run_scheduler, *([run_mailer] if container.settings.smtp_url else [])]
    threads = [supervised_thread(role.__name__, partial(role, container, stop), stop) for role in roles]
    try:
        run_web(container, stop)
    finally:
        stop.set()
        for thread in threads:
            thread.join()


async def _serve(container: Container, server: WebServer) -> None:
    async with _heartbeat_task(container, "web"):
        with contextlib.suppress(asyncio.CancelledError):
            await server.serve()


@contextlib.asynccontextmanager
async def _heartbeat_task(container: Container, role: str) -> AsyncIterator[None]:
    """Signs of life as long as the block lasts, also while what it waits for hangs."""
    showing = asyncio.create_task(_show_life(container, role))
    try:
        yield
    finally:
        showing.cancel()


async def _show_life(container: Container, role: str) -> None:
    while True:
        heartbeat.write(container.settings.data_dir, role)
        await asyncio.sleep(HEARTBEAT_SECONDS)


async def _mailer(container: Container, stop: StopSignal) -> None:
    post, bell, ended = container.mailer(), asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    listener = start_thread("bell", lambda: _listen(container, stop, lambda: loop.call_soon_threadsafe(bell.set)))
    watcher = call_at_stop(stop, lambda: loop.call_soon_threadsafe(ended.set))
    try:
        async with _heartbeat_task(container, "mailer"):  # who is killed while a relay hangs leaves doubts
            await post.run(ended, bell)
    finally:
        await post.close()
        stop.set()
        for thread in (listener, watcher):
            await asyncio.to_thread(thread.join)


def _listen(container: Container, stop: StopSignal, ring: Callable[[], object]) -> None:
    """Ring when mails are announced. The ids themselves are not needed: what is due stands in the outbox."""
    with container.broker.consumer("mails") as inlet:
        while not stop.wait(0):
            try:
                batch = inlet.receive(1000, 1.0)
                if batch is not None:
                    batch.ack()
                    ring()
            except BrokerUnavailableError as error:
                log.warning("broker_down", reason=str(error))
                stop.wait(1.0)


def _fetch_lookups(container: Container, stop: StopSignal) -> None:
    with container.broker.publisher() as publisher:
        while not stop.wait(LOOKUP_POLL_SECONDS):
            try:
                ids = lookup_fetcher.fetch_due(
                    container.database, container.master_key, container.clock, container.paypal
                )
                if ids:
                    publisher.publish("events", ids)
            except (DatabaseUnavailableError, BrokerUnavailableError) as error:
                log.warning("reader_waits", reason=str(error))


def _stop_with_heartbeat(container: Container, role: str, stop: StopSignal) -> Callable[[float], bool]:
    """`stop.wait` that leaves a sign of life, at most once a second."""
    shown = [0.0]

    def wait(seconds: float) -> bool:
        now = container.clock.now().timestamp()
        if abs(now - shown[0]) >= 1:
            heartbeat.write(container.settings.data_dir, role)
            shown[0] = now
        return stop.wait(seconds)

    return wait
