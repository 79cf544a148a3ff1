"""What PayPal delivers, and when; and the disorder it comes in."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from random import Random
from typing import Any, Literal

import orjson

Json = dict[str, Any]
Kind = Literal["subscription", "plan", "sale", "refund"]


@dataclass(frozen=True, slots=True)
class ApiObject:
    """An object as PayPal's API shows it after something happened. The higher `version` of an object is the newer."""

    kind: Kind
    version: int
    resource: Json


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event on its way. `at` is when it reaches us, in UTC.

    `kept` is what PayPal's API shows from then on. `copy` is 0 for the first delivery of an event and counts repeats;
    `delayed` says that disorder held this one back.
    """

    at: datetime
    event: Json
    kept: tuple[ApiObject, ...] = ()
    copy: int = 0
    delayed: bool = False

    @property
    def id(self) -> str:
        return str(self.event["id"])

    @property
    def type(self) -> str:
        return str(self.event["event_type"])

    @property
    def body(self) -> bytes:
        """The bytes PayPal posts: compact JSON, raw UTF-8, keys in the order of the shape."""
        return orjson.dumps(self.event)


def disorder(
    deliveries: Iterable[Delivery],
    rng: Random,
    *,
    duplicates: float = 0.1,
    delayed: float = 0.2,
    shuffle: timedelta = timedelta(minutes=10),
    until: datetime | None = None,
) -> list[Delivery]:
    """The deliveries as a network would bring them, sorted by the time they come.

    A share `delayed` of them is held back by up to `shuffle`, and a share `duplicates` comes once more within
    `shuffle`: the same event, a new transmission. Nothing comes after `until`.
    """
    result = []
    for delivery in deliveries:
        late = rng.random() < delayed
        first = replace(delivery, at=_within(rng, delivery.at, shuffle, until), delayed=True) if late else delivery
        result.append(first)
        if rng.random() < duplicates:
            again = _within(rng, first.at, shuffle, until)
            result.append(replace(first, at=again, copy=first.copy + 1))
    return by_time(result)


def by_time(deliveries: Iterable[Delivery]) -> list[Delivery]:
    """In the order they come. Those of the same moment keep the order they were given in."""
    return sorted(deliveries, key=lambda delivery: delivery.at)


def _within(rng: Random, at: datetime, window: timedelta, until: datetime | None) -> datetime:
    moved = at + window * rng.random()
    return moved if until is None else max(at, min(moved, until))
