"""The event that a handler receives, and the three exceptions that a handler may raise."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from pipeline.clock import format_time, parse_time
from pipeline.paypal.requests import LookupKind

# Facts that say when something happened.
PAST = ("at", "status_at", "created_at", "last_payment_at", "failed_at")


@dataclass(frozen=True, slots=True)
class Event:
    """One event from the inbox.

    `facts` has the format of `paypal.resources`. `person` is the personal data in the event, {} once erased.
    """

    id: str
    type: str
    source: str
    occurred_at: datetime | None
    received_at: datetime
    facts: Mapping[str, Any]
    person: Mapping[str, str] = field(default_factory=dict, repr=False)

    def require(self, fact: str) -> Any:
        """Return the fact. Raises ParkEvent if it is missing: the event cannot be handled without it."""
        if fact not in self.facts:
            unread = ", ".join(self.facts.get("unread", ()))
            raise ParkEvent(f"{self.type} has no {fact}" + (f" (unreadable fields: {unread})" if unread else ""))
        return self.facts[fact]

    def require_time(self, fact: str) -> datetime:
        """Return the fact as a time. Raises ParkEvent if it is missing or not a time."""
        moment = parse_time(self.require(fact))
        if moment is None:
            raise ParkEvent(f"{self.type}: {fact} is not a valid time")
        return moment

    def get_time(self, fact: str) -> datetime | None:
        """Return the fact as a time, None if it is missing or not a time."""
        return parse_time(self.facts.get(fact))

    def require_past(self, max_ahead: timedelta) -> None:
        """Raise ParkEvent if something happened further ahead of the event's reception than `max_ahead`.

        Such a time is wrong, and would outrank everything that PayPal reports until then.
        """
        limit = format_time(self.received_at + max_ahead)
        for name in PAST:
            if (written := self.facts.get(name, "")) > limit:
                raise ParkEvent(
                    f"{self.type}: {name} is {written}, but the event was received {format_time(self.received_at)}"
                )


class NeedsLookup(Exception):
    """A fact is missing: look this object up in PayPal's API, then retry the event."""

    def __init__(self, kind: LookupKind, id: str) -> None:
        super().__init__(f"needs {kind} {id} from PayPal")
        self.kind, self.id = kind, id


class RetryLater(Exception):
    """Retry the event after this time. It does not count as a failed attempt."""

    def __init__(self, after: timedelta, reason: str) -> None:
        super().__init__(reason)
        self.after, self.reason = after, reason


class ParkEvent(Exception):
    """The event needs a manual decision. The reason is shown to the operator and must not contain personal data."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
