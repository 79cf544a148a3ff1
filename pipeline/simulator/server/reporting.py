"""Transaction Search: the account's transactions with running balances, and its balances.

It is derived from the sales, captures and refunds of the world. Data appears hours late, and a request may span 31 days
(https://developer.paypal.com/docs/api/transaction-search/v1/). Event codes: T0002 payment of a subscription, T0006 other
payment, T1107 refund, T1106 reversal by PayPal, T1202 chargeback reversal: the vendor won the dispute, T0200 currency
conversion (one entry for each currency).
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from pipeline.money import Money, parse_amount
from pipeline.simulator import shapes
from pipeline.simulator.server.answers import Answer, ApiError, Call, invalid, link_to, moment
from pipeline.simulator.server.feed import EventFeed
from pipeline.simulator.timeline import Json, Kind

MOST_DAYS = timedelta(days=31)
MOST_ITEMS = 10_000
ACCOUNT = "XZXSPECPDZHZU"  # the vendor's account, 13 characters
_STATUS = {"completed": "S", "partially_refunded": "S", "refunded": "S", "pending": "P", "denied": "D"}
_STATUS_V2 = {"COMPLETED": "S", "PARTIALLY_REFUNDED": "S", "REFUNDED": "S", "PENDING": "P", "DECLINED": "D"}
_PARTS = ("payer_info", "shipping_info", "cart_info", "store_info", "auction_info", "incentive_info")


@dataclass(frozen=True, slots=True)
class Entry:
    """One transaction. `amount` and `fee` are signed: a sale has a negative fee, a refund a negative amount."""

    id: str
    code: str
    at: datetime
    amount: Money
    fee: Money | None
    status: str
    reference: tuple[str, str] | None
    custom: str = ""
    subscription: str = ""
    held: bool = False

    @property
    def balance_change(self) -> Money:
        """The change of the account's balance."""
        if self.status != "S":
            return Money(0, self.amount.currency)
        return Money(self.amount.amount + (self.fee.amount if self.fee else 0), self.amount.currency)


class Reporting:
    """Reports on the world. Transactions of the last `delay` are not shown yet."""

    def __init__(self, feed: EventFeed, delay: timedelta) -> None:
        self._feed, self._world, self.delay = feed, feed.world, delay
        self._read: dict[tuple[Kind, str], tuple[int, list[Entry]]] = {}
        self._cached: tuple[int, list[tuple[Entry, Money]]] = (-1, [])

    def transactions(self, call: Call) -> Answer:
        """List transactions of at most 31 days, with a balance after each of them."""
        start, end = _window(call, self._feed.now)
        size, page = call.number("page_size", 100, 500), call.number("page", 1, 2**31 - 1)
        shown = self._refreshed()
        until = min(end, shown)
        found = [row for row in self._rows() if start <= row[0].at <= until and _asked(call, row[0])]
        if len(found) > MOST_ITEMS:
            message = "Result set size is greater than the maximum limit. Change the filter criteria and try again."
            raise ApiError(400, "RESULTSET_TOO_LARGE", message)
        pages = -(-len(found) // size)
        return 200, {
            "transaction_details": [
                self._detail(call, entry, balance) for entry, balance in found[(page - 1) * size : page * size]
            ],
            "account_number": ACCOUNT,
            "start_date": _time(start),
            "end_date": _time(end),
            "last_refreshed_datetime": _time(shown),
            "page": page,
            "total_items": len(found),
            "total_pages": pages,
            "links": _links(call, page, pages),
        }

    def balances(self, call: Call) -> Answer:
        """Return the balance of each currency at `as_of_time`, by default at the last refresh."""
        at, currency = call.time("as_of_time") or self._refreshed(), call.query.get("currency_code", "")
        totals: dict[str, int] = {}
        held: dict[str, int] = {}
        for entry in self._entries():
            change = entry.balance_change
            if entry.at <= min(at, self._refreshed()) and currency in ("", "ALL", change.currency):
                totals[change.currency] = totals.get(change.currency, 0) + change.amount
                held[change.currency] = held.get(change.currency, 0) + (change.amount if entry.held else 0)
        found = [
            _balance(code, total, held[code], primary=not index) for index, (code, total) in enumerate(totals.items())
        ]
        times = {"as_of_time": shapes.seconds(at), "last_refresh_time": shapes.seconds(self._refreshed())}
        return 200, {"balances": found, "account_id": ACCOUNT, **times}

    # Internal --------------------------------------------------------------------------------------------------------

    def _refreshed(self) -> datetime:
        return self._feed.now - self.delay

    def _entries(self) -> list[Entry]:
        """Return all transactions by time; those of the same second by id. Conversions follow their sale."""
        others = [
            *self._groups("capture", lambda capture: [_capture(capture)]),
            *self._groups("refund", _refund),
            *self._groups("capture_refund", lambda refund: [_capture_refund(refund)]),
        ]
        groups = [*self._groups("sale", _sale_with_conversions), *([entry] for group in others for entry in group)]
        ordered = sorted(groups, key=lambda group: (group[0].at, group[0].id))
        return [entry for group in ordered for entry in group]

    def _groups(self, kind: Kind, read: Callable[[Json], list[Entry]]) -> Iterator[list[Entry]]:
        """Yield the entries of each object. An unchanged object is read once."""
        for found in self._world.objects(kind):
            version, entries = self._read.get((kind, found.id), (-1, []))
            if version != found.version:
                entries = read(found.resource)
                self._read[kind, found.id] = found.version, entries
            yield entries

    def _rows(self) -> list[tuple[Entry, Money]]:
        """Return every transaction with the balance of its currency after it."""
        if self._cached[0] == self._world.revision:
            return self._cached[1]
        revision, balances, rows = self._world.revision, dict[str, int](), list[tuple[Entry, Money]]()
        for entry in self._entries():
            change = entry.balance_change
            balances[change.currency] = balances.get(change.currency, 0) + change.amount
            rows.append((entry, Money(balances[change.currency], change.currency)))
        self._cached = revision, rows
        return rows

    def _detail(self, call: Call, entry: Entry, balance: Money) -> Json:
        fields = call.choices("fields") or {"transaction_info"}
        shown: Json = {"transaction_info": _info(entry, balance)}
        for part in _PARTS:
            if "all" in fields or part in fields:
                shown[part] = self._payer(entry) if part == "payer_info" else {}
        return shown

    def _payer(self, entry: Entry) -> Json:
        found = self._world.show("subscription", entry.subscription) or {}
        payer = found.get("subscriber", {})
        address = payer.get("shipping_address", {}).get("address", {})
        facts = {
            "account_id": payer.get("payer_id"),
            "email_address": payer.get("email_address"),
            "address_status": "N",
            "payer_status": "Y",
            "payer_name": payer.get("name"),
            "country_code": address.get("country_code"),
        }
        return {key: value for key, value in facts.items() if value}


def _window(call: Call, now: datetime) -> tuple[datetime, datetime]:
    start, end = call.time("start_date", required=True), call.time("end_date", required=True)
    if start is None or end is None:
        raise invalid("MISSING_REQUIRED_PARAMETER", "start_date")
    problem = ""
    if end - start > MOST_DAYS:
        problem = "Date range is greater than 31 days"
    elif end < start:
        problem = "End date is earlier than start date"
    elif start > now:
        problem = "Start date is in the future"
    elif start < now - timedelta(days=3 * 366):
        problem = "Start date is more than three years ago"
    if problem:
        detail = {"field": "end_date", "value": call.query["end_date"], "location": "query", "issue": problem}
        raise ApiError(400, "INVALID_REQUEST", "Invalid request - see details.", [detail])
    return start, end


def _asked(call: Call, entry: Entry) -> bool:
    """Return whether the entry matches the filters. By default only transactions that change the balance do."""
    query = call.query
    return (
        query.get("transaction_id", entry.id) == entry.id
        and query.get("transaction_type", entry.code) == entry.code
        and query.get("transaction_status", entry.status) == entry.status
        and query.get("transaction_currency", entry.amount.currency) == entry.amount.currency
        and (query.get("balance_affecting_records_only", "Y") == "N" or entry.status == "S")
    )


def _info(entry: Entry, balance: Money) -> Json:
    reference = {}
    if entry.reference:
        reference = {"paypal_reference_id": entry.reference[0], "paypal_reference_id_type": entry.reference[1]}
    return {
        "paypal_account_id": ACCOUNT,
        "transaction_id": entry.id,
        **reference,
        "transaction_event_code": entry.code,
        "transaction_initiation_date": _time(entry.at),
        "transaction_updated_date": _time(entry.at),
        "transaction_amount": shapes.decimals(entry.amount),
        **({"fee_amount": shapes.decimals(entry.fee)} if entry.fee else {}),
        "transaction_status": entry.status,
        "ending_balance": shapes.decimals(balance),
        "available_balance": shapes.decimals(balance),
        **({"custom_field": entry.custom} if entry.custom else {}),
        "protection_eligibility": "01",
    }


def _sale(sale: Json) -> Entry:
    subscription, cost = sale.get("billing_agreement_id", ""), sale.get("transaction_fee")
    amount = parse_amount(sale["amount"]["total"], sale["amount"]["currency"])
    # A fee in another currency is already deducted from the amount that the vendor receives after the conversion.
    same = cost and cost["currency"] == amount.currency
    fee = -parse_amount(cost["value"], cost["currency"]) if cost and same else None
    return Entry(
        sale["id"],
        "T0002" if subscription else "T0006",
        moment(sale, "create_time"),
        amount,
        fee,
        _STATUS[sale["state"]],
        (subscription, "SUB") if subscription else None,
        sale.get("custom", ""),
        subscription,
        sale.get("payment_hold_status") == "HELD",
    )


def _sale_with_conversions(sale: Json) -> list[Entry]:
    entry = _sale(sale)
    return [entry, *_conversions(entry, sale)]


def _conversions(entry: Entry, sale: Json) -> list[Entry]:
    """Return the two entries of a sale that PayPal converts to the account's currency at once; else none."""
    received = sale.get("receivable_amount")
    if not received or received["currency"] == entry.amount.currency or entry.status != "S":
        return []
    bought = parse_amount(received["value"], received["currency"])
    reference = (entry.id, "TXN")
    return [
        Entry(_derived_id(entry.id, money), "T0200", entry.at, money, None, "S", reference)
        for money in (-entry.balance_change, bought)
    ]


def _derived_id(id: str, money: Money) -> str:
    return hashlib.sha256(f"{id}{money}".encode()).hexdigest()[:16].upper() + "C"


def _refund(refund: Json) -> list[Entry]:
    """Return the entry of a refund or reversal, and one for the money that came back if it was cancelled."""
    amount = -Money(abs(shapes.refunded_amount(refund)), refund["amount"]["currency"])
    kept = refund.get("refund_from_transaction_fee", {})
    returned = parse_amount(kept["total"], kept["currency"]) if kept.get("total") else None
    code = "T1106" if refund.get("refund_reason_code") == "CHARGEBACK" else "T1107"
    reference = (refund["sale_id"], "TXN") if "sale_id" in refund else None
    entry = Entry(refund["id"], code, moment(refund, "create_time"), amount, returned, "S", reference)
    if refund.get("state") != "cancelled":
        return [entry]
    back = _derived_id(refund["id"], -amount)
    return [entry, Entry(back, "T1202", moment(refund, "update_time"), -amount, None, "S", (refund["id"], "TXN"))]


def _capture(capture: Json) -> Entry:
    parts = capture.get("seller_receivable_breakdown", {})
    cost = parts.get("paypal_fee")
    return Entry(
        capture["id"],
        "T0006",
        moment(capture, "create_time"),
        parse_amount(capture["amount"]["value"], capture["amount"]["currency_code"]),
        -parse_amount(cost["value"], cost["currency_code"]) if cost else None,
        _STATUS_V2.get(capture["status"], "P"),
        None,
        capture.get("custom_id", ""),
    )


def _capture_refund(refund: Json) -> Entry:
    amount = -Money(abs(shapes.refunded_amount(refund)), refund["amount"]["currency_code"])
    capture = shapes.refunded_payment(refund, "capture")
    reference = (capture, "TXN") if capture else None
    return Entry(refund["id"], "T1107", moment(refund, "create_time"), amount, None, "S", reference)


def _balance(code: str, total: int, held: int, *, primary: bool) -> Json:
    return {
        "currency": code,
        "primary": primary,
        "total_balance": shapes.decimals(Money(total, code)),
        "available_balance": shapes.decimals(Money(total - held, code)),
        "withheld_balance": shapes.decimals(Money(held, code)),
    }


def _links(call: Call, page: int, pages: int) -> list[Json]:
    """Return the links of a page; Transaction Search names the one before `prev`."""
    targets = {"self": page, "next": page + 1, "prev": page - 1, "last": pages}
    shown = [name for name, number in targets.items() if name == "self" or 1 <= number <= pages]
    return [link_to(call, {**call.query, "page": targets[name]}, name) for name in shown]


def _time(at: datetime) -> str:
    """Return a time as Transaction Search writes it: `2026-03-01T10:00:00+0000`, without a colon."""
    return at.strftime("%Y-%m-%dT%H:%M:%S+0000")
