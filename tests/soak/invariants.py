"""Invariants of the tables and the relay: some hold at any moment, others when no work is left.

Each check raises AssertionError with a sentence. The expected result comes from the same events, handled once and in
order without faults.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import select, true

from pipeline.clock import format_time
from pipeline.db.models import Event, Mail, Payment, PaypalLookup, Plan, Refund, StatusHistoryEntry, Subscription
from pipeline.inbox.lookups import waiting_reason
from pipeline.mailer.relay_log import envelope_sender_of
from pipeline.outbox.store import DELAYS
from pipeline.simulator.world import PaypalState
from tests.chaos import load
from tests.soak.fake_peers import unknown_ids
from tests.soak.single_process import SimulatedHost
from tests.soak.unknown_events import is_conflicting_copy
from tests.support.event_histories import NOT_COMPARED, Json, OrderedReplay, Outcome
from tests.support.outbox_fixtures import SENDER

# These differ between two databases: times of receipt, dates of look-ups before reminders, and keyed hashes.
DATABASE_SPECIFIC = {*NOT_COMPARED, "email_hash", "asked_before", "customer_id", "custom_ref", "payer_ref"}
NEVER_SUPERSEDED = ("receipt", "refund_receipt")  # These are sent however late.
FINAL = ("CANCELLED", "EXPIRED")
_ADDRESS = re.compile(r"[\w.+-]+@[\w.-]+")
Rows = dict[str, dict[str, Any]]


class Invariants:
    """Checks one host. Remembers which subscriptions have ended and when each event was handled."""

    def __init__(self, host: SimulatedHost, replay: OrderedReplay) -> None:
        self._host, self._replay = host, replay
        self._ended: set[str] = set()
        self._done: dict[str, datetime | None] = {}

    # At any moment

    def hold(self, accepted: Iterable[str]) -> None:
        events = {row.id for row in self._look(Event.id)}
        mails = self._look(Mail.id, Mail.idempotency_key, Mail.state, Mail.reason)
        self._check_effects_are_atomic()
        self._check_events_are_handled_once()
        missing = set(accepted) - events
        assert not missing, f"answered 200, but not in the table: {missing}"
        self._check_mails(mails)
        self._check_statuses()
        unknown = unknown_ids(self._host.broker.published, events | {row.id for row in mails})
        assert not unknown, f"published to the broker, but no id of an event or mail: {unknown}"
        self._host.broker.published.clear()

    def _check_mails(self, mails: Sequence[Any]) -> None:
        delivered = self._host.postfix.delivered
        twice = {sender for sender, count in delivered.items() if count > 1}
        assert not twice, f"delivered more than once: {twice}"
        unknown = delivered.keys() - {sender(row) for row in mails}
        assert not unknown, f"delivered, but in no row: {unknown}"
        for row in mails:
            there = delivered[sender(row)]
            assert there or row.state != "sent", (
                f"{row.idempotency_key} has the state sent, but the relay never accepted it"
            )
            unsent = row.state in ("queued", "failed", "withheld")
            assert not (there and unsent), f"{row.idempotency_key} was delivered and is {row.state}: {row.reason}"

    def _check_statuses(self) -> None:
        now = {row.id for row in self._look(Subscription.id, Subscription.status) if row.status in FINAL}
        assert self._ended <= now, f"no longer in their final status: {self._ended - now}"
        self._ended = now
        moves = Counter(
            map(
                tuple,
                self._look(
                    StatusHistoryEntry.subscription_id, StatusHistoryEntry.event_id, StatusHistoryEntry.new_status
                ),
            )
        )
        twice = [move for move, count in moves.items() if count > 1]
        assert not twice, f"a status change is in the history twice: {twice}"
        back = [
            row
            for row in self._look(
                StatusHistoryEntry.subscription_id, StatusHistoryEntry.old_status, StatusHistoryEntry.new_status
            )
            if _is_back(row.old_status, row.new_status)
        ]
        assert not back, f"the history has a change from a final status: {back}"

    def _check_effects_are_atomic(self) -> None:
        """Check that the effects of an event are committed together with its state."""
        waiting = {row.id for row in self._look(Event.id, where=Event.state == "received")}
        early = waiting & {row.event_id for row in self._look(StatusHistoryEntry.event_id)}
        assert not early, f"have effects, but are not handled: {early}"

    def _check_events_are_handled_once(self) -> None:
        done = {row.id: row.done_at for row in self._look(Event.id, Event.done_at, where=Event.state == "handled")}
        again = {id for id, at in self._done.items() if done.get(id) != at}
        assert not again, f"handled again, or no longer handled: {again}"
        self._done = done

    def check_state_follows_from_events(self, events: Mapping[str, Json]) -> Outcome:
        """Check that the rows depend only on the handled events: a replay in order without faults gives the same rows."""
        handled = [row.id for row in self._look(Event.id, where=Event.state == "handled")]
        expected = self._replay.tell([[self._as_stored(events[id]) for id in handled]]) if handled else self._nothing()
        found, wanted = self._state(), _comparable(expected.rows)
        assert found.keys() == wanted.keys(), f"the rows differ: {found.keys() ^ wanted.keys()}"
        for name in found:
            differ = {field for field in found[name] if found[name][field] != wanted[name][field]}
            values = [(field, found[name][field], wanted[name][field]) for field in sorted(differ)]
            assert not differ, f"{name}: found and expected values differ: {values}"
        return expected

    # When no work is left

    def hold_at_rest(self, events: Mapping[str, Json], world: PaypalState, unknown: Mapping[str, str]) -> None:
        """Check everything when no work is left. `unknown` has the required final state of each unknown event."""
        undone = [
            f"{row.id} {row.state}: {row.reason}"
            for row in self._look(Event.id, Event.state, Event.reason)
            if row.state != unknown.get(row.id, "parked" if is_conflicting_copy(row.id) else "handled")
        ]
        assert not undone, f"accepted, but not in the required final state: {undone}"
        expected = self.check_state_follows_from_events(events)
        self._check_money(world)
        self._check_access(events, expected)
        self._check_all_mails(expected)
        self._check_addresses_are_encrypted(events.values())

    def _check_money(self, world: PaypalState) -> None:
        booked = {row.id: row for row in self._rows(Payment)}
        sales = load.sales(world)
        assert booked.keys() == sales.keys(), f"PayPal's sales and the payments differ: {booked.keys() ^ sales.keys()}"
        for id, row in booked.items():
            state = "refunded" if row.status == "reversed" else row.status
            found = (row.subscription_id, row.amount, row.currency, state, row.refunded)
            sale = sales[id]
            wanted = (sale.subscription, sale.money.amount, sale.money.currency, sale.state, sale.refunded)
            assert found == wanted, f"payment {id} is {found}, but PayPal has {wanted}"
        refunds = {row.id for row in self._rows(Refund)}
        assert refunds == set(world.ids("refund")), "PayPal's refunds and the booked refunds differ"
        found_statuses = {row.id: row.status for row in self._rows(Subscription)}
        assert found_statuses == load.statuses(world), f"a status differs from PayPal's: {found_statuses}"

    def _as_stored(self, event: Json) -> Json:
        """Return the event with the time of the look-up that stored it: the same answer may have been read again."""
        if "read_at" not in event:
            return event
        [(read_at,)] = self._look(Event.occurred_at, where=Event.id == event["id"])
        return event | {"read_at": format_time(read_at)}

    def _check_access(self, events: Mapping[str, Json], expected: Outcome) -> None:
        """Check that a cancellation does not shorten access: without it, the paid-through date is the same."""
        handled = [events[row.id] for row in self._look(Event.id, where=Event.state == "handled")]
        staying = self._replay.tell([[event for event in handled if not event["event_type"].endswith(FINAL)]])
        for name, row in staying.rows.items():
            ended = expected.rows[name]
            assert row.get("paid_through") == ended.get("paid_through"), (
                f"{name}: its end changed the paid-through date"
            )

    def _check_addresses_are_encrypted(self, events: Iterable[Json]) -> None:
        """Check that the database files contain no e-mail address in plain text."""
        people = {word.encode() for event in events for word in _ADDRESS.findall(orjson.dumps(event).decode())}
        files = b"".join(path.read_bytes() for path in self._host.folder.glob("smt-billing.db*"))
        assert people, "the events contain no address, so the search proves nothing"
        clear = sorted(person for person in people if person in files)
        assert not clear, f"in plain text in the database: {clear}"

    def _check_all_mails(self, expected: Outcome) -> None:
        mails = {row.idempotency_key: row for row in self._rows(Mail)}
        keys = {key for key, row in mails.items() if row.kind != "renewal_reminder"}
        assert keys == expected.mails.keys(), f"mails differ from the expected ones: {keys ^ expected.mails.keys()}"
        for row in mails.values():
            self._check_mail(row)

    def _check_mail(self, row: Mail) -> None:
        match row.state:
            case "sent":
                accepted = self._host.postfix.delivered[sender(row)]
                assert accepted == 1, f"{row.idempotency_key} has the state sent, but was accepted {accepted} times"
            case "failed":
                refused = (row.relay_reply or "").startswith("5") or row.attempts > len(DELAYS)
                assert refused, f"{row.idempotency_key} failed, but the relay did not refuse it: {row.reason}"
            case "withheld":
                superseded = (row.reason or "").startswith("superseded")
                assert superseded, f"{row.idempotency_key} is withheld: {row.reason}"
                assert row.kind not in NEVER_SUPERSEDED, (
                    f"{row.idempotency_key} is withheld, but receipts must always be sent"
                )
            case _:
                raise AssertionError(f"{row.idempotency_key} is still {row.state}: {row.reason}")

    # Rows

    def next_due(self) -> list[datetime]:
        """Return the due times of events and mails. Events that wait for a look-up are covered by `lookups_due`."""
        asked = [waiting_reason(row.kind, row.id) for row in self._rows(PaypalLookup) if row.due_at]
        waits = Event.reason.is_(None) | Event.reason.not_in(asked)
        events = self._look(Event.due_at, where=(Event.state == "received") & waits)
        mails = self._look(Mail.due_at, where=Mail.state.in_(("queued", "doubt")))
        return [row.due_at for row in (*events, *mails) if row.due_at]

    def remaining_work(self) -> list[str]:
        """Return the waiting events, mails and look-ups with their reasons."""
        events = [f"{row.id} {row.reason} {row.due_at}" for row in self._rows(Event) if row.state == "received"]
        mails = self._look(
            Mail.idempotency_key, Mail.state, Mail.reason, Mail.due_at, where=Mail.state.in_(("queued", "doubt"))
        )
        return [*events, *map(str, mails), *(f"{row.kind} {row.id} {row.due_at}" for row in self._rows(PaypalLookup))]

    def reminders_due(self) -> list[datetime]:
        return [row.remind_at for row in self._look(Subscription.remind_at) if row.remind_at]

    def lookups_due(self) -> list[datetime]:
        """Return the due times of the look-ups."""
        return [row.due_at for row in self._look(PaypalLookup.due_at) if row.due_at]

    def _state(self) -> Rows:
        return _comparable(
            {
                f"{table.__tablename__} {row.id}": {
                    column.name: getattr(row, column.name) for column in row.__table__.columns
                }
                for table in (Subscription, Payment, Refund, Plan)
                for row in self._rows(table)
            }
        )

    def _nothing(self) -> Outcome:
        return Outcome({}, {}, set())

    def _look(self, *columns: Any, where: Any = None) -> Sequence[Any]:
        """Select some columns of all rows, which is faster than whole rows."""
        with self._host.watcher.reading() as session:
            return session.execute(select(*columns).where(true() if where is None else where)).all()

    def _rows(self, table: type[Any]) -> list[Any]:
        with self._host.watcher.reading() as session:
            return list(session.execute(select(table)).scalars())


def sender(row: Mail) -> str:
    """Return the envelope sender of a mail, which identifies it in the relay's log."""
    return envelope_sender_of(row.id, SENDER.envelope_domain)


def _is_back(old: str | None, new: str) -> bool:
    return old in FINAL and new not in FINAL


def _comparable(rows: Rows) -> Rows:
    return {
        name: _without(row, DATABASE_SPECIFIC) | {"known": _without(row["known"], DATABASE_SPECIFIC)}
        for name, row in rows.items()
    }


def _without(row: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in names}
