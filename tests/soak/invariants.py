"""The promises, as a look into the tables and at the relay: those that hold at any moment, and those at rest.

Each raises AssertionError with a sentence. What PayPal told, once and in its order to a river in calm, is the measure.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import select, true

from pipeline.db.models import Event, Mail, Payment, PaypalLookup, Plan, Refund, StatusHistoryEntry, Subscription
from pipeline.inbox.lookups import waiting_reason
from pipeline.mailer.relay_log import envelope_sender_of
from pipeline.outbox.store import DELAYS
from pipeline.simulator.world import PaypalState
from tests.chaos import load
from tests.soak.fake_peers import only_ids
from tests.soak.single_process import SimulatedHost
from tests.soak.unknown_events import is_beside
from tests.support.event_histories import NOT_COMPARED, Json, OrderedReplay, Outcome
from tests.support.outbox_fixtures import SENDER

# When we learned of it, for which date we asked before a reminder, and hashes with keys of one database.
OUR_OWN = {*NOT_COMPARED, "email_hash", "asked_before", "customer_id", "custom_ref", "payer_ref"}
NEVER_OVERTAKEN = ("receipt", "refund_receipt")  # however late
FINAL = ("CANCELLED", "EXPIRED")
_ADDRESS = re.compile(r"[\w.+-]+@[\w.-]+")
Rows = dict[str, dict[str, Any]]


class Invariants:
    """Watches one harbour. Remembers which subscriptions were seen at their end, and when each event was handled."""

    def __init__(self, harbour: SimulatedHost, shore: OrderedReplay) -> None:
        self._harbour, self._shore = harbour, shore
        self._ended: set[str] = set()
        self._done: dict[str, datetime | None] = {}

    # At any moment

    def hold(self, accepted: Iterable[str]) -> None:
        events = {row.id for row in self._look(Event.id)}
        mails = self._look(Mail.id, Mail.idempotency_key, Mail.state, Mail.reason)
        self._effects_come_with_their_mark()
        self._what_is_handled_is_handled_once()
        missing = set(accepted) - events
        assert not missing, f"answered 200 and not in the table: {missing}"
        self._hold_of_mails(mails)
        self._hold_of_statuses()
        strangers = only_ids(self._harbour.broker.published, events | {row.id for row in mails})
        assert not strangers, f"on the broker, and no id of ours: {strangers}"
        self._harbour.broker.published.clear()

    def _hold_of_mails(self, mails: Sequence[Any]) -> None:
        delivered = self._harbour.postfix.delivered
        twice = {sender for sender, count in delivered.items() if count > 1}
        assert not twice, f"delivered more than once: {twice}"
        unknown = delivered.keys() - {sender(row) for row in mails}
        assert not unknown, f"delivered, and in no row: {unknown}"
        for row in mails:
            there = delivered[sender(row)]
            assert there or row.state != "sent", (
                f"{row.idempotency_key} is sent by its row, and the relay never took it"
            )
            waits = row.state in ("queued", "failed", "withheld")
            assert not (there and waits), f"{row.idempotency_key} was delivered and is {row.state}: {row.reason}"

    def _hold_of_statuses(self) -> None:
        now = {row.id for row in self._look(Subscription.id, Subscription.status) if row.status in FINAL}
        assert self._ended <= now, f"came back from their end: {self._ended - now}"
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
        assert not twice, f"a move is in the history twice: {twice}"
        back = [
            row
            for row in self._look(
                StatusHistoryEntry.subscription_id, StatusHistoryEntry.old_status, StatusHistoryEntry.new_status
            )
            if _is_back(row.old_status, row.new_status)
        ]
        assert not back, f"the history tells of ways back from an end: {back}"

    def _effects_come_with_their_mark(self) -> None:
        """What an event did and that it is handled are committed together."""
        waiting = {row.id for row in self._look(Event.id, where=Event.state == "received")}
        early = waiting & {row.event_id for row in self._look(StatusHistoryEntry.event_id)}
        assert not early, f"they did something, and are still to be handled: {early}"

    def _what_is_handled_is_handled_once(self) -> None:
        done = {row.id: row.done_at for row in self._look(Event.id, Event.done_at, where=Event.state == "handled")}
        again = {id for id, at in self._done.items() if done.get(id) != at}
        assert not again, f"handled again, or to be handled again: {again}"
        self._done = done

    def books_follow_from_what_was_handled(self, told: Mapping[str, Json]) -> Outcome:
        """The books are a function of the handled facts alone: told those, a river in calm comes to the same rows."""
        handled = [row.id for row in self._look(Event.id, where=Event.state == "handled")]
        calm = self._shore.tell([[told[id] for id in handled]]) if handled else self._nothing()
        found, wanted = self._books(), _comparable(calm.rows)
        assert found.keys() == wanted.keys(), f"rows of the books differ: {found.keys() ^ wanted.keys()}"
        for name in found:
            differ = {field for field in found[name] if found[name][field] != wanted[name][field]}
            told_so = [(field, found[name][field], wanted[name][field]) for field in sorted(differ)]
            assert not differ, f"{name}: found and in calm differ: {told_so}"
        return calm

    # At rest

    def hold_at_rest(self, told: Mapping[str, Json], world: PaypalState, strange: Mapping[str, str]) -> None:
        """`strange` is what nobody understands: each in the state it has to end in, and seen there."""
        undone = [
            f"{row.id} {row.state}: {row.reason}"
            for row in self._look(Event.id, Event.state, Event.reason)
            if row.state != strange.get(row.id, "parked" if is_beside(row.id) else "handled")
        ]
        assert not undone, f"accepted and not as it has to end: {undone}"
        calm = self.books_follow_from_what_was_handled(told)
        self._hold_of_money(world)
        self._hold_of_access(told, calm)
        self._hold_of_owed(calm)
        self._nobody_can_be_read(told.values())

    def _hold_of_money(self, world: PaypalState) -> None:
        booked = {row.id: row for row in self._rows(Payment)}
        sales = load.sales(world)
        assert booked.keys() == sales.keys(), f"sales told and sales booked differ: {booked.keys() ^ sales.keys()}"
        for id, row in booked.items():
            state = "refunded" if row.status == "reversed" else row.status
            found = (row.subscription_id, row.amount, row.currency, state, row.refunded)
            sale = sales[id]
            wanted = (sale.subscription, sale.money.amount, sale.money.currency, sale.state, sale.refunded)
            assert found == wanted, f"payment {id} is {found}, and PayPal told {wanted}"
        given = {row.id for row in self._rows(Refund)}
        assert given == set(world.ids("refund")), "refunds told and refunds booked differ"
        found_statuses = {row.id: row.status for row in self._rows(Subscription)}
        assert found_statuses == load.statuses(world), f"a status differs from PayPal's: {found_statuses}"

    def _hold_of_access(self, told: Mapping[str, Json], calm: Outcome) -> None:
        """Who leaves keeps what is paid: where no end is told of, access lasts no longer."""
        handled = [told[row.id] for row in self._look(Event.id, where=Event.state == "handled")]
        staying = self._shore.tell([[event for event in handled if not event["event_type"].endswith(FINAL)]])
        for name, row in staying.rows.items():
            left = calm.rows[name]
            assert row.get("paid_through") == left.get("paid_through"), f"{name} has another access for having left"

    def _nobody_can_be_read(self, told: Iterable[Json]) -> None:
        """What lies in the database's files names nobody."""
        people = {word.encode() for event in told for word in _ADDRESS.findall(orjson.dumps(event).decode())}
        files = b"".join(path.read_bytes() for path in self._harbour.folder.glob("smt-billing.db*"))
        assert people, "nobody was told of: this look would find nothing"
        clear = sorted(person for person in people if person in files)
        assert not clear, f"in clear in the database: {clear}"

    def _hold_of_owed(self, calm: Outcome) -> None:
        mails = {row.idempotency_key: row for row in self._rows(Mail)}
        news = {key for key, row in mails.items() if row.kind != "renewal_reminder"}
        assert news == calm.mails.keys(), f"mails owed differ from those in calm: {news ^ calm.mails.keys()}"
        for row in mails.values():
            self._hold_of_one(row)

    def _hold_of_one(self, row: Mail) -> None:
        match row.state:
            case "sent":
                taken = self._harbour.postfix.delivered[sender(row)]
                assert taken == 1, f"{row.idempotency_key} is sent by its row and was taken {taken} times"
            case "failed":
                refused = (row.relay_reply or "").startswith("5") or row.attempts > len(DELAYS)
                assert refused, f"{row.idempotency_key} failed, and the relay did not refuse it: {row.reason}"
            case "withheld":
                superseded = (row.reason or "").startswith("superseded")
                assert superseded, f"{row.idempotency_key} is withheld: {row.reason}"
                assert row.kind not in NEVER_OVERTAKEN, (
                    f"{row.idempotency_key} is withheld, and money is always told of"
                )
            case _:
                raise AssertionError(f"{row.idempotency_key} is {row.state} at rest: {row.reason}")

    # Rows

    def next_due(self) -> list[datetime]:
        """The moments for which something was put off. What waits for PayPal's answer waits for `questions_due`."""
        asked = [waiting_reason(row.kind, row.id) for row in self._rows(PaypalLookup) if row.due_at]
        waits = Event.reason.is_(None) | Event.reason.not_in(asked)
        events = self._look(Event.due_at, where=(Event.state == "received") & waits)
        mails = self._look(Mail.due_at, where=Mail.state.in_(("queued", "doubt")))
        return [row.due_at for row in (*events, *mails) if row.due_at]

    def unrest(self) -> list[str]:
        """What is put off, and why."""
        events = [f"{row.id} {row.reason} {row.due_at}" for row in self._rows(Event) if row.state == "received"]
        mails = self._look(
            Mail.idempotency_key, Mail.state, Mail.reason, Mail.due_at, where=Mail.state.in_(("queued", "doubt"))
        )
        return [*events, *map(str, mails), *(f"{row.kind} {row.id} {row.due_at}" for row in self._rows(PaypalLookup))]

    def reminders_due(self) -> list[datetime]:
        return [row.remind_at for row in self._look(Subscription.remind_at) if row.remind_at]

    def questions_due(self) -> list[datetime]:
        """When PayPal is to be asked what."""
        return [row.due_at for row in self._look(PaypalLookup.due_at) if row.due_at]

    def _books(self) -> Rows:
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
        """Some columns of all rows: quicker than the rows."""
        with self._harbour.watcher.reading() as session:
            return session.execute(select(*columns).where(true() if where is None else where)).all()

    def _rows(self, table: type[Any]) -> list[Any]:
        with self._harbour.watcher.reading() as session:
            return list(session.execute(select(table)).scalars())


def sender(row: Mail) -> str:
    """The envelope sender of a mail, by which the relay's log and ours speak of it."""
    return envelope_sender_of(row.id, SENDER.envelope_domain)


def _is_back(old: str | None, new: str) -> bool:
    return old in FINAL and new not in FINAL


def _comparable(rows: Rows) -> Rows:
    return {name: _without(row, OUR_OWN) | {"known": _without(row["known"], OUR_OWN)} for name, row in rows.items()}


def _without(row: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in names}
