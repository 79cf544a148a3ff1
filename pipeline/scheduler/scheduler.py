"""What is due: mails of dead mailers, renewal reminders, word to the operator, and what else there is to do every so often.

Each job is a query over what waits, so it costs what is due and not what exists, and may run in several processes.
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from pipeline.billing import notifications as notices
from pipeline.billing.reminders import Reminders
from pipeline.billing.subscription import terms_of
from pipeline.clock import Clock, write_time
from pipeline.crypto.keyring import TOKENS, Keyring
from pipeline.crypto.master_key import KeyProblem, MasterKey
from pipeline.customers import accounts
from pipeline.db import lww_map as register
from pipeline.db import presence
from pipeline.db.engine import Database, StoreDown
from pipeline.db.models import Event, Mail, Plan, Subscription
from pipeline.inbox import lookups as reads
from pipeline.outbox import store as outbox

log = structlog.get_logger(__name__)

LIMIT = 500  # rows per look; what is left is due at the next
QUIET = timedelta(hours=1)  # between two mails to the operator
LISTED = 20  # parked events named in one mail
FRESH = timedelta(days=1)  # a billing date younger than this need not be read again before a reminder
WAIT_FOR_READ = timedelta(minutes=10)  # then the reminder goes out with what is known
FAILED_AGAIN = timedelta(hours=1)  # when a reminder that could not be written is tried again
OVERLAP = timedelta(minutes=10)  # two looks for parked events overlap: one may be committed later than its time says


@dataclass(frozen=True, slots=True)
class Job:
    """One thing to do every so often. Returns how much there was to do."""

    name: str
    every: timedelta
    run: Callable[[], int]


class Scheduler:
    """The jobs, and when each is due next."""

    def __init__(
        self,
        database: Database,
        master: MasterKey,
        clock: Clock,
        *,
        reminders: Reminders,
        may_read: bool,
        operator: str,
        more: Sequence[Job] = (),
    ) -> None:
        """`more` jobs are run beside the river's own."""
        self._database, self._master, self._clock = database, master, clock
        self._reminders, self._may_read, self._operator = reminders, may_read, operator
        self.more = tuple(more)
        self.jobs = (
            Job("free claims of dead mailers", timedelta(seconds=2), self.free_claims),
            Job("owe renewal reminders", timedelta(seconds=60), self.remind),
            Job("tell the operator of parked events", timedelta(seconds=60), self.tell_operator),
            *self.more,
        )
        self._due: dict[str, datetime] = {}

    def run_all(self) -> int:
        """Do all there is to do for the river's own jobs, and run the others if they are due. Raises StoreDown."""
        return self.remind() + self.free_claims() + self.tell_operator() + self._run_due(self.more)

    def run_due(self) -> int:
        """Run the jobs that are due by the clock. One that fails is logged and due again at its next time."""
        return self._run_due(self.jobs)

    def _run_due(self, jobs: Sequence[Job]) -> int:
        done = 0
        for job in jobs:
            now = self._clock.now()
            # A clock that was ahead for a while and is right again must not silence a job until it gets there.
            if not now < self._due.get(job.name, now) <= now + job.every:
                self._due[job.name] = now + job.every
                done += self._run(job)
        return done

    def _run(self, job: Job) -> int:
        try:
            return job.run()
        except StoreDown as error:
            log.warning("job_failed", job=job.name, reason=str(error))
        except Exception as error:  # noqa: BLE001 - a fault in one job must not stop the others
            log.error("job_failed", job=job.name, reason=f"a fault of ours: {type(error).__name__}")
        return 0

    def free_claims(self) -> int:
        """Mails that a dead mailer was sending may have gone out or not: they are in doubt."""
        with self._database.reading() as session:
            holders = outbox.holders(session)
        freed = 0
        for holder in (holder for holder in holders if not presence.is_held(self._database, holder)):
            settle_at = self._clock.now() + outbox.SETTLE_AFTER
            with self._database.transaction() as session:
                freed += outbox.abandon(session, holder, "its mailer died while sending it", settle_at)
        return freed

    def remind(self) -> int:
        """Owe the reminders that are due, after asking PayPal whether the date still holds."""
        with self._database.transaction() as session:
            now = self._clock.now()
            keyring = Keyring(self._master, session, now)
            rows = _to_remind(session, now)
            keyring.own(TOKENS)  # raises if the master key is wrong, before any reminder is put off for it
            with contextlib.suppress(KeyProblem):  # one key that does not open is no other reminder's problem
                keyring.fetch([row.id for row in rows])
            mails = [mail for row in rows if (mail := self._try_reminder(session, keyring, row, now))]
            session.flush()
            outbox.add(session, keyring, mails, now)
        return len(rows)

    def _try_reminder(self, session: Session, keyring: Keyring, row: Subscription, now: datetime) -> outbox.Owed | None:
        """The reminder; one that cannot be written is put off, and holds no other back."""
        try:
            return self._reminder(session, keyring, row, now)
        except (StoreDown, SQLAlchemyError):
            raise
        except Exception as error:  # noqa: BLE001 - whatever is wrong with this one
            log.error("reminder_failed", subscription_id=row.id, reason=type(error).__name__)
            row.remind_at = now + FAILED_AGAIN
            return None

    def _reminder(self, session: Session, keyring: Keyring, row: Subscription, now: datetime) -> outbox.Owed | None:
        plan = session.get(Plan, row.plan_id) if row.plan_id else None
        days = self._reminders.days(terms_of(row, plan))
        if row.next_billing_at is None or row.next_billing_at <= now or days is None:
            row.remind_at = None
            return None
        if self._is_stale(row, now):
            self._ask(session, row, now)
            return None
        row.remind_at = None
        has_address = "email" in accounts.told_of(keyring, row) or accounts.has_address(session, row.customer_id)
        return notices.renewal(row, plan, days, has_address)

    def _is_stale(self, row: Subscription, now: datetime) -> bool:
        """Whether the date is old news that can be asked for, and was not yet."""
        known_at = register.time_of(row.known, "next_billing_at")
        asked_for = register.value(row.known, "asked_before")
        stale = known_at is None or known_at < now - FRESH
        return self._may_read and stale and asked_for != register.value(row.known, "next_billing_at")

    def _ask(self, session: Session, row: Subscription, now: datetime) -> None:
        reads.owe(session, [reads.Wanted("subscription", row.id, now)])
        row.known = register.merge(row.known, now, {"asked_before": register.value(row.known, "next_billing_at")})
        row.remind_at = now + WAIT_FOR_READ

    def tell_operator(self) -> int:
        """One mail about what was parked since the last one, at most one an hour."""
        if not self._operator:
            return 0
        with self._database.transaction() as session:
            now = self._clock.now()
            keyring = Keyring(self._master, session, now)
            told_at, told = _last_told(session, keyring)
            if told_at and now - told_at < QUIET:
                return 0
            count, newest = _parked(session, told_at, told)
            if count:
                outbox.add(session, keyring, [_word(count, newest)], now)
        return count


def _to_remind(session: Session, now: datetime) -> list[Subscription]:
    due = (
        select(Subscription)
        .where(Subscription.remind_at <= now)
        .order_by(Subscription.remind_at)
        .limit(LIMIT)
        .with_for_update(skip_locked=True)
    )
    return list(session.execute(due).scalars())


def _last_told(session: Session, keyring: Keyring) -> tuple[datetime | None, list[str]]:
    """When word went to the operator last, and which events it named."""
    last = (
        select(Mail.created_at, Mail.facts)
        .where(Mail.key_id == outbox.OPERATOR, Mail.kind == "event_parked")
        .order_by(Mail.created_at.desc())
        .limit(1)
    )
    for created_at, sealed in session.execute(last):
        facts = keyring.own(outbox.OPERATOR).open_json("mail.facts", sealed) or {}
        return created_at, [event["id"] for event in facts.get("events", [])]
    return None, []


def _parked(session: Session, told_at: datetime | None, told: Sequence[str]) -> tuple[int, Sequence[Any]]:
    """How many events were parked since then, less those that were named, and the newest of them: rows of id, type,
    reason, done_at."""
    chosen = [Event.state == "parked", Event.id.not_in(told)]
    if told_at:
        chosen.append(Event.done_at > told_at - OVERLAP)
    count = session.execute(select(func.count()).where(*chosen)).scalar_one()
    newest = select(Event.id, Event.type, Event.reason, Event.done_at).where(*chosen).order_by(Event.done_at.desc())
    return count, session.execute(newest.limit(LISTED)).all()


def _word(count: int, newest: Sequence[Any]) -> outbox.Owed:
    events = [{"id": row.id, "type": row.type, "reason": row.reason} for row in newest]
    key = f"event_parked:{write_time(newest[0].done_at)}:{newest[0].id}"
    return outbox.Owed("event_parked", key, None, {"count": count, "events": events})
