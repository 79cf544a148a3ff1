"""Which part found what a lost webhook reported, and after how long."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from statistics import median
from typing import Any

from sqlalchemy import select

from pipeline.db.models import Event
from pipeline.inbox.parsing import parse_webhook
from pipeline.simulator.timeline import Delivery
from tests.support.pipeline_under_test import PipelineUnderTest

Object = tuple[str, str]  # kind of a look-up, id
Sighting = tuple[datetime, str]  # when, and the part that brought it
REQUEST_VALID = timedelta(days=2)  # an answer this long after a reconciliation's request belongs to it
OBJECTS = (
    ("BILLING.SUBSCRIPTION.", "subscription", "subscription"),
    ("BILLING.PLAN.", "plan", "plan"),
    ("PAYMENT.SALE.REFUNDED", "refund", "refund"),
    ("PAYMENT.SALE.REVERSED", "refund", "refund"),
    ("PAYMENT.SALE.", "sale", "sale"),
    ("PAYMENT.CAPTURE.REFUNDED", "capture_refund", "refund"),
    ("PAYMENT.CAPTURE.REVERSED", "capture_refund", "refund"),
    ("PAYMENT.CAPTURE.", "capture", "sale"),
    ("CUSTOMER.DISPUTE.", "dispute", "dispute"),
    ("READ.SUBSCRIPTION", "subscription", "subscription"),
    ("READ.PLAN", "plan", "plan"),
    ("READ.SALE", "sale", "sale"),
    ("READ.REFUND", "refund", "refund"),
    ("READ.CAPTURE_REFUND", "capture_refund", "refund"),
    ("READ.CAPTURE", "capture", "sale"),
    ("READ.DISPUTE", "dispute", "dispute"),
)


@dataclass(slots=True)
class Detection:
    """How the lost events were found. `days` are from PayPal's event to the first knowledge of it."""

    lost: Counter[str] = field(default_factory=Counter)
    found_by: Counter[str] = field(default_factory=Counter)
    days: list[float] = field(default_factory=list)
    never: Counter[str] = field(default_factory=Counter)

    def as_json(self) -> dict[str, Any]:
        """Return the counts, with the median and the longest time in days."""
        times = {"median": round(median(self.days), 2), "max": round(max(self.days), 2)} if self.days else {}
        return {
            "lost": self.lost.total(), "lost_by_type": dict(self.lost.most_common()),
            "found_by": dict(self.found_by.most_common()), "missed_for_days": times,
            "never_found_by_type": dict(self.never.most_common()),
        }  # fmt: skip


def detect(
    pipeline: PipelineUnderTest, lost: Sequence[Delivery], requested: Mapping[Object, Sequence[Sighting]]
) -> Detection:
    """Return for each lost event which part brought its content first: the event itself, or an answer about its object."""
    imported, sightings = _sightings(pipeline, requested)
    result = Detection()
    for each in lost:
        result.lost[each.type] += 1
        of = _object(each.type, parse_webhook(each.body).facts)
        later = [seen for seen in sightings.get(of, ()) if seen[0] >= each.at] if of else []
        found = min([*later, *([imported[each.id]] if each.id in imported else [])], default=None)
        if found is None:
            result.never[each.type] += 1
            continue
        result.found_by[found[1]] += 1
        result.days.append((found[0] - each.at).total_seconds() / 86_400)
    return result


def _sightings(
    pipeline: PipelineUnderTest, requested: Mapping[Object, Sequence[Sighting]]
) -> tuple[dict[str, Sighting], dict[Object, list[Sighting]]]:
    imported: dict[str, Sighting] = {}
    seen: dict[Object, list[Sighting]] = defaultdict(list)
    with pipeline.database.reading() as session:
        columns = Event.id, Event.type, Event.source, Event.facts, Event.received_at
        for id, type, source, facts, at in session.execute(select(*columns)):
            of = _object(type, facts)
            if source == "import":
                imported[id] = at, "events"
            elif of is not None:
                seen[of].append((at, "later webhook" if source == "webhook" else _asked_by(requested.get(of, ()), at)))
    return imported, seen


def _asked_by(requests: Iterable[Sighting], answered_at: datetime) -> str:
    """Return the part of a reconciliation that asked for an answer, "re-read" if an event or a reminder did."""
    parts = [part for at, part in requests if at <= answered_at <= at + REQUEST_VALID]
    return parts[-1] if parts else "re-read"


def _object(type: str, facts: Mapping[str, Any]) -> Object | None:
    for prefix, kind, name in OBJECTS:
        if type.startswith(prefix):
            return (kind, str(facts[name])) if facts.get(name) else None
    return None
