"""Whom a body is about that we have no reader for: an order, a capture, a dispute, a kind of event that is new.

Nothing handles such an event, but it belongs to a person, and goes with them when they ask for their data or leave.
So the ids that say whose it is are looked for by their names, wherever they stand.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

from pipeline.paypal.resources import Facts, FieldReader, Person

# As PayPal's APIs name them: Orders v2, Payments v1 and v2, Subscriptions v1, Disputes v1.
PAYER = frozenset({"payer_id"})
CUSTOM = frozenset({"custom_id", "custom"})
SUBSCRIPTION = frozenset({"billing_agreement_id", "subscription_id"})
SALE = frozenset({"seller_transaction_id"})  # of a dispute: the sale it is about

_SUBSCRIPTION = re.compile(r"I-[A-Z0-9]{6,40}", re.ASCII)
_SALE = re.compile(r"[A-Z0-9]{10,20}", re.ASCII)
_NAMED = PAYER | CUSTOM | SUBSCRIPTION | SALE


def find_references(resource: dict[str, Any]) -> tuple[Facts, Person]:
    """The ids of a resource: facts `subscription` and `sale`, and the person's `payer` and `custom`. The outermost
    of each counts."""
    found = list(_named(resource))
    facts = {
        "subscription": _first(found, SUBSCRIPTION, _matching(_SUBSCRIPTION)),
        "sale": _first(found, SALE, _matching(_SALE)),
    }
    person = {"payer": _first(found, PAYER, _text(50)), "custom": _first(found, CUSTOM, _text(127))}
    return _known(facts), _known(person)


def _named(resource: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Texts under the names we look for, the outermost first."""
    level: list[Any] = [resource]
    while level:
        pairs = [pair for value in level if isinstance(value, dict) for pair in value.items()]
        yield from ((name, value) for name, value in pairs if name in _NAMED and isinstance(value, str))
        inside = [value for _, value in pairs] + [item for value in level if isinstance(value, list) for item in value]
        level = [value for value in inside if isinstance(value, dict | list)]


def _first(found: list[tuple[str, str]], names: frozenset[str], read: Callable[[str], str | None]) -> str | None:
    return next((value for name, text in found if name in names and (value := read(text))), None)


def _matching(pattern: re.Pattern[str]) -> Callable[[str], str | None]:
    return lambda text: text if pattern.fullmatch(text) else None


def _text(limit: int) -> Callable[[str], str | None]:
    return lambda text: FieldReader({"text": text}).text("text", limit=limit)


def _known(values: dict[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in values.items() if value}
