"""Parse events about the vendor's PayPal account, or one that is connected to its app, into facts.

PayPal describes these events by name only (https://developer.paypal.com/api/rest/webhooks/event-names/), so the names of
the fields other than `merchant_id` are an assumption. A field that is absent is left out.
"""

import re
from datetime import datetime
from typing import Any

from pipeline.paypal.field_reader import Facts, FieldReader, Person, format_moment

_CODE = re.compile(r"[A-Z][A-Z0-9_.-]*", re.ASCII)


def read_account(_kind: str, resource: dict[str, Any], occurred_at: datetime | None) -> tuple[Facts, Person]:
    """Return the account's id, the time, and type, reason and status of a limitation. No customer is named."""
    read = FieldReader(resource)
    facts = {
        "account": read.id("merchant_id"),
        "limitation": _code(read, "limitation_type") or _code(read, "type"),
        "reason": _code(read, "reason_code") or _code(read, "reason"),
        "status": _code(read, "status"),
        "at": format_moment(occurred_at),
        "unread": read.unread or None,
    }
    return facts, {}


def _code(read: FieldReader, name: str) -> str | None:
    """Return one of PayPal's codes. A free text is not one: it may name a person, and facts are stored in plain text."""
    text = read.text(name, limit=60)
    return text if text and _CODE.fullmatch(text) else None
