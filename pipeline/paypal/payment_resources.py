"""Parse sales and refunds (Payments v1) into facts; `resources` lists their keys."""

import re
from datetime import datetime
from typing import Any

from pipeline.paypal.field_reader import Facts, FieldReader, Person, format_moment, person_of

SUBSCRIPTION = "I-"  # other agreements, such as B-… for reference transactions, are no subscriptions
_SALE_LINK = re.compile(r"/sales?/([A-Z0-9]{10,20})(?:/|$)", re.ASCII)


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
        "sale": read.id("sale_id") or _linked_sale(read.get("links")),
        "amount": amount and [abs(amount[0]), amount[1]],
        "refunded_total": total and [abs(total[0]), total[1]],
        "state": (read.text("state") or "").lower() or None,
        "created_at": created_at,
        "at": read.time("update_time") or created_at,
        "unread": read.unread or None,
    }
    return facts, person_of(custom=read.text("custom", limit=127))


def _linked_sale(links: Any) -> str | None:
    """Return the sale's id from its link. The link itself is never followed."""
    for link in links if isinstance(links, list) else []:
        if isinstance(link, dict) and link.get("rel") == "sale":
            match = _SALE_LINK.search(str(link.get("href")))
            if match:
                return match[1]
    return None
