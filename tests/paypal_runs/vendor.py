"""A vendor's installation on simulated time: webhooks, look-ups, jobs, and a daily reconciliation over HTTP."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any

from sqlalchemy import event, select, update

from handlers import HANDLERS
from pipeline.billing.reminders import ReminderPolicy
from pipeline.db.models import Mail, PaypalLookup
from pipeline.inbox import lookup_fetcher
from pipeline.inbox import store as inbox
from pipeline.inbox.lookup_fetcher import PaypalReader
from pipeline.paypal.api import PaypalApi
from pipeline.paypal.errors import PaypalNotFoundError
from pipeline.paypal.requests import LookupKind
from pipeline.reconciliation.run import Reconciliation, ReconciliationResult
from pipeline.scheduler.core_jobs import core_jobs
from pipeline.simulator.server.api import FakePaypalApi
from pipeline.simulator.timeline import Delivery
from pipeline.simulator.world import PaypalState
from tests.support.pipeline_under_test import PipelineUnderTest, delivery

SETTLE = timedelta(seconds=7)  # longer than the delay of a re-read
MOST_ROUNDS = 12  # of look-ups and their events after each step
CLIENT, SECRET = "simulator", "simulator-secret"


class WorldReader:
    """Look-ups without HTTP, for runs with very many of them."""

    def __init__(self, world: PaypalState) -> None:
        self._world = world

    def get(self, kind: LookupKind, id: str) -> dict[str, Any]:
        found = self._world.show(kind, id)
        if found is None:
            raise PaypalNotFoundError(f"no {kind} {id}")
        return found


class Vendor(AbstractContextManager["Vendor"]):
    """One installation and its simulated PayPal. `requested` are the look-ups that a reconciliation asked for."""

    def __init__(self, pipeline: PipelineUnderTest, *, http_lookups: bool) -> None:
        self.pipeline, self.world = pipeline, PaypalState()
        # The run simulates no power failure, so nothing is synced to disk.
        event.listen(pipeline.database.engine, "connect", lambda each, _: each.execute("PRAGMA synchronous=OFF"))
        self.fake = FakePaypalApi(self.world, clock=pipeline.clock)
        self.requested: dict[tuple[str, str], list[tuple[datetime, str]]] = {}
        self._stack, self._http_lookups = ExitStack(), http_lookups
        self._worker = pipeline.worker(HANDLERS, may_read=True)
        self._jobs = core_jobs(
            pipeline.database, pipeline.master, pipeline.clock, reminders=ReminderPolicy(), may_read=True, operator=""
        )

    def __enter__(self) -> "Vendor":
        self._api = PaypalApi(self._stack.enter_context(self.fake.serve()), CLIENT, SECRET)
        self._stack.callback(self._api.close)
        self._reader: PaypalReader = self._api if self._http_lookups else WorldReader(self.world)
        self._reconciliation = Reconciliation(
            self.pipeline.database, self.pipeline.master, self.pipeline.clock, self._api
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def receive(self, arrived: Sequence[Delivery]) -> None:
        """Store webhooks that arrived and do the work that follows. Mails that became due count as sent."""
        if arrived:
            stored = self.pipeline.store(*(delivery(each.body) for each in arrived))
            self._worker.handle([item.event_id for item in stored if item.publish])
        self.work()

    def work(self) -> None:
        """Run the jobs, make the due look-ups and handle the due events, until nothing is due."""
        for job in self._jobs:
            while job.run() >= 500:  # reminders are queued in groups
                pass
        for _ in range(MOST_ROUNDS):
            self.pipeline.clock.advance(SETTLE)
            if not self._look_up() + self._handle_due():
                break
        self._send_mails()

    def reconcile(self) -> ReconciliationResult:
        """Run one reconciliation and the work that follows."""
        result = self._reconciliation.run()
        self._record_requests()
        self.work()
        return result

    def _look_up(self) -> int:
        pipeline = self.pipeline
        ids = lookup_fetcher.fetch_due(pipeline.database, pipeline.master, pipeline.clock, self._reader, limit=500)
        self._worker.handle(ids)
        return len(ids)

    def _handle_due(self) -> int:
        with self.pipeline.database.transaction() as session:
            due = inbox.lease_due(session, self.pipeline.now, 500)
        self._worker.handle(due)
        return len(due)

    def _send_mails(self) -> None:
        now = self.pipeline.now
        with self.pipeline.database.transaction() as session:
            due = Mail.state == "queued", Mail.due_at <= now
            session.execute(update(Mail).where(*due).values(state="sent", due_at=None, sent_at=now))

    def _record_requests(self) -> None:
        now = self.pipeline.now
        with self.pipeline.database.reading() as session:
            new = select(PaypalLookup.kind, PaypalLookup.id).where(PaypalLookup.requested_at == now)
            rows = list(session.execute(new))
        for kind, id in rows:
            part = "subscriptions" if kind == "subscription" else "disputes" if kind == "dispute" else "money"
            self.requested.setdefault((kind, id), []).append((now, part))
