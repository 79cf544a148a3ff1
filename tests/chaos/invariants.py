"""What must be true when everything has come to rest: each violation is a sentence with its figures."""

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
# What a role asks PayPal again after, when the one that asked died: `lookup_fetcher.LEASE`. Other questions are for later.
ASKED_AGAIN = timedelta(seconds=130)
LATER = timedelta(hours=2)  # questions for later are for the next hour; beyond that it was a clock that was ahead
NAMED = 5  # rows of one kind that a sentence names


def waiting(session: Session, now: datetime) -> dict[str, int]:
    """What is still to be done, by kind, at one moment; nothing at rest."""
    counts = {
        "events received": select(func.count()).select_from(Event).where(Event.state == "received"),
        "mails owed": select(func.count()).select_from(Mail).where(Mail.state == "queued", Mail.due_at.is_not(None)),
        "mails sending": select(func.count()).select_from(Mail).where(Mail.state == "sending"),
        "mails in doubt": select(func.count()).select_from(Mail).where(Mail.state == "doubt"),
        "questions to PayPal": select(func.count())
        .select_from(PaypalLookup)
        .where(PaypalLookup.due_at <= now + ASKED_AGAIN),
    }
    found = session.execute(select(*(count.scalar_subquery() for count in counts.values()))).one()
    return {name: number for name, number in zip(counts, found, strict=True) if number}


def bring_forward(session: Session) -> None:
    """Do not wait out the pauses that tries and leases wait, or a clock that was ahead has set: they end now."""
    now = datetime.now(UTC)  # noqa: TID251 - the roles read the machine's clock
    bare = {"now": now, "soon": now + ASKED_AGAIN, "later": now + LATER}
    given = {name: _bare(session, moment) for name, moment in bare.items()}
    for change in (
        "event SET due_at = :now WHERE state = 'received' AND due_at > :now",
        "mail SET due_at = :now WHERE state = 'queued' AND due_at > :now",
        "mail SET due_at = :now, claimed_at = :now WHERE state = 'doubt' AND (due_at > :later OR claimed_at > :soon)",
        "paypal_lookup SET due_at = :now WHERE due_at > :now AND (due_at < :soon OR due_at > :later)",
    ):
        used = {name: value for name, value in given.items() if f":{name}" in change}
        session.execute(text(f"UPDATE {change}"), used)


def _bare(session: Session, moment: datetime) -> Any:
    return moment if session.get_bind().dialect.name != "sqlite" else moment.strftime("%Y-%m-%d %H:%M:%S.%f")


class Verdict:
    """Judges one stage at rest. `violations` is empty if all is as it must be."""

    def __init__(self, stage: Stage, load: Load, expected: Expected, accepted: Iterable[str]) -> None:
        self.violations: list[str] = []
        self.lost = self.effects = self.mails = 0  # events lost, effects and mails that are there twice
        self._stage, self._load, self._expected, self._accepted = stage, load, expected, set(accepted)
        with stage.database.reading() as session:
            self._events(session)
            self._money(session)
            self._access(session)
            self._post(session)
        self._dead_letters()

    def _say(self, what: str, found: Iterable[object]) -> int:
        listed = sorted(map(str, found))
        if listed:
            more = f" and {len(listed) - NAMED} more" if len(listed) > NAMED else ""
            self.violations.append(f"{what}: {', '.join(listed[:NAMED])}{more}")
        return len(listed)

    def _events(self, session: Session) -> None:
        rows = session.execute(select(Event.id, Event.state, Event.reason).where(Event.source == "webhook")).all()
        states = {row.id: row.state for row in rows}
        self._say("never answered 200", self._load.ids - self._accepted)
        self.lost += self._say("answered 200 and not in the table", self._accepted - states.keys())
        self._say("in the table and never posted", states.keys() - self._load.ids)
        undone = (f"{row.id} {row.state} {row.reason}" for row in rows if row.state != "handled")
        self.lost += self._say("not handled", undone)
        answers = select(Event.id, Event.state).where(Event.source != "webhook", Event.state != "handled")
        self._say("an answer of PayPal's is not handled", (f"{id} {state}" for id, state in session.execute(answers)))

    def _money(self, session: Session) -> None:
        told = loads.sales(self._load.world)
        booked = {row.id: row for row in session.execute(select(Payment)).scalars()}
        self.lost += self._say("a sale is not booked", told.keys() - booked.keys())
        self.effects += self._say("a payment nobody made", booked.keys() - told.keys())
        for id in told.keys() & booked.keys():
            sale, row = told[id], booked[id]
            state = "refunded" if row.status == "reversed" else row.status
            found = (row.subscription_id, row.amount, row.currency, state, row.refunded)
            wanted = (sale.subscription, sale.money.amount, sale.money.currency, sale.state, sale.refunded)
            self._say(f"payment {id} is {found}, not {wanted}", [id] if found != wanted else [])
        refunds = session.execute(select(Refund.id)).scalars().all()
        world = self._load.world.ids("refund")
        self.lost += self._say("a refund is not booked", set(world) - set(refunds))
        self.effects += self._say("a refund nobody made", set(refunds) - set(world))
        paid, wanted_sums = Counter[tuple[Any, ...]](), Counter[tuple[Any, ...]]()
        for row in booked.values():
            if row.status in loads.PAID:
                paid[row.subscription_id, row.currency] += (row.amount or 0) - row.refunded
        for sale in told.values():
            if sale.state in loads.PAID:
                wanted_sums[sale.subscription, sale.money.currency] += sale.money.amount - sale.refunded
        self._say("the sum of a subscription differs", (who for who in wanted_sums if wanted_sums[who] != paid[who]))
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
        self.effects += self._say("a move is in the history twice", (key for key, count in moved.items() if count > 1))

    def _access(self, session: Session) -> None:
        rows = {row.id: row for row in session.execute(select(Subscription)).scalars()}
        told = loads.statuses(self._load.world)
        self.lost += self._say("a subscription is missing", told.keys() - rows.keys())
        known = told.keys() & rows.keys()
        wrong = (f"{id} {rows[id].status}, not {told[id]}" for id in known if rows[id].status != told[id])
        self._say("a status differs from PayPal's", wrong)
        paid = {id: rows[id].paid_through for id in known}
        right = {id: [access[id] for access in self._expected.access] for id in known}
        wrong = (f"{id} {paid[id]}, not {right[id][0]}" for id in known if paid[id] not in right[id])
        self._say("access differs", wrong)

    def _post(self, session: Session) -> None:
        rows = {row.idempotency_key: row for row in session.execute(select(Mail)).scalars()}
        first, last = self._expected.mails
        self.lost += self._say("a mail was never owed", (first & last) - rows.keys())
        # A reminder is owed by the machine's clock, which calm did not have.
        told = {key for key, row in rows.items() if row.kind != "renewal_reminder"}
        self.effects += self._say("a mail too many is owed", told - (first | last))
        unsent = [row for row in rows.values() if row.state not in ("sent", "withheld")]
        self._say("a mail is not sent", (f"{row.idempotency_key} {row.state} {row.reason}" for row in unsent))
        old = (f"{row.idempotency_key} {row.reason}" for row in rows.values() if (row.reason or "").startswith("older"))
        self._say("a mail was withheld as old", old)
        box = self._box()
        ids = {(row.message_id or "").strip("<>") for row in rows.values() if row.state == "sent"}
        self.lost += self._say("a mail sent is not in the Maildir", ids - box.keys())
        self._say("a mail in the Maildir is not one that was sent", box.keys() - ids)
        twice = (f"{id} x{len(queued)}" for id, queued in box.items() if len(queued) > 1)
        self.mails += self._say("a mail is in the Maildir more than once", twice)

    def _box(self) -> dict[str, set[str]]:
        """Message-ID -> the relay's queue ids: what Postfix itself delivers again after a stop has one and the same."""
        box: dict[str, set[str]] = defaultdict(set)
        for mail in self._stage.ground.postfix.mails():
            message, queue = _MESSAGE_ID.search(mail), _QUEUE_ID.search(mail)
            box[message[1].decode() if message else "none"].add(queue[1].decode() if queue else "none")
        return box

    def _dead_letters(self) -> None:
        if self._stage.column == "right":
            said = Broker(self._stage.broker).check()
            self._say("in the dead-letter queue", [said] if "unreadable" in said else [])
