"""Parse the events of our own actions at PayPal (`ACTION.…`): what was ordered, and the reason."""

from datetime import datetime
from typing import Any

from pipeline.paypal.field_reader import Facts, FieldReader, Person, format_moment, person_of


def read_action(kind: str, resource: dict[str, Any], occurred_at: datetime | None) -> tuple[Facts, Person]:
    """Return what was ordered for which object; the reason is personal data, because it may speak of the customer."""
    read = FieldReader(resource)
    object_id = read.id("id")
    facts = {
        "sale" if kind.startswith("ACTION.PAYMENT.") else "subscription": object_id,
        "action": read.id("action"),
        "at": format_moment(occurred_at),
        "plan": read.id("plan"),
        "quantity": read.number("quantity"),
    }
    if "subscription" in resource:
        facts["subscription"] = read.id("subscription")
    return facts, person_of(reason=read.text("reason", limit=500), actor=read.text("actor", limit=100))
