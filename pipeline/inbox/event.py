"""What a handler receives, and the three words it may raise."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from pipeline.clock import parse_time
from pipeline.paypal.requests import LookupKind


@dataclass(frozen=True, slots=True)
class Event:
    """One event from the inbox. `facts` as in `resources`; `person` is what it tells of a person, {} once erased."""

    id: str
    type: str
    source: str
    occurred_at: datetime | None
    received_at: datetime
    facts: Mapping[str, Any]
    person: Mapping[str, str] = field(default_factory=dict, repr=False)

    def require(self, fact: str) -> Any:
        """The fact, or Park: an event without it cannot be handled, and guessing is not allowed."""
        if fact not in self.facts:
            unread = ", ".join(self.facts.get("unread", ()))
            raise ParkEvent(f"{self.type} has no {fact}" + (f" (could not read: {unread})" if unread else ""))
        return self.facts[fact]

    def require_time(self, fact: str) -> datetime:
        """The fact as a time, or Park."""
        moment = parse_time(self.require(fact))
        if moment is None:
            raise ParkEvent(f"{self.type}: {fact} cannot be read as a time")
        return moment

    def get_time(self, fact: str) -> datetime | None:
        """The fact as a time, None if there is none."""
        return parse_time(self.facts.get(fact))


class NeedsLookup(Exception):
    """A fact is lacking: ask PayPal for this object, then try the event again."""

    def __init__(self, kind: LookupKind, id: str) -> None:
        super().__init__(f"needs {kind} {id} from PayPal")
        self.kind, self.id = kind, id


class RetryLater(Exception):
    """Not yet: try the event again after this time. It does not count as a failure."""

    def __init__(self, after: timedelta, reason: str) -> None:
        super().__init__(reason)
        self.after, self.reason = after, reason


class ParkEvent(Exception):
    """Nobody but a person can say what to do. The reason is shown to the operator: no personal data in it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
