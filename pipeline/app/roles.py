"""The roles: web, worker, mailer, scheduler, each a loop; all of them in one process, or one in each."""

import asyncio
import contextlib
import gc
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial

import structlog
import uvicorn
import uvloop
from starlette.applications import Starlette

from pipeline.app import jobs as wiring
from pipeline.app import site as pages
from pipeline.app.container import Parts
from pipeline.broker import BrokerDown
from pipeline.db import migrations
from pipeline.db.engine import StoreDown
from pipeline.inbox import lookup_fetcher
from pipeline.inbox import store as inbox
from pipeline.operations import heartbeat as alive
from pipeline.scheduler.scheduler import Scheduler
from pipeline.web.connection_limits import Patience
from pipeline.worker.recovery import Sweep
from pipeline.worker.worker import Worker, serve, take

log = structlog.get_logger(__name__)

# How long a thread that writes mails may keep the one waiting that speaks to the relay; Python's own 5 ms leave the relay
# idle for as long, time and again.
SWITCH_SECONDS = 0.0005
LIFE_SECONDS = 5.0  # between two signs of life; far below `alive.ALIVE_SECONDS`
READ_SECONDS = 2.0  # how often owed questions to PayPal are looked for


class Stop:
    """Set by SIGTERM and SIGINT: finish what is under way, then end."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.failed = False  # whether a role died, so that the process tells its supervisor

    def set(self) -> None:
        self._event.set()

    def wait(self, seconds: float) -> bool:
        """Wait so long at most; whether it is time to stop."""
        return self._event.wait(seconds)

    def listen(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.set())


def collect_seldom() -> None:
    """Collect garbage seldom: roles make many objects and few reference cycles, and to look for them cost a fifth."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


class _Server(uvicorn.Server):
    """Says where it listens, also when the port was left to the system to choose."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for server in self.servers if self.started else ():
            for listener in server.sockets:
                host, port = listener.getsockname()[:2]
                host = f"[{host}]" if ":" in host else host
                log.info("listening", url=f"http://{host}:{port}/webhooks/paypal")


def web(parts: Parts, stop: Stop) -> None:
    """Serve HTTP until told to stop."""
    with parts.event_announcer, parts.committer, pages.served(parts) as (routes, lost):
        server = _Server(_uvicorn(parts, parts.web().app(routes, lost)))
        loops = server.config.get_loop_factory()
        with _ending(stop, lambda: _end(server)), asyncio.Runner(loop_factory=loops) as runner:
            runner.run(_serve(parts, server))
    stop.set()


def worker(parts: Parts, stop: Stop) -> None:
    """Handle events until told to stop; beside it a thread sweeps, and one asks PayPal what is owed an answer.

    Two threads handle: one works while the other waits for the database. SQLite has one writer at a time, so one is enough.
    """
    reader = [_guarded("reader", partial(_reader, parts, stop), stop)] if parts.settings.reads_paypal else []
    with contextlib.ExitStack() as stack:
        stack.enter_context(parts.mail_announcer)
        count = 1 if parts.database.is_sqlite else 2
        inlets = [stack.enter_context(parts.broker.inlet("events")) for _ in range(count)]
        sweep = Sweep(parts.worker(), parts.database, parts.clock, lambda: min(each.quiet_seconds() for each in inlets))
        threads = [_guarded("sweep", partial(sweep.run, stop.wait), stop)]
        for other in inlets[1:]:
            threads += [_guarded("second worker", partial(serve, parts.worker(), other, stop.wait), stop)]
        serve(parts.worker(), inlets[0], _showing(parts, "worker", stop))
        for thread in (*threads, *reader):
            thread.join()


def mailer(parts: Parts, stop: Stop) -> None:
    """Send mails until told to stop; a thread beside it listens for new ones."""
    sys.setswitchinterval(SWITCH_SECONDS)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_mailer(parts, stop))


def scheduler(parts: Parts, stop: Stop) -> None:
    """Run the due jobs until told to stop."""
    jobs, wait = wiring.scheduler(parts), _showing(parts, "scheduler", stop)
    while not wait(0.5):
        jobs.run_due()


def everything(parts: Parts, stop: Stop) -> None:
    """All roles in this process. Without a relay mails stay owed."""
    migrations.upgrade(parts.database)
    roles = [worker, scheduler, *([mailer] if parts.settings.smtp_url else [])]
    threads = [_guarded(role.__name__, partial(role, parts, stop), stop) for role in roles]
    try:
        web(parts, stop)
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def until_idle(parts: Parts, on_round: Callable[[int], None] = lambda _: None) -> None:
    """Do everything that is due now, in this thread, and return when nothing is. Raises StoreDown."""
    migrations.upgrade(parts.database)
    asyncio.run(_until_idle(parts, on_round))


async def _until_idle(parts: Parts, on_round: Callable[[int], None]) -> None:
    events, jobs = parts.worker(), wiring.scheduler(parts)
    post = parts.mailer() if parts.settings.smtp_url else None
    try:
        while done := _work(parts, events, jobs) + (await post.send_due() if post else 0):
            on_round(done)
    finally:
        if post is not None:
            await post.close()


def _work(parts: Parts, events: Worker, jobs: Scheduler) -> int:
    """One round of everything but the mail; how much there was to do."""
    with parts.database.transaction() as session:
        ids = inbox.take_due(session, parts.clock.now())
    events.handle(ids)
    waiting = 0 if parts.broker.exclusive else _drain(parts, events)
    asked = (
        lookup_fetcher.ask_due(parts.database, parts.master, parts.clock, parts.paypal)
        if parts.settings.reads_paypal
        else []
    )
    return len(ids) + waiting + len(asked) + jobs.run_all()


def _drain(parts: Parts, events: Worker) -> int:
    """Handle what waits in the broker."""
    with parts.broker.inlet("events") as inlet:
        return take(events, inlet, 0.2)


def _uvicorn(parts: Parts, app: Starlette) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=parts.settings.web_host,
        port=parts.settings.web_port,
        loop="uvloop",
        http=Patience,
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=10,
        backlog=512,
        limit_concurrency=1000,
    )


def _end(server: uvicorn.Server) -> None:
    server.should_exit = True


async def _serve(parts: Parts, server: uvicorn.Server) -> None:
    async with _living(parts, "web"):
        with contextlib.suppress(asyncio.CancelledError):
            await server.serve()


@contextlib.asynccontextmanager
async def _living(parts: Parts, role: str) -> AsyncIterator[None]:
    """Signs of life as long as the block lasts, also while what it waits for hangs."""
    showing = asyncio.create_task(_show_life(parts, role))
    try:
        yield
    finally:
        showing.cancel()


async def _show_life(parts: Parts, role: str) -> None:
    while True:
        alive.show_life(parts.settings.data_dir, role)
        await asyncio.sleep(LIFE_SECONDS)


async def _mailer(parts: Parts, stop: Stop) -> None:
    post, bell, ended = parts.mailer(), asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    listener = _thread("bell", lambda: _listen(parts, stop, lambda: loop.call_soon_threadsafe(bell.set)))
    watcher = _thread("stop", lambda: _after(stop, lambda: loop.call_soon_threadsafe(ended.set)))
    try:
        async with _living(parts, "mailer"):  # who is killed while a relay hangs leaves doubts
            await post.run(ended, bell)
    finally:
        await post.close()
        stop.set()
        for thread in (listener, watcher):
            await asyncio.to_thread(thread.join)


def _listen(parts: Parts, stop: Stop, ring: Callable[[], object]) -> None:
    """Ring when mails are announced. The ids themselves are not needed: what is due stands in the outbox."""
    with parts.broker.inlet("mails") as inlet:
        while not stop.wait(0):
            try:
                batch = inlet.take(1000, 1.0)
                if batch is not None:
                    batch.ack()
                    ring()
            except BrokerDown as error:
                log.warning("broker_down", reason=str(error))
                stop.wait(1.0)


def _reader(parts: Parts, stop: Stop) -> None:
    with parts.broker.publisher() as publisher:
        while not stop.wait(READ_SECONDS):
            try:
                ids = lookup_fetcher.ask_due(parts.database, parts.master, parts.clock, parts.paypal)
                if ids:
                    publisher.publish("events", ids)
            except (StoreDown, BrokerDown) as error:
                log.warning("reader_waits", reason=str(error))


def _showing(parts: Parts, role: str, stop: Stop) -> Callable[[float], bool]:
    """`stop.wait` that leaves a sign of life, at most once a second."""
    shown = [0.0]

    def wait(seconds: float) -> bool:
        now = parts.clock.now().timestamp()
        if abs(now - shown[0]) >= 1:
            alive.show_life(parts.settings.data_dir, role)
            shown[0] = now
        return stop.wait(seconds)

    return wait


@contextlib.contextmanager
def _ending(stop: Stop, end: Callable[[], None]) -> Iterator[None]:
    """Call `end` from a thread once it is time to stop."""
    thread = _thread("end", lambda: _after(stop, end))
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _after(stop: Stop, end: Callable[[], object]) -> None:
    """Wait until it is time to stop, then call `end`."""
    while not stop.wait(3600):
        pass
    end()


def _guarded(name: str, work: Callable[[], object], stop: Stop) -> threading.Thread:
    """A thread whose death takes the process with it: a supervisor starts it anew, and nothing runs on half."""

    def run() -> None:
        try:
            work()
        except Exception:
            log.exception("role_died", role=name)
            stop.failed = True
            stop.set()

    return _thread(name, run)


def _thread(name: str, target: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=target, name=name, daemon=True)
    thread.start()
    return thread
