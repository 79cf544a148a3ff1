"""Parse events about the vendor's own PayPal account into facts; `resources` lists their keys.

PayPal describes these events by name only: https://developer.paypal.com/api/rest/webhooks/event-names/
"""

from datetime import datetime
from typing import Any

from pipeline.paypal.field_reader import Facts, FieldReader, Person, format_moment


def read_account(_kind: str, resource: dict[str, Any], occurred_at: datetime | None) -> tuple[Facts, Person]:
    """Return the account's id (`merchant_id`) and the time. The event contains no personal data of a customer."""
    read = FieldReader(resource)
    return {"account": read.id("merchant_id"), "at": format_moment(occurred_at), "unread": read.unread or None}, {}
