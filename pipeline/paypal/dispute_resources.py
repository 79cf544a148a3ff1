"""Parse disputes (Disputes v1) into facts; `resources` lists their keys.

https://developer.paypal.com/docs/api/customer-disputes/v1/#disputes_get
"""

from datetime import datetime
from typing import Any

from pipeline.paypal.field_reader import Facts, FieldReader, Person, format_moment
from pipeline.paypal.references import find_references

LISTED = 50  # a dispute names at most this many transactions here


def read_dispute(_kind: str, resource: dict[str, Any], occurred_at: datetime | None) -> tuple[Facts, Person]:
    """Return the facts of a dispute, and the ids of its customer. `sale` is the first of the disputed `sales`."""
    references, person = find_references(resource)
    read = FieldReader(resource)
    sales, created_at = _sales(read.get("disputed_transactions")), read.time("create_time")
    facts = {
        **references,
        "dispute": read.id("dispute_id"),
        "sale": sales[0] if sales else None,
        "sales": sales or None,
        "status": read.text("status", limit=40),
        "stage": read.text("dispute_life_cycle_stage", limit=40),
        "reason": read.text("reason", limit=60),
        "amount": read.money("dispute_amount"),
        "due_at": read.time("seller_response_due_date"),
        "outcome": read.text("dispute_outcome", "outcome_code", limit=60),
        "created_at": created_at or format_moment(occurred_at),
        "at": read.time("update_time") or format_moment(occurred_at) or created_at,
        "unread": read.unread or None,
    }
    return facts, person


def _sales(transactions: Any) -> list[str]:
    named = transactions if isinstance(transactions, list) else []
    ids = [FieldReader(each).id("seller_transaction_id") for each in named[:LISTED] if isinstance(each, dict)]
    return [id for id in ids if id]
