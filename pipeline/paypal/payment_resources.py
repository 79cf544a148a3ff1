"""Parse sales and refunds (Payments v1), captures and their refunds (Payments v2) into facts; `resources` lists their keys."""

import re
from datetime import datetime
from typing import Any

from pipeline.clock import parse_time
from pipeline.paypal.field_reader import Facts, FieldReader, Person, format_moment, person_of

SUBSCRIPTION = "I-"  # other agreements, such as B-… for reference transactions, are no subscriptions
_SALE_LINK = re.compile(r"/sales?/([A-Z0-9]{10,20})(?:/|$)", re.ASCII)
_CAPTURE_LINK = re.compile(r"/captures/([A-Z0-9]{10,20})(?:/|$)", re.ASCII)
_RATE = re.compile(r"[0-9]{1,12}(\.[0-9]{1,15})?", re.ASCII)


def read_sale(_kind: str, resource: dict[str, Any], occurred_at: datetime | None) -> tuple[Facts, Person]:
    """Return the facts and the personal data of a sale."""
    read = FieldReader(resource)
    created_at = read.time("create_time") or read.time("time") or format_moment(occurred_at)
    agreement = read.id("billing_agreement_id")
    facts = {
        "sale": read.id("id"),
        "subscription": agreement if agreement and agreement.startswith(SUBSCRIPTION) else None,
        "agreement": agreement if agreement and not agreement.startswith(SUBSCRIPTION) else None,
        "amount": read.money("amount"),
        "fee": read.money("transaction_fee"),
        "tax": _detail(read, "tax"),
        "shipping": _detail(read, "shipping"),
        "received": read.money("receivable_amount"),
        "rate": _rate(read, "exchange_rate"),
        "held": read.text("payment_hold_status") == "HELD" or None,
        "state": (read.text("state") or "").lower() or None,
        "created_at": created_at,
        "at": read.time("update_time") or created_at,
        "reason": read.text("reason_code", limit=60),
        "unread": read.unread or None,
    }
    return facts, person_of(custom=read.text("custom", limit=127))


def read_refund(_kind: str, resource: dict[str, Any], occurred_at: datetime | None) -> tuple[Facts, Person]:
    """Parse a refund or reversal. Its amount may be negative, and its sale may occur only in a link."""
    read = FieldReader(resource)
    amount, total = read.money("amount"), read.money("total_refunded_amount")
    created_at = read.time("create_time") or format_moment(occurred_at)
    facts = {
        "refund": read.id("id"),
        "sale": read.id("sale_id") or _linked(read.get("links"), "sale", _SALE_LINK),
        "amount": _positive(amount),
        "refunded_total": _positive(total),
        "returned_fee": _positive(read.money("refund_from_transaction_fee")),
        "received": _positive(read.money("refund_from_received_amount")),
        "state": (read.text("state") or "").lower() or None,
        "created_at": created_at,
        "at": read.time("update_time") or created_at,
        "unread": read.unread or None,
    }
    return facts, person_of(custom=read.text("custom", limit=127))


def read_capture(_kind: str, resource: dict[str, Any], occurred_at: datetime | None) -> tuple[Facts, Person]:
    """Return the facts and the personal data of a capture. It is stored like a sale, so its id is the fact `sale`."""
    read, breakdown = FieldReader(resource), "seller_receivable_breakdown"
    created_at = read.time("create_time") or format_moment(occurred_at)
    facts = {
        "sale": read.id("id"),
        "order": read.id("supplementary_data", "related_ids", "order_id"),
        "amount": read.money("amount"),
        "fee": read.money(breakdown, "paypal_fee"),
        "received": read.money(breakdown, "receivable_amount"),
        "rate": _rate(read, breakdown, "exchange_rate", "value"),
        "state": (read.text("status") or "").lower() or None,
        "created_at": created_at,
        "at": _later(read.time("update_time") or created_at, occurred_at),
        "reason": read.text("status_details", "reason", limit=60),
        "unread": read.unread or None,
    }
    return facts, person_of(custom=read.text("custom_id", limit=127))


def read_capture_refund(_kind: str, resource: dict[str, Any], occurred_at: datetime | None) -> tuple[Facts, Person]:
    """Parse a refund or reversal of a capture. The capture's id occurs only in the link `up`."""
    read, breakdown = FieldReader(resource), "seller_payable_breakdown"
    created_at = read.time("create_time") or format_moment(occurred_at)
    facts = {
        "refund": read.id("id"),
        "sale": _linked(read.get("links"), "up", _CAPTURE_LINK),
        "amount": _positive(read.money("amount")),
        "refunded_total": _positive(read.money(breakdown, "total_refunded_amount")),
        "returned_fee": _positive(read.money(breakdown, "paypal_fee")),
        "received": _positive(read.money(breakdown, "net_amount_in_receivable_currency")),
        "state": (read.text("status") or "").lower() or None,
        "created_at": created_at,
        "at": _later(read.time("update_time") or created_at, occurred_at),
        "unread": read.unread or None,
    }
    return facts, person_of(custom=read.text("custom_id", limit=127))


def _detail(read: FieldReader, name: str) -> list[Any] | None:
    """Return a part of the amount, for example its tax. PayPal writes it as a text in the currency of the amount."""
    value = read.get("amount", "details", name)
    if value in (None, ""):
        return None
    part = FieldReader({name: {"value": value, "currency": read.get("amount", "currency")}})
    money = part.money(name)
    read.unread += [f"amount.details.{each}" for each in part.unread]
    return money


def _rate(read: FieldReader, *path: str) -> str | None:
    """Return the exchange rate as decimal text; None if there is none or if it is not a number."""
    rate = read.text(*path)
    return rate if rate and _RATE.fullmatch(rate) else None


def _positive(money: list[Any] | None) -> list[Any] | None:
    return money and [abs(money[0]), money[1]]


def _later(updated_at: str | None, occurred_at: datetime | None) -> str | None:
    """Return the later time. PayPal repeats the update time of a refund in the event that it failed."""
    updated = parse_time(updated_at)
    return format_moment(max(updated, occurred_at)) if updated and occurred_at else updated_at


def _linked(links: Any, rel: str, pattern: re.Pattern[str]) -> str | None:
    """Return the payment's id from its link. The link itself is never followed."""
    for link in links if isinstance(links, list) else []:
        if isinstance(link, dict) and link.get("rel") == rel:
            match = pattern.search(str(link.get("href")))
            if match:
                return match[1]
    return None
