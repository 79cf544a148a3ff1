"""Checks after a chaos run, when no work is left. Each violation is a sentence with the affected ids."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from pipeline.broker import Broker
from pipeline.db.models import Event, Mail, Payment, PaypalLookup, Refund, StatusHistoryEntry, Subscription
from tests.chaos import load as loads
from tests.chaos.environment import Stage
from tests.chaos.load import Expected, Load

_MESSAGE_ID = re.compile(rb"(?mi)^message-id:\s*<([^>]+)>")
_QUEUE_ID = re.compile(rb"(?m)^Received:[^\n]*(?:\n[ \t][^\n]*)*? id ([0-9A-Za-z]+)")
# Longer than `lookup_fetcher.LEASE`, after which the look-up of a dead process is repeated. Later look-ups are planned.
LOOKUP_LEASE = timedelta(seconds=130)
LATER = timedelta(hours=2)  # Planned look-ups are due within an hour. A later one comes from a clock that was ahead.
MAX_LISTED = 5  # Rows that a violation lists.


def waiting(session: Session, now: datetime) -> dict[str, int]:
    """Count the remaining work by kind, in one query. Empty if no work is left."""
    counts = {
        "events received": select(func.count()).select_from(Event).where(Event.state == "received"),
        "mails queued": select(func.count()).select_from(Mail).where(Mail.state == "queued", Mail.due_at.is_not(None)),
        "mails sending": select(func.count()).select_from(Mail).where(Mail.state == "sending"),
        "mails in doubt": select(func.count()).select_from(Mail).where(Mail.state == "doubt"),
        "look-ups": select(func.count()).select_from(PaypalLookup).where(PaypalLookup.due_at <= now + LOOKUP_LEASE),
    }
    found = session.execute(select(*(count.scalar_subquery() for count in counts.values()))).one()
    return {name: number for name, number in zip(counts, found, strict=True) if number}


def bring_forward(session: Session) -> None:
    """Make everything due now that waits for a retry or lease, or that a clock that was ahead has scheduled."""
    now = datetime.now(UTC)  # noqa: TID251 - the roles read the machine's clock
    moments = {"now": now, "soon": now + LOOKUP_LEASE, "later": now + LATER}
    values = {name: _bare(session, moment) for name, moment in moments.items()}
    for change in (
        "event SET due_at = :now WHERE state = 'received' AND due_at > :now",
        "mail SET due_at = :now WHERE state = 'queued' AND due_at > :now",
        "mail SET due_at = :now, claimed_at = :now WHERE state = 'doubt' AND (due_at > :later OR claimed_at > :soon)",
        "paypal_lookup SET requested_at = :now WHERE requested_at > :later",
        "paypal_lookup SET due_at = :now WHERE due_at > :now AND (due_at < :soon OR due_at > :later)",
    ):
        used = {name: value for name, value in values.items() if f":{name}" in change}
        session.execute(text(f"UPDATE {change}"), used)


def _bare(session: Session, moment: datetime) -> Any:
    return moment if session.get_bind().dialect.name != "sqlite" else moment.strftime("%Y-%m-%d %H:%M:%S.%f")


class StageCheck:
    """Check of one stage when no work is left. `violations` is empty if every check passed."""

    def __init__(self, stage: Stage, load: Load, expected: Expected, accepted: Iterable[str]) -> None:
        self.violations: list[str] = []
        self.lost = self.effects = self.mails = 0  # Numbers of lost events, duplicate effects and duplicate mails.
        self._stage, self._load, self._expected, self._accepted = stage, load, expected, set(accepted)
        with stage.database.reading() as session:
            self._events(session)
            self._money(session)
            self._access(session)
            self._post(session)
        self._dead_letters()

    def _add_violation(self, what: str, found: Iterable[object]) -> int:
        listed = sorted(map(str, found))
        if listed:
            more = f" and {len(listed) - MAX_LISTED} more" if len(listed) > MAX_LISTED else ""
            self.violations.append(f"{what}: {', '.join(listed[:MAX_LISTED])}{more}")
        return len(listed)

    def _events(self, session: Session) -> None:
        rows = session.execute(select(Event.id, Event.state, Event.reason).where(Event.source == "webhook")).all()
        states = {row.id: row.state for row in rows}
        self._add_violation("never answered 200", self._load.ids - self._accepted)
        self.lost += self._add_violation("answered 200, but not in the table", self._accepted - states.keys())
        self._add_violation("in the table, but never posted", states.keys() - self._load.ids)
        undone = (f"{row.id} {row.state} {row.reason}" for row in rows if row.state != "handled")
        self.lost += self._add_violation("not handled", undone)
        answers = select(Event.id, Event.state).where(Event.source != "webhook", Event.state != "handled")
        self._add_violation(
            "an answer to a look-up is not handled", (f"{id} {state}" for id, state in session.execute(answers))
        )

    def _money(self, session: Session) -> None:
        actual = loads.sales(self._load.world)
        booked = {row.id: row for row in session.execute(select(Payment)).scalars()}
        self.lost += self._add_violation("a sale is not booked", actual.keys() - booked.keys())
        self.effects += self._add_violation("a payment that PayPal does not have", booked.keys() - actual.keys())
        for id in actual.keys() & booked.keys():
            sale, row = actual[id], booked[id]
            state = "refunded" if row.status == "reversed" else row.status
            found = (row.subscription_id, row.amount, row.currency, state, row.refunded)
            wanted = (sale.subscription, sale.money.amount, sale.money.currency, sale.state, sale.refunded)
            self._add_violation(f"payment {id} is {found}, not {wanted}", [id] if found != wanted else [])
        refunds = session.execute(select(Refund.id)).scalars().all()
        world = self._load.world.ids("refund")
        self.lost += self._add_violation("a refund is not booked", set(world) - set(refunds))
        self.effects += self._add_violation("a refund that PayPal does not have", set(refunds) - set(world))
        paid, wanted_sums = Counter[tuple[Any, ...]](), Counter[tuple[Any, ...]]()
        for row in booked.values():
            if row.status in loads.PAID:
                paid[row.subscription_id, row.currency] += (row.amount or 0) - row.refunded
        for sale in actual.values():
            if sale.state in loads.PAID:
                wanted_sums[sale.subscription, sale.money.currency] += sale.money.amount - sale.refunded
        self._add_violation(
            "the sum of a subscription differs", (key for key in wanted_sums if wanted_sums[key] != paid[key])
        )
        moved = Counter(
            map(
                tuple,
                session.execute(
                    select(
                        StatusHistoryEntry.subscription_id, StatusHistoryEntry.event_id, StatusHistoryEntry.new_status
                    )
                ),
            )
        )
        self.effects += self._add_violation(
            "a status change is in the history twice", (key for key, count in moved.items() if count > 1)
        )

    def _access(self, session: Session) -> None:
        rows = {row.id: row for row in session.execute(select(Subscription)).scalars()}
        actual = loads.statuses(self._load.world)
        self.lost += self._add_violation("a subscription is missing", actual.keys() - rows.keys())
        known = actual.keys() & rows.keys()
        wrong = (f"{id} {rows[id].status}, not {actual[id]}" for id in known if rows[id].status != actual[id])
        self._add_violation("a status differs from PayPal's", wrong)
        paid = {id: rows[id].paid_through for id in known}
        right = {id: [access[id] for access in self._expected.access] for id in known}
        wrong = (f"{id} {paid[id]}, not {right[id][0]}" for id in known if paid[id] not in right[id])
        self._add_violation("a paid-through date differs", wrong)

    def _post(self, session: Session) -> None:
        rows = {row.idempotency_key: row for row in session.execute(select(Mail)).scalars()}
        first, last = self._expected.mails
        self.lost += self._add_violation("a mail was never queued", (first & last) - rows.keys())
        # Reminders depend on the machine's clock, which the expected result did not use.
        queued = {key for key, row in rows.items() if row.kind != "renewal_reminder"}
        self.effects += self._add_violation("an unexpected mail was queued", queued - (first | last))
        unsent = [row for row in rows.values() if row.state not in ("sent", "withheld")]
        self._add_violation("a mail is not sent", (f"{row.idempotency_key} {row.state} {row.reason}" for row in unsent))
        old = (f"{row.idempotency_key} {row.reason}" for row in rows.values() if (row.reason or "").startswith("older"))
        self._add_violation("a mail was withheld as too old", old)
        box = self._box()
        ids = {(row.message_id or "").strip("<>") for row in rows.values() if row.state == "sent"}
        self.lost += self._add_violation("a sent mail is not in the Maildir", ids - box.keys())
        self._add_violation("a mail in the Maildir was not sent by the outbox", box.keys() - ids)
        twice = (f"{id} x{len(queued)}" for id, queued in box.items() if len(queued) > 1)
        self.mails += self._add_violation("a mail is in the Maildir more than once", twice)

    def _box(self) -> dict[str, set[str]]:
        """Return the relay's queue ids of each Message-ID. A mail that Postfix itself delivers twice has only one."""
        box: dict[str, set[str]] = defaultdict(set)
        for mail in self._stage.ground.postfix.mails():
            message, queue = _MESSAGE_ID.search(mail), _QUEUE_ID.search(mail)
            box[message[1].decode() if message else "none"].add(queue[1].decode() if queue else "none")
        return box

    def _dead_letters(self) -> None:
        if self._stage.column == "right":
            report = Broker(self._stage.broker).check()
            self._add_violation("in the dead-letter queue", [report] if "unreadable" in report else [])
