"""The roles: web, worker, mailer and scheduler. Each is a loop; all run in one process, or each in its own."""

import asyncio
import contextlib
import gc
import sys
import threading
from collections.abc import AsyncIterator, Callable
from functools import partial

import structlog
import uvloop

from pipeline.app import dependency_checks, jobs, site
from pipeline.app.container import Container
from pipeline.app.shutdown import StopSignal, call_at_stop, start_thread, supervised_thread
from pipeline.app.web_server import MonitoringServer, WebServer, monitoring_server, web_server
from pipeline.broker import BrokerUnavailableError
from pipeline.db import migrations
from pipeline.db.engine import DatabaseUnavailableError
from pipeline.inbox import lookup_fetcher
from pipeline.operations import heartbeat
from pipeline.worker.recovery import InboxRecovery
from pipeline.worker.worker import consume_until_stopped

log = structlog.get_logger(__name__)

# How long a thread that renders mails may block the thread that talks to the relay. With Python's default of 5 ms the
# relay is often idle.
SWITCH_SECONDS = 0.0005
HEARTBEAT_SECONDS = 5.0  # between two heartbeats; far below `heartbeat.ALIVE_SECONDS`
LOOKUP_POLL_SECONDS = 2.0  # between two searches for due look-ups


def tune_gc() -> None:
    """Collect garbage rarely. Roles create many objects but few reference cycles; the search took 20% of the time."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def run_web(container: Container, stop: StopSignal) -> None:
    """Serve HTTP until `stop` is set."""
    with container.event_publisher, container.group_committer, site.serve_pages(container) as (routes, lost):
        web = container.web()
        server = web_server(container.settings, web.app(routes, lost))
        watcher, checks = call_at_stop(stop, server.end), _check_dependencies(container, "web", stop)
        try:
            with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
                runner.run(_serve(container, server, monitoring_server(container.settings, web.monitoring_app())))
        finally:
            stop.set()
            for thread in (watcher, checks):
                thread.join()


def run_worker(container: Container, stop: StopSignal) -> None:
    """Process events until `stop` is set. Additional threads recover events from the inbox and run look-ups.

    On PostgreSQL two threads process events: one computes while the other waits for the database. SQLite allows one writer
    at a time, so it gets one thread.
    """
    lookups = (
        [supervised_thread("look-ups", partial(_fetch_lookups, container, stop), stop)]
        if container.settings.has_paypal_credentials
        else []
    )
    with contextlib.ExitStack() as stack:
        stack.enter_context(container.mail_publisher)
        count = 1 if container.database.is_sqlite else 2
        consumers = [stack.enter_context(container.broker.consumer("events")) for _ in range(count)]
        recovery = InboxRecovery(
            container.worker(),
            container.database,
            container.clock,
            lambda: min(consumer.idle_seconds() for consumer in consumers),
        )
        threads = [
            supervised_thread("inbox recovery", partial(recovery.run, stop.wait), stop),
            _check_dependencies(container, "worker", stop),
        ]
        for consumer in consumers[1:]:
            threads += [
                supervised_thread(
                    "worker 2", partial(consume_until_stopped, container.worker(), consumer, stop.wait), stop
                )
            ]
        consume_until_stopped(container.worker(), consumers[0], _stop_with_heartbeat(container, "worker", stop))
        for thread in (*threads, *lookups):
            thread.join()


def run_mailer(container: Container, stop: StopSignal) -> None:
    """Send mails until `stop` is set. A second thread receives the broker's messages about new mails."""
    sys.setswitchinterval(SWITCH_SECONDS)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_mailer(container, stop))


def run_scheduler(container: Container, stop: StopSignal) -> None:
    """Run the due jobs until `stop` is set."""
    scheduler = jobs.build_scheduler(container, watches_roles=True)
    wait = _stop_with_heartbeat(container, "scheduler", stop)
    checks = _check_dependencies(container, "scheduler", stop)
    while not wait(0.5):
        scheduler.run_due()
    checks.join()


def run_all(container: Container, stop: StopSignal) -> None:
    """Upgrade the tables, then run all roles in this process. Without a relay there is no mailer; mails stay queued."""
    migrations.upgrade(container.database)
    roles = {"worker": run_worker, "scheduler": run_scheduler}
    if container.settings.smtp_url:
        roles["mailer"] = run_mailer
    threads = [supervised_thread(name, partial(role, container, stop), stop) for name, role in roles.items()]
    try:
        run_web(container, stop)
    finally:
        stop.set()
        for thread in threads:
            thread.join()


async def _serve(container: Container, server: WebServer, monitoring: MonitoringServer | None) -> None:
    async with _heartbeat_task(container, "web"), _listening(monitoring):
        with contextlib.suppress(asyncio.CancelledError):
            await server.serve()


@contextlib.asynccontextmanager
async def _listening(monitoring: MonitoringServer | None) -> AsyncIterator[None]:
    """Run the listener for monitoring while the block runs."""
    if monitoring is None:
        yield
        return
    task = asyncio.create_task(monitoring.serve())
    try:
        yield
    finally:
        monitoring.should_exit = True
        await task


@contextlib.asynccontextmanager
async def _heartbeat_task(container: Container, role: str) -> AsyncIterator[None]:
    """Write heartbeats while the block runs, also while it waits for something that hangs."""
    task = asyncio.create_task(_write_heartbeats(container, role))
    try:
        yield
    finally:
        task.cancel()


def _write_heartbeat(container: Container, role: str) -> None:
    heartbeat.write(container.settings.data_dir, role, container.clock.now(), container.dependencies)


def _check_dependencies(container: Container, role: str, stop: StopSignal) -> threading.Thread:
    """Start the thread that checks the role's dependencies. A server that hangs must not delay the role."""
    return supervised_thread("dependencies", partial(dependency_checks.keep_checking, container, role, stop), stop)


async def _write_heartbeats(container: Container, role: str) -> None:
    while True:
        _write_heartbeat(container, role)
        await asyncio.sleep(HEARTBEAT_SECONDS)


async def _mailer(container: Container, stop: StopSignal) -> None:
    mailer, new_mail, stopping = container.mailer(), asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    receiver = start_thread(
        "mail messages",
        lambda: _receive_messages(container, stop, lambda: loop.call_soon_threadsafe(new_mail.set)),
    )
    watcher = call_at_stop(stop, lambda: loop.call_soon_threadsafe(stopping.set))
    checks = _check_dependencies(container, "mailer", stop)
    try:
        async with _heartbeat_task(container, "mailer"):  # a supervisor that kills a waiting mailer would cause doubts
            await mailer.run(stopping, new_mail)
    finally:
        await mailer.close()
        stop.set()
        for thread in (receiver, watcher, checks):
            await asyncio.to_thread(thread.join)


def _receive_messages(container: Container, stop: StopSignal, on_mail: Callable[[], object]) -> None:
    """Call `on_mail` when the broker delivers mail ids. The ids are not used: the outbox shows which mails are due."""
    with container.broker.consumer("mails") as consumer:
        while not stop.wait(0):
            try:
                batch = consumer.receive(1000, 1.0)
                if batch is not None:
                    batch.ack()
                    on_mail()
            except BrokerUnavailableError as error:
                log.warning("broker_down", reason=str(error))
                stop.wait(1.0)


def _fetch_lookups(container: Container, stop: StopSignal) -> None:
    with container.broker.publisher() as publisher:
        while not stop.wait(LOOKUP_POLL_SECONDS):
            try:
                ids = lookup_fetcher.fetch_due(
                    container.database,
                    container.master_key,
                    container.clock,
                    container.paypal,
                    bucket=container.paypal_rate,
                )
                if ids:
                    publisher.publish("events", ids)
            except (DatabaseUnavailableError, BrokerUnavailableError) as error:
                log.warning("lookups_deferred", reason=str(error))


def _stop_with_heartbeat(container: Container, role: str, stop: StopSignal) -> Callable[[float], bool]:
    """Return `stop.wait`, extended to write a heartbeat at most once a second."""
    written = [0.0]

    def wait(seconds: float) -> bool:
        now = container.clock.now().timestamp()
        if abs(now - written[0]) >= 1:
            _write_heartbeat(container, role)
            written[0] = now
        return stop.wait(seconds)

    return wait
