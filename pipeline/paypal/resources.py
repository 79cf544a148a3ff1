"""Parse PayPal's resources, old and new formats, into facts and personal data with the same keys.

Subscription: subscription, status, status_at, at, plan, terms, quantity, start_at, next_billing_at, last_payment_at,
failed_count, outstanding, failed_at, failed_amount, failed_reason, retry_at, shipping, cycles_left.
Sale: sale, subscription, amount, fee, held, state, created_at, at, reason.
Refund: refund, sale, amount, refunded_total, state, created_at, at.
Plan: plan, name, terms, at.
Money is [minor units, currency]. Times are ISO 8601 in UTC. `unread` lists the fields that could not be read.
"""

import re
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from typing import Any

from pipeline.clock import format_time, parse_time
from pipeline.money import InvalidAmountError, parse_amount

Facts = dict[str, Any]
Person = dict[str, str]

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# An id of PayPal's never has the form of a customer's id, because both are key ids; see `crypto.key_ids`.
_ID = re.compile(r"(?![a-z][0-9a-f]{30}\Z)[A-Za-z0-9._~-]{1,50}", re.ASCII)
_SALE_LINK = re.compile(r"/sales?/([A-Z0-9]{10,20})(?:/|$)", re.ASCII)

# PayPal's status names: those of the Subscriptions API, and those of the old billing agreements.
STATUSES = {
    "APPROVAL_PENDING": "APPROVAL_PENDING",
    "APPROVED": "APPROVED",
    "ACTIVE": "ACTIVE",
    "SUSPENDED": "SUSPENDED",
    "CANCELLED": "CANCELLED",
    "EXPIRED": "EXPIRED",
    "PENDING": "APPROVAL_PENDING",
    "CREATED": "APPROVAL_PENDING",
    "REACTIVATED": "ACTIVE",
    "SUSPEND": "SUSPENDED",
    "CANCEL": "CANCELLED",
    "CANCELED": "CANCELLED",
    "COMPLETED": "EXPIRED",
}
# The status that follows from the event type, for resources without a status.
STATUS_OF_EVENT = {
    "BILLING.SUBSCRIPTION.CREATED": "APPROVAL_PENDING",
    "BILLING.SUBSCRIPTION.ACTIVATED": "ACTIVE",
    "BILLING.SUBSCRIPTION.RE-ACTIVATED": "ACTIVE",
    "BILLING.SUBSCRIPTION.SUSPENDED": "SUSPENDED",
    "BILLING.SUBSCRIPTION.CANCELLED": "CANCELLED",
    "BILLING.SUBSCRIPTION.EXPIRED": "EXPIRED",
}
YEARS = range(1970, 2200)  # plausible years; beyond them, arithmetic with times could overflow
LONGEST = 366  # units of a billing cycle; PayPal allows 365 days, 52 weeks, 12 months or one year
UNITS = frozenset({"DAY", "WEEK", "MONTH", "YEAR"})


class FieldReader:
    """Reads the fields of a resource. Adds the names of unreadable fields to `unread` instead of raising."""

    def __init__(self, resource: dict[str, Any]) -> None:
        self.resource = resource
        self.unread: list[str] = []

    def get(self, *path: str) -> Any:
        """Return the value at a path of keys, or None."""
        value: Any = self.resource
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def id(self, *path: str) -> str | None:
        value = self.get(*path)
        if isinstance(value, str) and _ID.fullmatch(value):
            return value
        self._record_unreadable(path, value)
        return None

    def text(self, *path: str, limit: int = 200) -> str | None:
        """Return a text without control characters, which columns and mail headers may refuse."""
        value = self.get(*path)
        if not isinstance(value, str):
            return None
        plain = value if value.isprintable() else _CONTROL.sub(" ", value)
        return plain.strip()[:limit].strip() or None

    def time(self, *path: str) -> str | None:
        value = self.get(*path)
        written = _time(value) if isinstance(value, str) else None
        if written is None:
            self._record_unreadable(path, value)
        return written

    def number(self, *path: str) -> int | None:
        """Return a count. PayPal writes some counts as text."""
        value = self.get(*path)
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
            return int(value)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**9:
            return value
        self._record_unreadable(path, value)
        return None

    def money(self, *path: str, currency: str | None = None) -> list[Any] | None:
        """Return `[minor units, currency]` from {value, currency_code}, {total, currency} or {value, currency}."""
        value = self.get(*path)
        if not isinstance(value, dict):
            self._record_unreadable(path, value)
            return None
        amount = value.get("value", value.get("total"))
        try:
            money = parse_amount(amount, value.get("currency_code") or value.get("currency") or currency)
        except InvalidAmountError:
            self._record_unreadable(path, value)
            return None
        return [money.amount, money.currency]

    def _record_unreadable(self, path: tuple[str, ...], value: Any) -> None:
        """Add the field to `unread`, unless it is empty."""
        name = ".".join(path)
        if value not in (None, "", {}) and name not in self.unread:
            self.unread.append(name)


@lru_cache(1024)
def _time(text: str) -> str | None:
    """Return the time in our format. Cached, because most times occur more than once in an event."""
    moment = parse_time(text)
    return format_time(moment) if moment and moment.year in YEARS else None


def text_of(document: dict[str, Any], key: str, limit: int) -> str:
    """Return a printable text of at most `limit` characters, or ""."""
    value = document.get(key)
    return value[:limit] if isinstance(value, str) and value.isprintable() else ""


def _subscription(kind: str, resource: dict[str, Any], occurred_at: datetime | None) -> tuple[Facts, Person]:
    if "agreement_details" in resource or "payer" in resource:
        return _agreement(kind, resource, occurred_at)
    read = FieldReader(resource)
    failed = ("billing_info", "last_failed_payment")
    status_at = read.time("status_update_time")
    facts = {
        "subscription": read.id("id"),
        "status": _status(kind, read.text("status")),
        "status_at": status_at or read.time("update_time") or _format(occurred_at),
        "at": read.time("update_time") or status_at or _format(occurred_at) or read.time("create_time"),
        "plan": read.id("plan_id"),
        "terms": _v2_billing_cycle(read.get("plan")),
        "quantity": read.number("quantity"),
        "start_at": read.time("start_time"),
        "next_billing_at": read.time("billing_info", "next_billing_time"),
        "last_payment_at": read.time("billing_info", "last_payment", "time"),
        "failed_count": read.number("billing_info", "failed_payments_count"),
        "outstanding": read.money("billing_info", "outstanding_balance"),
        "shipping": read.money("shipping_amount"),
        "cycles_left": _cycles_left(read.get("billing_info", "cycle_executions")),
        "failed_at": read.time(*failed, "time"),
        "failed_amount": read.money(*failed, "amount"),
        "failed_reason": read.text(*failed, "reason_code", limit=60),
        # PayPal's mock server and PayPal's specification use different names for this field.
        "retry_at": read.time(*failed, "next_payment_retry_time") or read.time(*failed, "next_payment_retry_date"),
        "unread": read.unread or None,
    }
    return facts, _subscriber(read)


def _subscriber(read: FieldReader) -> Person:
    return _person(
        custom=read.text("custom_id", limit=127),
        payer=read.text("subscriber", "payer_id", limit=50),
        given_name=read.text("subscriber", "name", "given_name"),
        surname=read.text("subscriber", "name", "surname"),
        email=read.text("subscriber", "email_address", limit=254),
    )


def _agreement(kind: str, resource: dict[str, Any], occurred_at: datetime | None) -> tuple[Facts, Person]:
    """Parse a billing agreement (v1). It has no update time, so the event's time is used. It contains its plan."""
    read = FieldReader(resource)
    currency = read.text("plan", "curr_code")
    details = "agreement_details"
    facts = {
        "subscription": read.id("id"),
        "status": _status(kind, read.text("state")),
        "status_at": _format(occurred_at),
        "at": _format(occurred_at),
        "terms": _v1_billing_cycle(read.get("plan"), currency),
        "start_at": read.time("start_date"),
        "next_billing_at": read.time(details, "next_billing_date"),
        "last_payment_at": read.time(details, "last_payment_date"),
        "failed_count": read.number(details, "failed_payment_count"),
        "outstanding": read.money(details, "outstanding_balance", currency=currency),
        "unread": read.unread or None,
    }
    info = ("payer", "payer_info")
    return facts, _person(
        payer=read.text(*info, "payer_id", limit=50),
        given_name=read.text(*info, "first_name"),
        surname=read.text(*info, "last_name"),
        email=read.text(*info, "email", limit=254),
    )


def _sale(_kind: str, resource: dict[str, Any], occurred_at: datetime | None) -> tuple[Facts, Person]:
    read = FieldReader(resource)
    created_at = read.time("create_time") or read.time("time") or _format(occurred_at)
    facts = {
        "sale": read.id("id"),
        "subscription": read.id("billing_agreement_id"),
        "amount": read.money("amount"),
        "fee": read.money("transaction_fee"),
        "held": read.text("payment_hold_status") == "HELD" or None,
        "state": (read.text("state") or "").lower() or None,
        "created_at": created_at,
        "at": read.time("update_time") or created_at,
        "reason": read.text("reason_code", limit=60),
        "unread": read.unread or None,
    }
    return facts, _person(custom=read.text("custom", limit=127))


def _refund(_kind: str, resource: dict[str, Any], occurred_at: datetime | None) -> tuple[Facts, Person]:
    """Parse a refund or reversal. Its amount may be negative, and its sale may occur only in a link."""
    read = FieldReader(resource)
    amount, total = read.money("amount"), read.money("total_refunded_amount")
    created_at = read.time("create_time") or _format(occurred_at)
    facts = {
        "refund": read.id("id"),
        "sale": read.id("sale_id") or _linked_sale(read.get("links")),
        "amount": amount and [abs(amount[0]), amount[1]],
        "refunded_total": total and [abs(total[0]), total[1]],
        "state": (read.text("state") or "").lower() or None,
        "created_at": created_at,
        "at": read.time("update_time") or created_at,
        "unread": read.unread or None,
    }
    return facts, _person(custom=read.text("custom", limit=127))


def _plan(_kind: str, resource: dict[str, Any], occurred_at: datetime | None) -> tuple[Facts, Person]:
    read = FieldReader(resource)
    facts = {
        "plan": read.id("id"),
        "name": read.text("name", limit=127),
        "terms": _v2_billing_cycle(resource),
        "at": read.time("update_time") or read.time("create_time") or _format(occurred_at),
        "unread": read.unread or None,
    }
    return facts, {}


def _v2_billing_cycle(plan: Any) -> Facts | None:
    """Return interval and price of the regular cycle of a v2 plan, and what else decides the amount of a charge.

    `has_surcharge`: a tax is added to the price. `bills_balance`: PayPal adds outstanding amounts to the next charge.
    """
    regular = _regular_cycle(plan, "billing_cycles", "tenure_type")
    if regular is None:
        return None
    read = FieldReader(regular)
    unit, count = read.text("frequency", "interval_unit"), read.number("frequency", "interval_count") or 1
    if unit not in UNITS or count > LONGEST:
        return None
    price = read.money("pricing_scheme", "fixed_price")
    of = FieldReader(plan)
    adds_tax = of.get("taxes", "inclusive") is False and not _is_zero(of.get("taxes", "percentage"))
    bills_balance = of.get("payment_preferences", "auto_bill_outstanding") is True
    has_trial = len(plan["billing_cycles"]) > 1
    more = _true(has_surcharge=adds_tax, bills_balance=bills_balance, has_trial=has_trial)
    return {"unit": unit, "count": count, "price": price, **more}


def _true(**flags: bool) -> Facts:
    """Return the flags that are set."""
    return {name: True for name, flag in flags.items() if flag}


def _is_zero(percentage: Any) -> bool:
    try:
        return float(percentage) == 0
    except (TypeError, ValueError):
        return False


def _cycles_left(executions: Any) -> Facts | None:
    """Return how many cycles of each tenure PayPal will still charge: trial, and regular (None: without end)."""
    if not isinstance(executions, list) or not executions:
        return None
    cycles = [FieldReader(cycle) for cycle in executions if isinstance(cycle, dict)]
    # `total_cycles` 0 means no end; `cycles_remaining` is then 0 as well.
    left = {each.text("tenure_type"): each.number("cycles_remaining") for each in cycles if each.number("total_cycles")}
    return {"trial": left.get("TRIAL") or 0, "regular": left.get("REGULAR")}


def _regular_cycle(plan: Any, cycles: str, kind: str) -> dict[str, Any] | None:
    """Return the plan's regular cycle."""
    found = plan.get(cycles) if isinstance(plan, dict) else None
    for cycle in found if isinstance(found, list) else []:
        if isinstance(cycle, dict) and cycle.get(kind) == "REGULAR":
            return cycle
    return None


def _v1_billing_cycle(plan: Any, currency: str | None) -> Facts | None:
    """Return interval and price of the regular payment definition of a v1 plan."""
    regular = _regular_cycle(plan, "payment_definitions", "type")
    if regular is None:
        return None
    read = FieldReader(regular)
    unit, count = (read.text("frequency") or "").upper(), read.number("frequency_interval") or 1
    if unit not in UNITS or count > LONGEST:
        return None
    bills_balance = FieldReader(plan).get("merchant_preferences", "auto_bill_amount") == "YES"
    has_trial = len(plan["payment_definitions"]) > 1
    more = _true(has_surcharge=bool(read.get("charge_models")), bills_balance=bills_balance, has_trial=has_trial)
    return {"unit": unit, "count": count, "price": read.money("amount", currency=currency), **more}


def _status(kind: str, text: str | None) -> str | None:
    return STATUSES.get((text or "").upper()) or STATUS_OF_EVENT.get(kind)


def _linked_sale(links: Any) -> str | None:
    """Return the sale's id from its link. The link itself is never followed."""
    for link in links if isinstance(links, list) else []:
        if isinstance(link, dict) and link.get("rel") == "sale":
            match = _SALE_LINK.search(str(link.get("href")))
            if match:
                return match[1]
    return None


def _person(**parts: str | None) -> Person:
    return {name: part for name, part in parts.items() if part}


def _format(moment: datetime | None) -> str | None:
    return None if moment is None else format_time(moment)


# By prefix of the event type; a longer prefix comes before a shorter one.
READERS: dict[str, Callable[[str, dict[str, Any], datetime | None], tuple[Facts, Person]]] = {
    "BILLING.SUBSCRIPTION.": _subscription,
    "BILLING.PLAN.": _plan,
    "PAYMENT.SALE.REFUNDED": _refund,
    "PAYMENT.SALE.REVERSED": _refund,
    "PAYMENT.SALE.": _sale,
    "READ.SUBSCRIPTION": _subscription,
    "READ.PLAN": _plan,
    "READ.SALE": _sale,
    "READ.REFUND": _refund,
}
