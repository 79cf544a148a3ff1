"""Queue renewal reminders, once per renewal, some days before it. A billing date older than a day is looked up first."""

import contextlib
from datetime import datetime, timedelta

import structlog
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from pipeline.billing import notifications
from pipeline.billing.access import disputed_since
from pipeline.billing.reminders import ReminderPolicy
from pipeline.billing.subscription import is_billing_time_doubtful
from pipeline.billing.terms import billing_cycle_of
from pipeline.clock import Clock
from pipeline.crypto.keyring import TOKENS, Keyring
from pipeline.crypto.master_key import MasterKey, MasterKeyError
from pipeline.customers import accounts
from pipeline.db import lww_map
from pipeline.db.engine import Database, DatabaseUnavailableError
from pipeline.db.models import Plan, Subscription
from pipeline.inbox import lookups
from pipeline.outbox import store as outbox

log = structlog.get_logger(__name__)

LIMIT = 500  # subscriptions per run; the next run takes the rest
FRESH = timedelta(days=1)  # a billing date reported less than this ago needs no look-up before a reminder
LOOKUP_WAIT = timedelta(minutes=10)  # wait for the look-up; then the reminder has the stored date, and no amount
DISPUTE_WAIT = timedelta(days=1)  # while a dispute is open, the reminder waits; it is dropped when the renewal is over
RETRY_DELAY = timedelta(hours=1)  # a reminder that failed is tried again after this


class RenewalReminders:
    """Queues due reminders. `may_read`: API credentials are set, so the billing date can be looked up."""

    def __init__(
        self, database: Database, master_key: MasterKey, clock: Clock, reminders: ReminderPolicy, *, may_read: bool
    ) -> None:
        self._database, self._master, self._clock = database, master_key, clock
        self._reminders, self._may_read = reminders, may_read

    def queue_due(self) -> int:
        """Queue the due reminders. Return how many subscriptions were examined."""
        with self._database.transaction() as session:
            now = self._clock.now()
            keyring = Keyring(self._master, session, now)
            rows = _lock_due(session, now)
            keyring.system_key(TOKENS)  # raises if the master key is wrong, before reminders are postponed for that
            with contextlib.suppress(MasterKeyError):  # a broken data key must not block the other reminders
                keyring.load([row.id for row in rows])
            mails = [mail for row in rows if (mail := self._try_reminder(session, keyring, row, now))]
            session.flush()
            outbox.enqueue(session, keyring, mails, now)
        return len(rows)

    def _try_reminder(
        self, session: Session, keyring: Keyring, row: Subscription, now: datetime
    ) -> outbox.NewMail | None:
        """Return the reminder. If that fails, postpone it and return None, so that it does not block the others."""
        try:
            return self._reminder(session, keyring, row, now)
        except (DatabaseUnavailableError, SQLAlchemyError):
            raise
        except Exception as error:  # noqa: BLE001 - any error concerns this reminder only
            log.error("reminder_failed", subscription_id=row.id, reason=type(error).__name__)
            row.remind_at = now + RETRY_DELAY
            return None

    def _reminder(self, session: Session, keyring: Keyring, row: Subscription, now: datetime) -> outbox.NewMail | None:
        plan = session.get(Plan, row.plan_id) if row.plan_id else None
        days = self._reminders.days_before_renewal(billing_cycle_of(row, plan))
        if row.next_billing_at is None or row.next_billing_at <= now or days is None:
            row.remind_at = None
            return None
        if disputed_since(session, [row.id]):  # a reminder would provoke the customer
            row.remind_at = now + DISPUTE_WAIT
            return None
        if self._may_read and _is_stale(row, now):
            _request_lookup(session, row, now)
            return None
        if self._may_read and _awaits_correction(session, row):
            row.remind_at = now + LOOKUP_WAIT
            return None
        row.remind_at = None
        has_address = "email" in accounts.subscriber_details(keyring, row) or accounts.has_address(
            session, row.customer_id
        )
        is_confirmed = not (self._may_read and lookups.is_pending(session, "subscription", row.id))
        return notifications.renewal_reminder(row, plan, days, now, has_address=has_address, is_confirmed=is_confirmed)


def _lock_due(session: Session, now: datetime) -> list[Subscription]:
    due = (
        select(Subscription)
        .where(Subscription.remind_at <= now)
        .order_by(Subscription.remind_at)
        .limit(LIMIT)
        .with_for_update(skip_locked=True)
    )
    return list(session.execute(due).scalars())


def _awaits_correction(session: Session, row: Subscription) -> bool:
    """Return whether PayPal reported a billing time that it may correct, and the look-up of it has no answer yet."""
    known_at = lww_map.updated_at(row.known, "next_billing_at")
    is_doubtful = known_at is not None and is_billing_time_doubtful(row, known_at)
    return is_doubtful and lookups.is_pending(session, "subscription", row.id)


def _is_stale(row: Subscription, now: datetime) -> bool:
    """Return whether the billing date needs a look-up: it is not fresh, and no look-up for it was requested yet."""
    known_at = lww_map.updated_at(row.known, "next_billing_at")
    asked_for = lww_map.value(row.known, "asked_before")
    stale = known_at is None or known_at < now - FRESH
    return stale and asked_for != lww_map.value(row.known, "next_billing_at")


def _request_lookup(session: Session, row: Subscription, now: datetime) -> None:
    """Request a look-up of the subscription, and postpone the reminder until the answer should have arrived."""
    lookups.enqueue(session, [lookups.LookupRequest("subscription", row.id, now)])
    row.known = lww_map.merge(row.known, now, {"asked_before": lww_map.value(row.known, "next_billing_at")})
    row.remind_at = now + LOOKUP_WAIT
