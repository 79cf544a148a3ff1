"""One event of each type we handle, in PayPal's true shape: `tests/support/events/<EVENT>.json`, about our three people."""

import copy
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import orjson

FOLDER = Path(__file__).parent / "events"
GONE: Any = object()  # as a value: the resource lacks this field

Json = dict[str, Any]


def sample(kind: str, /, changes: dict[str, Any] | None = None, *, at: str = "") -> Json:
    """The sample; with some fields of its resource changed (`billing_info.next_billing_time`: the dots are the path).

    `at` is when PayPal wrote the event. What is changed is another event, so it has another id.
    """
    event: Json = copy.deepcopy(_read(kind))
    for path, value in (changes or {}).items():
        _set(event["resource"], path.split("."), value)
    if at:
        event["create_time"] = at
    return renamed(event) if changes or at else event


def renamed(event: Json, salt: str = "") -> Json:
    """The event under an id of its own, made of what it says."""
    digest = hashlib.sha256(orjson.dumps(event) + salt.encode()).hexdigest().upper()
    return {**event, "id": f"WH-{digest[:17]}-{digest[17:34]}"}


def kinds() -> list[str]:
    """The types there are samples of."""
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
