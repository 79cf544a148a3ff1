"""What a body says, split at the door: facts, what it tells of a person, and the rest.

Facts are clear (ids, types, statuses, money, times) and have one shape for PayPal's old and new forms, so a handler
knows one. What tells of a person, and the rest of the body, is sealed by the inbox. Nothing here ever raises for what
PayPal sent: what cannot be read is left out and named under `unread`.

Shapes: the resources of PayPal's Subscriptions v1 API (webhooks with resource_version 2.0), of the old billing
agreements, and of v1 sales and refunds; see docs/add-an-event.md.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from pipeline.clock import format_time, parse_time
from pipeline.inbox import redaction
from pipeline.paypal.references import find_references
from pipeline.paypal.resources import READERS, Facts, Person, text_of

UNREADABLE = "UNREADABLE"
# These say how the event was fetched or sent, not what happened; the API adds them to the same event.
NOT_CONTENT = ("links", "status", "transmissions", "event_version")
MAX_DEPTH = 64


@dataclass(frozen=True, slots=True)
class ParsedEvent:
    """One body, taken apart. `rest` is the whole body without card and bank fields, as bytes to be sealed."""

    id: str
    type: str
    occurred_at: datetime | None
    label: str
    facts: Facts
    person: Person
    redacted_body: bytes
    body_sha256: str
    content_sha256: str
    problem: str | None = None  # why no handler can have it


def parse_webhook(body: bytes) -> ParsedEvent:
    """Take a webhook body, or an event read from PayPal's API, apart."""
    digest = hashlib.sha256(body).hexdigest()
    try:
        document = _load(body)
    except ValueError as error:
        return _unreadable(body, digest, f"the body is not JSON: {error}")
    if not isinstance(document, dict):
        return _unreadable(body, digest, "the body is JSON, but no object")
    event_id, kind = text_of(document, "id", 80), text_of(document, "event_type", 100)
    if not event_id or not kind:
        return _unreadable(body, digest, f"the body has no {'id' if not event_id else 'event_type'}")
    return _split(digest, redaction.redact_document(document), event_id, kind)


def event_from_lookup(kind: str, document: dict[str, Any], at: datetime) -> bytes:
    """PayPal's answer to one of our reads, put into an envelope of its own: `READ.SALE` and so on.

    The id is made of the object, its time and what it says, so the same answer read twice is one event.
    """
    updated_at = text_of(document, "update_time", 40) or format_time(at)
    version = f"{updated_at}:{hashlib.sha256(_canonical({'resource': document})).hexdigest()[:8]}"
    envelope = {
        "id": f"READ.{kind.upper()}:{text_of(document, 'id', 50)}:{version}",
        "event_type": f"READ.{kind.upper()}",
        "create_time": updated_at,
        "resource": document,
    }
    return orjson.dumps(envelope)


def _split(digest: str, document: dict[str, Any], event_id: str, kind: str) -> ParsedEvent:
    resource = document.get("resource")
    resource = resource if isinstance(resource, dict) else {}
    occurred_at = parse_time(document.get("create_time"))
    facts, person = _read(kind, resource, occurred_at)
    return ParsedEvent(
        id=event_id,
        type=kind,
        occurred_at=occurred_at,
        label=str(facts.get("subscription") or facts.get("sale") or event_id),
        facts=facts,
        person=person,
        redacted_body=orjson.dumps(document),
        body_sha256=digest,
        content_sha256=hashlib.sha256(_canonical(document)).hexdigest(),
    )


def _read(kind: str, resource: dict[str, Any], occurred_at: datetime | None) -> tuple[Facts, Person]:
    reader: Callable[..., tuple[Facts, Person]] | None = next(
        (READERS[prefix] for prefix in READERS if kind.startswith(prefix)), None
    )
    facts, person = reader(kind, resource, occurred_at) if reader else find_references(resource)
    return {name: value for name, value in facts.items() if value is not None}, {
        name: value for name, value in person.items() if redaction.REDACTED not in value
    }


def _load(body: bytes) -> Any:
    """Parse strictly. orjson refuses NaN, lone surrogates and nesting past 1024; we refuse deep nesting earlier."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ValueError(str(error).split(":")[0]) from error
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and _depth(document) > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH}")
    return document


def _depth(document: Any) -> int:
    level, depth = [document], 0
    while level:
        depth += 1
        level = [item for value in level for item in _items(value) if isinstance(item, dict | list)]
    return depth


def _items(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def _canonical(document: dict[str, Any]) -> bytes:
    content = {key: value for key, value in document.items() if key not in NOT_CONTENT}
    if isinstance(content.get("resource"), dict):
        content["resource"] = {key: item for key, item in content["resource"].items() if key != "links"}
    return orjson.dumps(content, option=orjson.OPT_SORT_KEYS)


def _unreadable(body: bytes, digest: str, problem: str) -> ParsedEvent:
    name = f"{UNREADABLE}-{digest[:24]}"
    rest = redaction.redact_text(body.decode("utf-8", "replace")).encode()
    return ParsedEvent(name, UNREADABLE, None, name, {}, {}, rest, digest, digest, problem)
