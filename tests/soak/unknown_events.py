"""Deliveries that the pipeline cannot handle. They are stored and have no effect."""

from typing import Literal, get_args

import orjson

from tests.support.event_histories import Json
from tests.support.pipeline_under_test import HAPPENED
from tests.support.sample_events import renamed

UnknownKind = Literal["of an unknown type", "no JSON", "without a time", "another body under its id"]
UNKNOWN_KINDS: tuple[UnknownKind, ...] = get_args(UnknownKind)


def body_of(kind: UnknownKind, event: Json) -> bytes:
    """Return a body made from an accepted event. The one without a time would cancel its subscription if it had effect."""
    match kind:
        case "of an unknown type":
            return orjson.dumps(renamed({**event, "event_type": HAPPENED}))
        case "no JSON":
            return orjson.dumps(event)[:-1]
        case "another body under its id":
            return orjson.dumps({**event, "summary": "another"})
        case "without a time":
            return orjson.dumps(renamed(_without_a_time(event)))


def wanted_state(kind: UnknownKind) -> str:
    """Return the final state. Another body under a known id is stored under a new id: see `is_conflicting_copy`."""
    return {"of an unknown type": "ignored", "another body under its id": "handled"}.get(kind, "parked")


def is_conflicting_copy(id: str) -> bool:
    """Return whether this id is for a second body under a known event id. Such an event needs a manual decision."""
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
