"""Load and change sample events: one of each handled type in PayPal's format, in `tests/support/events/<EVENT>.json`."""

import copy
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import orjson

FOLDER = Path(__file__).parent / "events"
GONE: Any = object()  # As a value of `changes`: remove this field from the resource.

Json = dict[str, Any]


def sample(kind: str, /, changes: dict[str, Any] | None = None, *, at: str = "") -> Json:
    """Return the sample event of this type. `changes` sets fields of its resource by dotted path.

    A path is for example `billing_info.next_billing_time`. `at` is the event's creation time at PayPal. A changed event
    gets a new id.
    """
    event: Json = copy.deepcopy(_read(kind))
    for path, value in (changes or {}).items():
        _set(event["resource"], path.split("."), value)
    if at:
        event["create_time"] = at
    return renamed(event) if changes or at else event


def renamed(event: Json, salt: str = "") -> Json:
    """Return the event with a new id, which is a hash of its content and `salt`."""
    digest = hashlib.sha256(orjson.dumps(event) + salt.encode()).hexdigest().upper()
    return {**event, "id": f"WH-{digest[:17]}-{digest[17:34]}"}


def kinds() -> list[str]:
    """Return the event types that have a sample."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


@cache
def _read(kind: str) -> Json:
    event: Json = orjson.loads((FOLDER / f"{kind}.json").read_bytes())
    return event


def _set(resource: Json, path: list[str], value: Any) -> None:
    *parents, last = path
    for key in parents:
        resource = resource.setdefault(key, {})
    if value is GONE:
        resource.pop(last, None)
    else:
        resource[last] = copy.deepcopy(value)
