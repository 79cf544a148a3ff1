"""Compare PayPal's reported transactions with payments and refunds, to the cent.

Transaction event codes: https://developer.paypal.com/docs/reports/reference/tcodes/ . T0002 is a payment of a subscription,
T0006 another payment by a buyer, T1107 a refund, T1106 a reversal, T1201 a chargeback. Others, such as withdrawals and
conversions, concern the account and not a customer.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from pipeline.db.bulk import in_list
from pipeline.db.models import CAME, Payment, Refund
from pipeline.inbox import lookups
from pipeline.inbox.lookups import LookupRequest
from pipeline.money import InvalidAmountError, Money, format_money, parse_amount
from pipeline.reconciliation.exceptions import Difference

SALES, RETURNS = frozenset({"T0002", "T0006"}), frozenset({"T1106", "T1107", "T1201"})
PENDING_FOR = timedelta(days=1)
COMPLETED = "S"  # transaction_status: completed; D denied, P pending, V reversed


@dataclass(frozen=True, slots=True)
class ReportedTransaction:
    """A completed transaction. `amount` is positive; `fee` is what PayPal kept, None if it is not reported."""

    id: str
    is_sale: bool
    amount: Money
    fee: Money | None


def read(infos: Iterable[Mapping[str, Any]]) -> tuple[list[ReportedTransaction], int]:
    """Return the sales and returns among these transactions, and how many could not be read."""
    read, unreadable = [], 0
    for info in infos:
        code = info.get("transaction_event_code")
        if (
            not isinstance(code, str)
            or code not in SALES | RETURNS
            or info.get("transaction_status") not in (COMPLETED, "V")
        ):
            continue
        amount, id = _money(info.get("transaction_amount")), info.get("transaction_id")
        if amount is None or not isinstance(id, str) or not id:
            unreadable += 1
            continue
        read.append(ReportedTransaction(id, code in SALES, abs(amount), _fee(info.get("fee_amount"))))
    return read, unreadable


def compare(session: Session, reported: list[ReportedTransaction]) -> Iterator[Difference]:
    """Yield each reported transaction that is missing here or has another amount, currency or fee."""
    payments = _rows(session, Payment, [each.id for each in reported if each.is_sale])
    refunds = _rows(session, Refund, [each.id for each in reported if not each.is_sale])
    for each in reported:
        row = (payments if each.is_sale else refunds).get(each.id)
        reason = _reason(each, row)
        if reason:
            yield Difference("sale" if each.is_sale else "refund", each.id, reason)


def request_pending(session: Session, now: datetime) -> int:
    """Look up the payments that have been pending for a day: their completion or refusal may be lost. Return how many."""
    pending = Payment.status == "pending", Payment.occurred_at <= now - PENDING_FOR
    ids = list(session.execute(select(Payment.id).where(*pending)).scalars())
    lookups.enqueue(session, [LookupRequest("sale", id, now, now) for id in ids])
    return len(ids)


def request_unlisted(
    session: Session, reported: Iterable[ReportedTransaction], start: datetime, end: datetime, now: datetime
) -> int:
    """Look up the payments of this period that PayPal does not list and its API never confirmed. Return how many.

    They may be forged. Captures are left out: the look-up of a sale does not know them.
    """
    listed, in_period = {each.id for each in reported}, Payment.occurred_at.between(start, end)
    counted = in_period, Payment.status.in_(CAME), Payment.subscription_id.is_not(None)
    found = session.execute(select(Payment.id, Payment.known).where(*counted)).all()
    ids = [row.id for row in found if row.id not in listed and "read" not in row.known]
    lookups.enqueue(session, [LookupRequest("sale", id, now, now) for id in ids])
    return len(ids)


def _reason(each: ReportedTransaction, row: Any) -> str:
    what = "payment" if each.is_sale else "refund"
    if row is None or row.amount is None:
        return f"PayPal reports a {what} of {format_money(each.amount)}, which is not stored here"
    stored = Money(row.amount, row.currency)
    if stored != each.amount:
        return f"PayPal reports a {what} of {format_money(each.amount)}, but {format_money(stored)} is stored"
    if each.is_sale and row.status not in CAME:
        return f"PayPal reports a completed payment of {format_money(each.amount)}, but here it is {row.status}"
    if (
        each.is_sale
        and each.fee
        and row.fee is not None
        and each.fee.currency == row.currency
        and row.fee != each.fee.amount
    ):
        return f"PayPal reports a fee of {format_money(each.fee)}, but {format_money(Money(row.fee, row.currency))} is stored"
    return ""


def _rows(session: Session, table: type[Payment] | type[Refund], ids: list[str]) -> dict[str, Any]:
    found: Any = session.execute(select(table).where(in_list(table.id, ids))).scalars()
    return {row.id: row for row in found}


def _fee(value: Any) -> Money | None:
    found = _money(value)
    return None if found is None else abs(found)


def _money(value: Any) -> Money | None:
    if not isinstance(value, dict):
        return None
    try:
        return parse_amount(value.get("value"), value.get("currency_code"))
    except InvalidAmountError:
        return None
