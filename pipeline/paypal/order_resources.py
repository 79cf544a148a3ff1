"""Parse the money of orders (Orders v2) and invoices (Invoicing v1 and v2) into facts; `resources` lists their keys.

The sale or capture of an order or invoice has its own events. The facts keep the money after the encrypted body is gone.
"""

import re
from datetime import datetime
from typing import Any

from pipeline.paypal.field_reader import Facts, FieldReader, Person, format_moment
from pipeline.paypal.references import find_references

LISTED = 50  # an order or invoice names at most this many transactions here
_NUMBER = re.compile(r"[#A-Za-z0-9./_-]{1,25}", re.ASCII)  # PayPal allows 25 characters of any kind


def read_order(_kind: str, resource: dict[str, Any], occurred_at: datetime | None) -> tuple[Facts, Person]:
    """Return the facts of an order: its id, status, and the amount of each purchase unit."""
    references, person = find_references(resource)
    read = FieldReader(resource)
    amounts = [FieldReader(unit).money("amount") for unit in _objects(read.get("purchase_units"))]
    facts = {
        **references,
        "order": read.id("id"),
        "status": read.text("status", limit=40),
        "amounts": [amount for amount in amounts if amount] or None,
        "created_at": read.time("create_time"),
        "at": read.time("update_time") or format_moment(occurred_at),
        "unread": read.unread or None,
    }
    return facts, person


def read_invoice(_kind: str, resource: dict[str, Any], occurred_at: datetime | None) -> tuple[Facts, Person]:
    """Return the facts of an invoice: its ids, status, amounts, and its transactions and refunds at PayPal.

    `amount` is the total with tax. Version 1 (https://developer.paypal.com/api/deprecated/invoicing/v1/) names no total of
    the tax, and its `number` is redacted, because card numbers have that name. Version 2: https://developer.paypal.com/docs/api/invoicing/v2/
    """
    references, person = find_references(resource)
    nested = resource.get("invoice")  # version 2 nests the invoice
    read = FieldReader(nested if isinstance(nested, dict) else resource)
    facts = {
        **references,
        "invoice": read.id("id"),
        "number": _number(read.text("detail", "invoice_number")),
        "status": read.text("status", limit=40),
        "amount": read.money("total_amount") or read.money("amount"),
        "tax": read.money("amount", "breakdown", "tax_total"),
        "paid": read.money("paid_amount", "paypal") or read.money("payments", "paid_amount"),
        "refunded": read.money("refunded_amount", "paypal") or read.money("refunds", "refund_amount"),
        "due": read.money("due_amount"),
        "transactions": _ids_at_paypal(read, "payments", "payment_id"),
        "refunds": _ids_at_paypal(read, "refunds", "refund_id"),
        "at": format_moment(occurred_at),
        "unread": read.unread or None,
    }
    return facts, person


def _number(text: str | None) -> str | None:
    """Return the vendor's number of an invoice. Any other text may name a person, and facts are stored in plain text."""
    return text if text and _NUMBER.fullmatch(text) else None


def _ids_at_paypal(read: FieldReader, name: str, id_name: str) -> list[str] | None:
    """Return the ids of payments or refunds. Those of the type EXTERNAL were made outside PayPal, for example in cash."""
    listed = read.get(name)
    rows = _objects(listed if isinstance(listed, list) else read.get(name, "transactions"))
    inside = [FieldReader(each) for each in rows if each.get("type") != "EXTERNAL"]
    ids = [each.id("transaction_id") or each.id(id_name) for each in inside]
    return [id for id in ids if id] or None


def _objects(values: Any) -> list[dict[str, Any]]:
    return [value for value in values[:LISTED] if isinstance(value, dict)] if isinstance(values, list) else []
