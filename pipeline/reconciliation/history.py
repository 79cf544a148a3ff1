"""Take over an existing vendor's subscriptions and their payments of up to three years, with GET requests only.

Each subscription enters the inbox with its payments in one transaction, so the import can be stopped anywhere: what is
stored is skipped the next time. Handlers apply the events like others; mails about them are withheld.
"""

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from time import sleep
from typing import Any, TypeVar

from sqlalchemy import func, select

from pipeline.clock import Clock, parse_time
from pipeline.crypto.keyring import Keyring
from pipeline.crypto.master_key import MasterKey
from pipeline.db.engine import Database
from pipeline.db.models import Event
from pipeline.errors import UsageError
from pipeline.inbox import store as inbox
from pipeline.inbox.parsing import event_from_lookup, parse_webhook
from pipeline.inbox.store import HISTORY, NewEvent
from pipeline.paypal import listings
from pipeline.paypal.api import PaypalApi
from pipeline.paypal.errors import PaypalNotFoundError
from pipeline.paypal.rate_limit import TokenBucket

LONGEST = timedelta(days=3 * 365)  # PayPal returns transactions of three years
VERDICT = "imported from PayPal's API"
CSV_COLUMN = "ppcp_subscription"  # WooCommerce PayPal Payments stores the subscription's id there
Answer = TypeVar("Answer")
_ID = re.compile(r"I-[A-Z0-9]{8,20}", re.ASCII)
# PayPal's status of a transaction -> the state of a sale (Payments v1)
STATES = {
    "COMPLETED": "completed",
    "PARTIALLY_REFUNDED": "partially_refunded",
    "REFUNDED": "refunded",
    "PENDING": "pending",
    "DECLINED": "denied",
}


@dataclass(slots=True)
class ImportResult:
    """Counts of one import. `refused`: what cannot be taken over, with the reason. `stored`: subscriptions of all runs."""

    listed: int = 0
    imported: int = 0
    skipped: int = 0
    payments: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)
    stored: int = 0


class HistoryImport:
    """Imports subscriptions. Raises PaypalRejectedError or PaypalUnavailableError; what was stored before is kept."""

    def __init__(
        self, database: Database, master_key: MasterKey, clock: Clock, paypal: PaypalApi, rate: TokenBucket,
        wait: Callable[[float], None] = sleep,
    ) -> None:  # fmt: skip
        """`rate` limits the requests; `wait` waits for the next one, in seconds."""
        self._database, self._master, self._clock, self._paypal = database, master_key, clock, paypal
        self._rate, self._wait = rate, wait

    def total(self) -> int:
        """Return how many subscriptions PayPal has."""
        return self._listed(1)[1]

    def all_ids(self) -> Iterator[str]:
        """Yield the ids of all subscriptions at PayPal, in every state."""
        for page in range(1, listings.MOST_PAGES):
            items, _ = self._listed(page)
            yield from (each["id"] for each in items if isinstance(each.get("id"), str))
            if len(items) < listings.SUBSCRIPTIONS_PAGE:
                return

    def run(self, ids: Iterator[str], result: ImportResult, advance: Callable[[int], None]) -> ImportResult:
        """Import these subscriptions, except those that were imported before. Return the counts."""
        for id in ids:
            result.listed += 1
            if self._is_imported(id):
                result.skipped += 1
            else:
                self._import(id, result)
            advance(1)
        with self._database.reading() as session:
            stored = select(func.count(Event.key_id.distinct())).where(Event.source == HISTORY)
            result.stored = session.execute(stored).scalar_one()
        return result

    def _import(self, id: str, result: ImportResult) -> None:
        try:
            snapshot = self._asked(lambda: self._paypal.get("subscription", id))
            sales = self._sales(id, snapshot)
        except PaypalNotFoundError:
            result.refused.append((id, "PayPal does not know this subscription; it belongs to another account or app"))
            return
        now = self._clock.now()
        try:
            bodies = [
                event_from_lookup("subscription", snapshot, now),
                *(event_from_lookup("sale", sale, now) for sale in sales),
            ]
        except TypeError:  # nested so deeply that it cannot be written as JSON
            result.refused.append((id, "PayPal's answer cannot be read; ask PayPal's support"))
            return
        events = [NewEvent(parse_webhook(body), HISTORY, VERDICT) for body in bodies]
        with self._database.transaction() as session:
            inbox.store(session, Keyring(self._master, session, now), events, now)
        result.imported += 1
        result.payments += len(sales)

    def _sales(self, id: str, snapshot: dict[str, Any]) -> list[dict[str, Any]]:
        now = self._clock.now()
        since = max(parse_time(snapshot.get("create_time")) or now - LONGEST, now - LONGEST)
        found = self._asked(
            lambda: listings.subscription_transactions(self._paypal, id, since - timedelta(days=1), now)
        )
        return [sale for each in found if (sale := sale_from_transaction(each, id))]

    def _is_imported(self, id: str) -> bool:
        with self._database.reading() as session:
            found = select(Event.id).where(Event.key_id == id, Event.source == HISTORY).limit(1)
            return session.execute(found).first() is not None

    def _listed(self, page: int) -> tuple[list[dict[str, Any]], int]:
        return self._asked(lambda: listings.all_subscriptions(self._paypal, page))

    def _asked(self, ask: Callable[[], Answer]) -> Answer:
        while not self._rate.take(1):
            self._wait(self._rate.seconds_until_next())
        return ask()


def sale_from_transaction(transaction: dict[str, Any], subscription: str) -> dict[str, Any] | None:
    """Return a transaction of a subscription as a sale (Payments v1), None if it is none or cannot be read."""
    amounts, id = transaction.get("amount_with_breakdown"), transaction.get("id")
    state = STATES.get(str(transaction.get("status")))
    if not isinstance(amounts, dict) or not isinstance(id, str) or state is None:
        return None
    return {
        "id": id,
        "state": state,
        "billing_agreement_id": subscription,
        "amount": _v1(amounts.get("gross_amount")),
        "transaction_fee": _v1(amounts.get("fee_amount")),
        "create_time": transaction.get("time"),
        "update_time": transaction.get("time"),
    }


def ids_in_csv(path: Path, result: ImportResult) -> Sequence[str]:
    """Return the subscription ids in an export of WooCommerce Subscriptions. Other rows are added to `refused`.

    Raises UsageError if the file cannot be read or lacks the column.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            if CSV_COLUMN not in (rows.fieldnames or ()):
                raise UsageError(f"{path} has no column {CSV_COLUMN}; export the subscriptions with their meta data")
            named = [(number, (row[CSV_COLUMN] or "").strip()) for number, row in enumerate(rows, start=2)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    result.refused += [(f"line {number}", _refusal(id)) for number, id in named if not _ID.fullmatch(id)]
    return list(dict.fromkeys(id for _, id in named if _ID.fullmatch(id)))


def _refusal(id: str) -> str:
    if id.startswith("B-"):
        return "B-… is an agreement that the shop charges, not PayPal; ask the customer to subscribe again"
    if not id:
        return "no PayPal subscription: it is charged with a stored card or another gateway"
    return "the value is no id of a PayPal subscription (I-…)"


def _v1(money: Any) -> dict[str, Any] | None:
    if not isinstance(money, dict):
        return None
    return {"total": money.get("value"), "currency": money.get("currency_code")}
