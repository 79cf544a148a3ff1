"""Parse a webhook body into facts, personal data and the redacted body.

Facts (ids, types, statuses, money, times) are stored in plain text. Their format is the same for PayPal's old and new
resources. Personal data and the redacted body are encrypted by the inbox. No body raises an exception: fields that
cannot be read are omitted and listed in the fact `unread`.

Resource formats: PayPal's Subscriptions v1 API (webhooks with resource_version 2.0), the old billing agreements, and v1
sales and refunds; see docs/add-an-event.md.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from pipeline.clock import format_time, parse_time
from pipeline.crypto import key_ids
from pipeline.inbox import redaction
from pipeline.paypal.field_reader import Facts, Person, text_of
from pipeline.paypal.references import find_references
from pipeline.paypal.requests import GET_REQUESTS, LookupKind
from pipeline.paypal.resources import READERS

UNREADABLE = "UNREADABLE"
# Top-level fields about delivery. PayPal's API adds them to an event, so they do not count as its content.
DELIVERY_FIELDS = ("links", "status", "transmissions", "event_version", "read_at")
MAX_DEPTH = 64
NOT_FOUND = "not_found"  # state in the answer to a look-up of a sale that PayPal does not know


@dataclass(frozen=True, slots=True)
class ParsedEvent:
    """A parsed body. `redacted_body` is the whole body without card and bank data. `problem`: why it cannot be handled.

    `key_id` names the data key that encrypts `person` and `redacted_body`.
    """

    id: str
    type: str
    occurred_at: datetime | None
    key_id: str
    facts: Facts
    person: Person
    redacted_body: bytes
    body_sha256: str
    content_sha256: str
    problem: str | None = None


def parse_webhook(body: bytes) -> ParsedEvent:
    """Parse a webhook body, or the body that `event_from_lookup` returns. A body that is no event has a `problem`."""
    digest = hashlib.sha256(body).hexdigest()
    try:
        document = _load(body)
    except ValueError as error:
        return _unreadable(body, digest, f"the body is not JSON: {error}")
    if not isinstance(document, dict):
        return _unreadable(body, digest, "the body is JSON, but not an object")
    event_id, kind = text_of(document, "id", 80), text_of(document, "event_type", 100)
    if not event_id or not kind:
        return _unreadable(body, digest, f"the body has no {'id' if not event_id else 'event_type'}")
    if event_id.startswith(key_ids.RESERVED):
        return _unreadable(body, digest, f"ids that begin with {event_id.partition(':')[0]}: are reserved")
    return _split(digest, redaction.redact_document(document), event_id, kind)


def event_from_lookup(kind: LookupKind, document: dict[str, Any], at: datetime) -> bytes:
    """Return the body of an event, for example `READ.SALE`, that contains PayPal's answer to a look-up.

    The id consists of the object's id, time and content hash, so the same answer received twice is one event. The time of
    a subscription is that of the look-up: an unchanged answer states that nothing came after the last one.
    """
    updated_at = text_of(document, "update_time", 40) or format_time(at)
    read_at = format_time(at) if kind == "subscription" else updated_at
    version = f"{read_at}:{hashlib.sha256(_canonical({'resource': document})).hexdigest()[:8]}"
    envelope = {
        "id": f"READ.{kind.upper()}:{text_of(document, GET_REQUESTS[kind].id_field, 50)}:{version}",
        "event_type": f"READ.{kind.upper()}",
        "create_time": updated_at,
        "resource": document,
    }
    if kind == "subscription":
        envelope["read_at"] = format_time(at)  # PayPal does not change `update_time` at a renewal
    return orjson.dumps(envelope)


def _split(digest: str, document: dict[str, Any], event_id: str, kind: str) -> ParsedEvent:
    resource = document.get("resource")
    resource = resource if isinstance(resource, dict) else {}
    occurred_at = parse_time(document.get("read_at")) or parse_time(document.get("create_time"))
    facts, person = _read(kind, resource, occurred_at)
    return ParsedEvent(
        id=event_id,
        type=kind,
        occurred_at=occurred_at,
        key_id=_key_id(facts, event_id),
        facts=facts,
        person=person,
        redacted_body=orjson.dumps(document),
        body_sha256=digest,
        content_sha256=hashlib.sha256(_canonical(document)).hexdigest(),
    )


def _key_id(facts: Facts, event_id: str) -> str:
    if subscription := facts.get("subscription"):
        return str(subscription)
    return f"{key_ids.SALE}{sale}" if (sale := facts.get("sale")) else f"{key_ids.EVENT}{event_id}"


def _read(kind: str, resource: dict[str, Any], occurred_at: datetime | None) -> tuple[Facts, Person]:
    reader: Callable[..., tuple[Facts, Person]] | None = next(
        (READERS[prefix] for prefix in READERS if kind.startswith(prefix)), None
    )
    facts, person = reader(kind, resource, occurred_at) if reader else find_references(resource)
    return {name: value for name, value in facts.items() if value is not None}, {
        name: value for name, value in person.items() if redaction.REDACTED not in value
    }


def _load(body: bytes) -> Any:
    """Parse strictly. orjson refuses NaN, lone surrogates and nesting deeper than 1024; MAX_DEPTH is lower.

    Raises ValueError.
    """
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
    """Return the event's content as JSON with sorted keys, without links and delivery fields."""
    content = {key: value for key, value in document.items() if key not in DELIVERY_FIELDS}
    if isinstance(content.get("resource"), dict):
        content["resource"] = {key: item for key, item in content["resource"].items() if key != "links"}
    return orjson.dumps(content, option=orjson.OPT_SORT_KEYS)


def _unreadable(body: bytes, digest: str, problem: str) -> ParsedEvent:
    event_id = f"{UNREADABLE}-{digest[:24]}"
    redacted = redaction.redact_text(body.decode("utf-8", "replace")).encode()
    key_id = f"{key_ids.EVENT}{event_id}"
    return ParsedEvent(event_id, UNREADABLE, None, key_id, {}, {}, redacted, digest, digest, problem)
