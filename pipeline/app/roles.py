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
from pipeline.worker.worker import serve

log = structlog.get_logger(__name__)

# How long a thread that writes mails may keep the one waiting that speaks to the relay; Python's own 5 ms leave the relay
# idle for as long, time and again.
SWITCH_SECONDS = 0.0005
HEARTBEAT_SECONDS = 5.0  # between two signs of life; far below `alive.ALIVE_SECONDS`
READ_SECONDS = 2.0  # how often owed questions to PayPal are looked for


def tune_gc() -> None:
    """Collect garbage seldom: roles make many objects and few reference cycles, and to look for them cost a fifth."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def web(parts: Container, stop: StopSignal) -> None:
    """Serve HTTP until it is time to stop."""
    with parts.event_publisher, parts.committer, site.served(parts) as (routes, lost):
        server = web_server(parts.settings, parts.web().app(routes, lost))
        watcher = call_at_stop(stop, server.end)
        try:
            with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
                runner.run(_serve(parts, server))
        finally:
            stop.set()
            watcher.join()


def worker(parts: Container, stop: StopSignal) -> None:
    """Handle events until told to stop; beside it a thread sweeps, and one asks PayPal what is owed an answer.

    Two threads handle: one works while the other waits for the database. SQLite has one writer at a time, so one is enough.
    """
    reader = (
        [supervised_thread("reader", partial(_reader, parts, stop), stop)]
        if parts.settings.has_paypal_credentials
        else []
    )
    with contextlib.ExitStack() as stack:
        stack.enter_context(parts.mail_publisher)
        count = 1 if parts.database.is_sqlite else 2
        inlets = [stack.enter_context(parts.broker.inlet("events")) for _ in range(count)]
        sweep = InboxRecovery(
            parts.worker(), parts.database, parts.clock, lambda: min(each.quiet_seconds() for each in inlets)
        )
        threads = [supervised_thread("sweep", partial(sweep.run, stop.wait), stop)]
        for other in inlets[1:]:
            threads += [supervised_thread("second worker", partial(serve, parts.worker(), other, stop.wait), stop)]
        serve(parts.worker(), inlets[0], _showing(parts, "worker", stop))
        for thread in (*threads, *reader):
            thread.join()


def mailer(parts: Container, stop: StopSignal) -> None:
    """Send mails until told to stop; a thread beside it listens for new ones."""
    sys.setswitchinterval(SWITCH_SECONDS)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_mailer(parts, stop))


def scheduler(parts: Container, stop: StopSignal) -> None:
    """Run the due jobs until told to stop."""
    due, wait = jobs.scheduler(parts), _showing(parts, "scheduler", stop)
    while not wait(0.5):
        due.run_due()


def everything(parts: Container, stop: StopSignal) -> None:
    """All roles in this process. Without a relay mails stay owed."""
    migrations.upgrade(parts.database)
    roles = [worker, scheduler, *([mailer] if parts.settings.smtp_url else [])]
    threads = [supervised_thread(role.__name__, partial(role, parts, stop), stop) for role in roles]
    try:
        web(parts, stop)
    finally:
        stop.set()
        for thread in threads:
            thread.join()


async def _serve(parts: Container, server: WebServer) -> None:
    async with _living(parts, "web"):
        with contextlib.suppress(asyncio.CancelledError):
            await server.serve()


@contextlib.asynccontextmanager
async def _living(parts: Container, role: str) -> AsyncIterator[None]:
    """Signs of life as long as the block lasts, also while what it waits for hangs."""
    showing = asyncio.create_task(_show_life(parts, role))
    try:
        yield
    finally:
        showing.cancel()


async def _show_life(parts: Container, role: str) -> None:
    while True:
        heartbeat.write(parts.settings.data_dir, role)
        await asyncio.sleep(HEARTBEAT_SECONDS)


async def _mailer(parts: Container, stop: StopSignal) -> None:
    post, bell, ended = parts.mailer(), asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    listener = start_thread("bell", lambda: _listen(parts, stop, lambda: loop.call_soon_threadsafe(bell.set)))
    watcher = call_at_stop(stop, lambda: loop.call_soon_threadsafe(ended.set))
    try:
        async with _living(parts, "mailer"):  # who is killed while a relay hangs leaves doubts
            await post.run(ended, bell)
    finally:
        await post.close()
        stop.set()
        for thread in (listener, watcher):
            await asyncio.to_thread(thread.join)


def _listen(parts: Container, stop: StopSignal, ring: Callable[[], object]) -> None:
    """Ring when mails are announced. The ids themselves are not needed: what is due stands in the outbox."""
    with parts.broker.inlet("mails") as inlet:
        while not stop.wait(0):
            try:
                batch = inlet.take(1000, 1.0)
                if batch is not None:
                    batch.ack()
                    ring()
            except BrokerUnavailableError as error:
                log.warning("broker_down", reason=str(error))
                stop.wait(1.0)


def _reader(parts: Container, stop: StopSignal) -> None:
    with parts.broker.publisher() as publisher:
        while not stop.wait(READ_SECONDS):
            try:
                ids = lookup_fetcher.fetch_due(parts.database, parts.master, parts.clock, parts.paypal)
                if ids:
                    publisher.publish("events", ids)
            except (DatabaseUnavailableError, BrokerUnavailableError) as error:
                log.warning("reader_waits", reason=str(error))


def _showing(parts: Container, role: str, stop: StopSignal) -> Callable[[float], bool]:
    """`stop.wait` that leaves a sign of life, at most once a second."""
    shown = [0.0]

    def wait(seconds: float) -> bool:
        now = parts.clock.now().timestamp()
        if abs(now - shown[0]) >= 1:
            heartbeat.write(parts.settings.data_dir, role)
            shown[0] = now
        return stop.wait(seconds)

    return wait
