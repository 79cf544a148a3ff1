"""One reconciliation with PayPal, from the end of the last one until now. It can be stopped anywhere and run again."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import func, select

from pipeline.clock import Clock
from pipeline.crypto.master_key import MasterKey
from pipeline.db.engine import Database
from pipeline.db.models import ReconciliationException, ReconciliationPosition
from pipeline.paypal import listings
from pipeline.paypal.api import PaypalApi
from pipeline.paypal.errors import PaypalNotFoundError, PaypalRejectedError, PaypalUnavailableError
from pipeline.reconciliation import disputes, events, exceptions, money, subscriptions

log = structlog.get_logger(__name__)

# The position is stored after each of these steps.
STEPS = {"events": timedelta(days=1), "subscriptions": timedelta(days=7), "money": timedelta(days=7)}
# How far behind the last position a run begins again: PayPal retries webhooks for three days, and reports money late.
OVERLAP = {"events": timedelta(hours=1), "subscriptions": timedelta(hours=1), "money": timedelta(days=3)}
REPORT_DELAY = timedelta(hours=3)  # "It takes a maximum of three hours for executed transactions to appear"
PUBLISH_GRACE = timedelta(minutes=10)  # a webhook that is younger may still be on its way

Advance = Callable[[int], None]  # called with the number of steps done


@dataclass(slots=True)
class ReconciliationResult:
    """Counts of one run. `open`: exceptions that a look-up did not remove. `not_offered`: lists that PayPal refused."""

    events_listed: int = 0
    events_imported: int = 0
    subscriptions_listed: int = 0
    subscriptions_looked_up: int = 0
    transactions_compared: int = 0
    payments_looked_up: int = 0
    disputes_looked_up: int = 0
    transactions_unreadable: int = 0
    differences_new: int = 0
    differences_resolved: int = 0
    open: int = 0
    not_offered: tuple[str, ...] = ()


class Reconciliation:
    """Compares PayPal's lists with the database. Raises PaypalUnavailableError; what was compared is kept."""

    def __init__(self, database: Database, master_key: MasterKey, clock: Clock, paypal: PaypalApi) -> None:
        self._database, self._master, self._clock, self._paypal = database, master_key, clock, paypal

    def run(self, since: datetime | None = None, advance: Advance = lambda _: None) -> ReconciliationResult:
        """Compare everything since the last run, or since the given time. Return the counts.

        A list that PayPal cannot serve now does not stop the others. The first such error is raised at the end.
        """
        result, failed = ReconciliationResult(), list[PaypalUnavailableError]()
        for source, compare in (
            ("events", self._events),
            ("subscriptions", self._subscriptions),
            ("money", self._money),
        ):
            try:
                self._compare(source, since, result, compare, advance)
            except (PaypalNotFoundError, PaypalRejectedError) as error:
                log.warning("reconciliation_not_offered", source=source, reason=str(error))
                result.not_offered += (source,)
            except PaypalUnavailableError as error:
                log.warning("reconciliation_interrupted", source=source, reason=str(error))
                failed.append(error)
        self._request_late(result)
        with self._database.reading() as session:
            due = exceptions.is_due(self._clock.now())
            result.open = session.execute(
                select(func.count()).select_from(ReconciliationException).where(due)
            ).scalar_one()
        log.info("reconciled", **{name: getattr(result, name) for name in ReconciliationResult.__slots__})
        if failed:
            raise failed[0]
        return result

    def _request_late(self, result: ReconciliationResult) -> None:
        """Look up what should have changed by now."""
        now = self._clock.now()
        with self._database.transaction() as session:
            result.subscriptions_looked_up += subscriptions.request_overdue(session, now)
            result.payments_looked_up += money.request_pending(session, now)
            result.disputes_looked_up += disputes.request_open(session, now)
            unreturned = disputes.request_unreturned(session, now)
            result.differences_new += exceptions.record(session, unreturned, now)
            result.differences_resolved += exceptions.resolve_missing(
                session, "dispute", {each.id for each in unreturned}, now
            )

    def steps(self, since: datetime | None = None) -> int:
        """Return how many steps a run takes, for a progress bar."""
        return sum(1 for source in OVERLAP for _ in self._periods(source, since))

    def _compare(
        self, source: str, since: datetime | None, result: ReconciliationResult,
        compare: Callable[[datetime, datetime, ReconciliationResult], None], advance: Advance,
    ) -> None:  # fmt: skip
        for start, end in self._periods(source, since):
            compare(start, end, result)
            with self._database.transaction() as session:
                session.merge(ReconciliationPosition(source=source, until=end))
            advance(1)

    def _periods(self, source: str, since: datetime | None) -> list[tuple[datetime, datetime]]:
        now = self._clock.now()
        until = now - (REPORT_DELAY if source == "money" else PUBLISH_GRACE)
        with self._database.reading() as session:
            row = session.get(ReconciliationPosition, source)
        start = since or (row.until - OVERLAP[source] if row else now - listings.EVENT_HISTORY)
        if source == "events":
            start = max(start, now - listings.EVENT_HISTORY)
        periods = []
        while start < until:
            periods.append((start, min(start + STEPS[source], until)))
            start += STEPS[source]
        return periods

    def _events(self, start: datetime, end: datetime, result: ReconciliationResult) -> None:
        listed, missing = events.import_missing(self._database, self._master, self._clock, self._paypal, start, end)
        result.events_listed += listed
        result.events_imported += missing

    def _subscriptions(self, start: datetime, end: datetime, result: ReconciliationResult) -> None:
        listed = subscriptions.changed(self._paypal, start, end)
        if listed is None:
            if "subscriptions" not in result.not_offered:
                result.not_offered += ("subscriptions",)
            return
        with self._database.transaction() as session:
            result.subscriptions_looked_up += subscriptions.request_drifted(session, listed, self._clock.now())
        result.subscriptions_listed += len(listed)

    def _money(self, start: datetime, end: datetime, result: ReconciliationResult) -> None:
        reported, unreadable = money.read(list(listings.reported_transactions(self._paypal, start, end)))
        with self._database.transaction() as session:
            now = self._clock.now()
            differences = list(money.compare(session, reported))
            result.differences_new += exceptions.record(session, differences, now)
            checked, found = {each.id for each in reported}, {each.id for each in differences}
            result.differences_resolved += exceptions.resolve_others(session, ("sale", "refund"), checked, found, now)
            result.payments_looked_up += money.request_unlisted(session, reported, start, end, now)
        result.transactions_compared += len(reported)
        result.transactions_unreadable += unreadable


def as_json(result: ReconciliationResult) -> dict[str, Any]:
    """Return the counts as JSON."""
    return {name: getattr(result, name) for name in ReconciliationResult.__slots__}
