"""Deliveries that nobody here understands: kept, seen, and without effect."""

from typing import Literal, get_args

import orjson

from tests.support.event_histories import Json
from tests.support.pipeline_under_test import HAPPENED
from tests.support.sample_events import renamed

KindOfStrange = Literal["of a type we do not know", "no JSON", "without a time", "another body under its id"]
KINDS_OF_STRANGE: tuple[KindOfStrange, ...] = get_args(KindOfStrange)


def body_of(kind: KindOfStrange, event: Json) -> bytes:
    """Made of an event that was accepted, whose subscription would be cancelled if anybody believed it."""
    match kind:
        case "of a type we do not know":
            return orjson.dumps(renamed({**event, "event_type": HAPPENED}))
        case "no JSON":
            return orjson.dumps(event)[:-1]
        case "another body under its id":
            return orjson.dumps({**event, "summary": "another"})
        case "without a time":
            return orjson.dumps(renamed(_without_a_time(event)))


def wanted_state(kind: KindOfStrange) -> str:
    """The state in which it ends. Another body under a known id has an id beside that one: see `is_beside`."""
    return {"of a type we do not know": "ignored", "another body under its id": "handled"}.get(kind, "parked")


def is_beside(id: str) -> bool:
    """Whether this is the id of another body under a known one, which a person has to look at."""
    return "~" in id


def _without_a_time(event: Json) -> Json:
    resource = event["resource"]
    cancelled = {
        "id": resource.get("billing_agreement_id") or resource["id"],
        "status": "CANCELLED",
        "update_time": "soon",
        "status_update_time": "soon",
    }
    return {**event, "event_type": "BILLING.SUBSCRIPTION.CANCELLED", "create_time": "soon", "resource": cancelled}
