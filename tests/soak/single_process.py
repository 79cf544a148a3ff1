"""Run the product's roles in one process and one thread. Only the database file is on disk, so the process can die."""

import asyncio
import os
from collections.abc import Awaitable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

from sqlalchemy import event, select

from handlers import HANDLERS
from pipeline.billing.reminders import ReminderPolicy
from pipeline.broker import BrokerUnavailableError, Consumer
from pipeline.clock import MovableClock
from pipeline.crypto.master_key import MasterKey
from pipeline.db.engine import Database, DatabaseUnavailableError
from pipeline.db.models import Event
from pipeline.inbox import lookup_fetcher
from pipeline.inbox.store import NewEvent, StoreResult
from pipeline.mailer.mailer import Mailer
from pipeline.mailer.relay_log import RelayLog, resolve_doubts
from pipeline.mailer.smtp_relay import Relay
from pipeline.scheduler.core_jobs import core_jobs
from pipeline.scheduler.scheduler import Job, Scheduler
from pipeline.webhooks.group_commit import GroupCommitter, _Waiting
from pipeline.worker.recovery import QUIET_SECONDS, InboxRecovery
from pipeline.worker.worker import Worker, consume_until_stopped
from tests.soak.database_faults import Crash, DatabaseFault, OneThread
from tests.soak.fake_peers import PayPal, Postfix, UnreliableBroker
from tests.support.event_histories import YEARS
from tests.support.misbehaving_relay import Wire
from tests.support.outbox_fixtures import SENDER, TEMPLATES

SETTLE_EVERY = timedelta(seconds=5)


class SimulatedHost:
    """What survives a process: the database file, the relay, the broker, PayPal, and their shared event loop."""

    def __init__(self, folder: Path, clock: MovableClock, master_key: MasterKey, paypal: PayPal) -> None:
        self.folder, self.clock, self.master, self.paypal = folder, clock, master_key, paypal
        self.fault = DatabaseFault()
        self.loop = asyncio.new_event_loop()
        self.loop.set_default_executor(OneThread())
        self.orphaned = asyncio.Event()
        self.postfix = Postfix(folder / "mail.log", clock, self.orphaned.set)
        self._server = self.loop.run_until_complete(
            self.loop.create_server(lambda: Wire(self.postfix, loop=self.loop), "127.0.0.1", 0)
        )
        self.smtp_url = f"smtp://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        self.watcher = self.database()  # For the checks, and for creating the tables.
        self.broker = UnreliableBroker(self._check_ack)

    def database(self) -> Database:
        """Open the database file. Syncing to disk is off, because the test does not simulate a power failure."""
        database = Database(f"sqlite:///{self.folder / 'smt-billing.db'}")
        event.listen(database.engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF"))
        return database

    def close(self) -> None:
        self._server.close()
        for wire in self.postfix.wires:
            if wire.transport is not None:
                wire.transport.abort()
        self.loop.run_until_complete(asyncio.sleep(0))
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run_until_complete(asyncio.sleep(0))
        self.watcher.close()
        self.loop.close()

    def _check_ack(self, ids: Sequence[str]) -> None:
        """Check that acknowledged events are committed: handled, or waiting with a reason."""
        with self.fault.paused(), self.watcher.reading() as session:
            rows = session.execute(select(Event.id, Event.state, Event.reason).where(Event.id.in_(ids)))
            early = [row.id for row in rows if row.state == "received" and row.reason is None]
        assert not early, f"acknowledged before its commit: {early}"


class Process:
    """One process with all roles. Each method is one round of a role's loop, including its error handling."""

    def __init__(self, host: SimulatedHost) -> None:
        self._host = host
        clock, master, broker = host.clock, host.master, host.broker
        self.database = host.database()
        host.fault.attach(self.database.engine)
        self._committer = GroupCommitter(self.database, master, clock, broker.announce)
        self._worker = Worker(
            self.database, master, clock, HANDLERS,
            reminders=ReminderPolicy(), may_read=True, max_ahead=YEARS, on_mail=broker.announce_mails,
        )  # fmt: skip
        core = core_jobs(self.database, master, clock, reminders=ReminderPolicy(), may_read=True, operator="")
        self._scheduler = Scheduler(clock, core, [Job("doubts", SETTLE_EVERY, self._settle_doubts)])
        self._recovery = InboxRecovery(self._worker, self.database, clock, lambda: QUIET_SECONDS)
        relay = Relay(host.smtp_url, connections=1, timeout_seconds=5, final_timeout_seconds=5)
        self._mailer = Mailer(self.database, master, clock, TEMPLATES, relay, SENDER)
        self._relay_log = RelayLog(host.folder / "mail.log", clock)

    def receive(self, deliveries: Sequence[NewEvent]) -> list[StoreResult | BaseException]:
        """Store deliveries of simultaneous requests. Return the answer to each."""
        loop = self._host.loop
        group = [_Waiting(delivery, loop, loop.create_future()) for delivery in deliveries]
        self._committer._process(group)
        return cast(list[StoreResult | BaseException], self._run(_all(group)))

    def work(self) -> None:
        stop = iter((False, *([True] * 3)))
        consume_until_stopped(self._worker, cast(Consumer, self._host.broker), lambda _: next(stop))

    def read(self) -> None:
        host = self._host
        try:
            host.broker.publish("events", lookup_fetcher.fetch_due(self.database, host.master, host.clock, host.paypal))
        except (DatabaseUnavailableError, BrokerUnavailableError):
            return

    def tick(self) -> int:
        return self._scheduler.run_due() + self._recover_once()

    def _recover_once(self) -> int:
        try:
            return self._recovery.once()
        except DatabaseUnavailableError:
            return 0

    def mail(self) -> int:
        try:
            return cast(int, self._run(self._unless_orphaned(self._mailer.send_due())))
        except DatabaseUnavailableError:
            return 1

    def die(self) -> None:
        """Drop everything in memory, and close what the kernel would close."""
        liveness = self._mailer._liveness
        if liveness is not None:
            os.close(liveness._presence._descriptor)  # type: ignore[attr-defined]
        for connection in self._mailer._relay._idle:
            connection.abort()
        self._run(asyncio.sleep(0))
        self.database.close()

    def _run(self, work: Awaitable[Any]) -> Any:
        return self._host.loop.run_until_complete(work)

    async def _unless_orphaned(self, work: Awaitable[int]) -> int:
        """Run the work. Raises Crash when the relay accepts a mail whose answer must not be read."""
        orphaned = self._host.orphaned
        sending, dying = asyncio.ensure_future(work), asyncio.ensure_future(orphaned.wait())
        await asyncio.wait({sending, dying}, return_when=asyncio.FIRST_COMPLETED)
        dying.cancel()
        if not orphaned.is_set():
            return await sending
        orphaned.clear()
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        raise Crash

    def _settle_doubts(self) -> int:
        postfix = self._host.postfix
        return resolve_doubts(
            self.database, self._host.clock, self._relay_log, postfix.log_connection, SENDER.envelope_domain
        )


async def _all(group: Sequence[_Waiting]) -> list[StoreResult | BaseException]:
    return await asyncio.gather(*(each.answer for each in group), return_exceptions=True)
