"""Find the ids that identify the customer in events of unknown types, for example orders, captures and disputes.

No handler processes such an event, but it belongs to a customer and must be part of their export and erasure. So
`find_references` searches the whole resource for known field names.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

from pipeline.paypal.field_reader import Facts, FieldReader, Person

# Field names of PayPal's APIs: Orders v2, Payments v1 and v2, Subscriptions v1, Disputes v1.
PAYER = frozenset({"payer_id"})
CUSTOM = frozenset({"custom_id", "custom"})
SUBSCRIPTION = frozenset({"billing_agreement_id", "subscription_id"})
SALE = frozenset({"seller_transaction_id"})  # in a dispute: the disputed sale

_SUBSCRIPTION = re.compile(r"I-[A-Z0-9]{6,40}", re.ASCII)
_SALE = re.compile(r"[A-Z0-9]{10,20}", re.ASCII)
_NAMED = PAYER | CUSTOM | SUBSCRIPTION | SALE


def find_references(resource: dict[str, Any]) -> tuple[Facts, Person]:
    """Return the resource's ids: facts `subscription` and `sale`, personal data `payer` and `custom`.

    If an id occurs more than once, the outermost one is used.
    """
    found = list(_named_texts(resource))
    facts = {
        "subscription": _first(found, SUBSCRIPTION, _matching(_SUBSCRIPTION)),
        "sale": _first(found, SALE, _matching(_SALE)),
    }
    person = {"payer": _first(found, PAYER, _text(50)), "custom": _first(found, CUSTOM, _text(127))}
    return _without_empty(facts), _without_empty(person)


def _named_texts(resource: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the name and text of each field with a known name, the outermost first."""
    level: list[Any] = [resource]
    while level:
        pairs = [pair for value in level if isinstance(value, dict) for pair in value.items()]
        yield from ((name, value) for name, value in pairs if name in _NAMED and isinstance(value, str))
        nested = [value for _, value in pairs] + [item for value in level if isinstance(value, list) for item in value]
        level = [value for value in nested if isinstance(value, dict | list)]


def _first(found: list[tuple[str, str]], names: frozenset[str], read: Callable[[str], str | None]) -> str | None:
    return next((value for name, text in found if name in names and (value := read(text))), None)


def _matching(pattern: re.Pattern[str]) -> Callable[[str], str | None]:
    return lambda text: text if pattern.fullmatch(text) else None


def _text(limit: int) -> Callable[[str], str | None]:
    return lambda text: FieldReader({"text": text}).text("text", limit=limit)


def _without_empty(values: dict[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in values.items() if value}
