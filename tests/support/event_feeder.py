"""`EventFeeder` feeds PayPal events to the pipeline (parser, inbox, worker, as in production) and shows the resulting rows.

feeder.tell(sample("BILLING.SUBSCRIPTION.ACTIVATED"))
feeder.work()
assert feeder.subscription(ALICE).status == "ACTIVE"
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson

from handlers import HANDLERS
from pipeline.clock import MovableClock, parse_time
from pipeline.db import lww_map
from pipeline.db.models import Event, Mail, Payment, PaypalLookup, Plan, Refund, StatusHistoryEntry, Subscription
from pipeline.inbox import lookup_fetcher
from pipeline.inbox import store as inbox
from pipeline.paypal.errors import PaypalNotFoundError
from pipeline.paypal.requests import LookupKind
from pipeline.worker.worker import Worker
from tests.support.example_people import Person
from tests.support.pipeline_under_test import PipelineUnderTest, delivery

ON_THE_WAY = timedelta(seconds=3)  # From an event's creation at PayPal to its receipt.
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Told:
    """A mail of the outbox with decrypted facts."""

    kind: str
    key: str
    state: str
    reason: str | None
    due: bool
    facts: dict[str, Any]


def _newest_time(event: dict[str, Any]) -> datetime:
    """Return when PayPal created the event, or changed its object last."""
    resource = event.get("resource") or {}
    texts = (event.get("create_time"), resource.get("create_time"), resource.get("update_time"))
    return max((moment for moment in map(parse_time, texts) if moment), default=LONG_AGO)


class EventFeeder:
    """Store events, run the worker, and show the rows. `knows` has PayPal's answers; None means no API credentials."""

    def __init__(
        self, pipeline: PipelineUnderTest, knows: dict[tuple[LookupKind, str], dict[str, Any]] | None = None
    ) -> None:
        self.pipeline, self.knows, self._may_read = pipeline, knows or {}, knows is not None
        self._worker = self.worker()
        self._published: list[str] = []

    def worker(self) -> Worker:
        return self.pipeline.worker(HANDLERS, may_read=self._may_read)

    # Input

    def tell(self, *events: dict[str, Any], at: str = "") -> None:
        """Store events `at` this time, or three seconds after the newest of their times. The clock never goes back."""
        for event in events:
            written = parse_time(at) or _newest_time(event) + ON_THE_WAY
            self.pipeline.clock.move_to(max(self.pipeline.now, written))
            self._published += [item.event_id for item in self.pipeline.store(delivery(event)) if item.publish]

    def work(self, batch: int = 100) -> None:
        """Handle the published events, `batch` per transaction, and then the due ones."""
        ids, self._published = self._published, []
        for start in range(0, len(ids), batch):
            self._worker.handle(ids[start : start + batch])
        while ids := self._due():
            self._worker.handle(ids)

    def hear(self, *events: dict[str, Any], at: str = "") -> None:
        """Store and handle the events one by one."""
        for event in events:
            self.tell(event, at=at)
            self.work()

    def ask(self, after: timedelta = timedelta(0)) -> None:
        """Advance the clock, run the due look-ups, and handle the answers and the events that wait for them."""
        self.pipeline.clock.advance(after)
        pipeline = self.pipeline
        self._published += lookup_fetcher.fetch_due(pipeline.database, pipeline.master, pipeline.clock, self)
        self.work()
        pipeline.clock.advance(timedelta(seconds=2))
        self.work()

    def get(self, kind: LookupKind, id: str) -> dict[str, Any]:
        """Answer a look-up like PayPal's API. Raises PaypalNotFoundError."""
        if (kind, id) not in self.knows:
            raise PaypalNotFoundError(f"PayPal knows no {kind} {id}")
        return self.knows[kind, id]

    def _due(self) -> list[str]:
        with self.pipeline.database.transaction() as session:
            return inbox.lease_due(session, self.pipeline.now, 500)

    # Output

    def subscription(self, person: Person) -> Subscription:
        return next(row for row in self.pipeline.rows(Subscription) if row.id == person.subscription)

    def subscriptions(self) -> list[str]:
        return [row.id for row in self.pipeline.rows(Subscription)]

    def known(self, person: Person) -> dict[str, Any]:
        """Return the decrypted personal data of the subscriber."""
        row = self.subscription(person)
        with self.pipeline.database.transaction() as session:
            key = self.pipeline.keyring(session).get(row.id)
            known = (key and key.decrypt_json("subscription.personal_data", row.personal_data)) or {}
        return {field: lww_map.value(known, field) for field in known}

    def payments(self) -> dict[str, Payment]:
        return {row.id: row for row in self.pipeline.rows(Payment)}

    def refunds(self) -> dict[str, Refund]:
        return {row.id: row for row in self.pipeline.rows(Refund)}

    def plans(self) -> dict[str, Plan]:
        return {row.id: row for row in self.pipeline.rows(Plan)}

    def moves(self) -> list[tuple[str | None, str]]:
        return [(row.old_status, row.new_status) for row in self.pipeline.rows(StatusHistoryEntry)]

    def questions(self) -> list[tuple[str, str]]:
        """Return the kind and id of every pending look-up."""
        return [(row.kind, row.id) for row in self.pipeline.rows(PaypalLookup)]

    def states(self) -> list[str]:
        """Return the state of every event, ordered by event id."""
        return [row.state for row in self.pipeline.rows(Event)]

    def facts(self) -> list[dict[str, Any]]:
        """Return the facts of every event, ordered by event id."""
        return [row.facts for row in self.pipeline.rows(Event)]

    def reasons(self) -> list[str]:
        """Return the reasons of the events that wait or are parked."""
        return [row.reason for row in self.pipeline.rows(Event) if row.reason]

    def mails(self) -> dict[str, Told]:
        """Return every mail by its idempotency key."""
        rows = self.pipeline.rows(Mail)
        with self.pipeline.database.transaction() as session:
            keyring = self.pipeline.keyring(session)
            facts = {
                row.idempotency_key: keyring.system_key(row.key_id).decrypt_json("mail.facts", row.facts)
                for row in rows
            }
        mails = [
            Told(
                row.kind, row.idempotency_key, row.state, row.reason, row.due_at is not None, facts[row.idempotency_key]
            )
            for row in rows
        ]
        return {mail.key: mail for mail in mails}

    def mail(self, kind: str) -> Told:
        """Return the only mail of that kind."""
        (mail,) = [mail for mail in self.mails().values() if mail.kind == kind]
        return mail

    def owed(self) -> list[str]:
        """Return the kinds of the queued mails."""
        return sorted(mail.kind for mail in self.mails().values() if mail.state == "queued")


@contextmanager
def in_memory(folder: Path, start: datetime = LONG_AGO) -> Iterator[EventFeeder]:
    """Yield an EventFeeder on an in-memory database, for tests with many examples."""
    pipeline = PipelineUnderTest("sqlite:///:memory:", folder, MovableClock(start))
    try:
        yield EventFeeder(pipeline)
    finally:
        pipeline.database.close()


def facts_of(event: dict[str, Any]) -> dict[str, Any]:
    """Return the facts of an event as a handler sees them, without a database."""
    return delivery(orjson.dumps(event)).parsed.facts


def at(text: str) -> datetime:
    """Parse a time such as `2026-03-24T10:00Z`."""
    return datetime.fromisoformat(text)
