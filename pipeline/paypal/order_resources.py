"""Parse the money of orders (Orders v2) and invoices (Invoicing v1 and v2) into facts; `resources` lists their keys.

The sale or capture of an order or invoice has its own events. The facts keep the money after the encrypted body is gone.
"""

from datetime import datetime
from typing import Any

from pipeline.paypal.field_reader import Facts, FieldReader, Person, format_moment
from pipeline.paypal.references import find_references

LISTED = 50  # an order or invoice names at most this many transactions here


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
    """Return the facts of an invoice: its id, status, total, paid and refunded amount, and its transactions."""
    references, person = find_references(resource)
    nested = resource.get("invoice")  # version 2 nests the invoice
    read = FieldReader(nested if isinstance(nested, dict) else resource)
    payments = read.get("payments")
    paid = payments if isinstance(payments, list) else read.get("payments", "transactions")
    transactions = [FieldReader(each) for each in _objects(paid)]
    # A payment of the type EXTERNAL was made outside PayPal, for example in cash.
    inside = [each for each in transactions if each.text("type") != "EXTERNAL"]
    ids = [each.id("transaction_id") or each.id("payment_id") for each in inside]
    facts = {
        **references,
        "invoice": read.id("id"),
        "status": read.text("status", limit=40),
        "amount": read.money("total_amount") or read.money("amount"),
        "paid": read.money("paid_amount", "paypal") or read.money("payments", "paid_amount"),
        "refunded": read.money("refunded_amount", "paypal") or read.money("refunds", "refund_amount"),
        "transactions": [id for id in ids if id] or None,
        "at": format_moment(occurred_at),
        "unread": read.unread or None,
    }
    return facts, person


def _objects(values: Any) -> list[dict[str, Any]]:
    return [value for value in values[:LISTED] if isinstance(value, dict)] if isinstance(values, list) else []
