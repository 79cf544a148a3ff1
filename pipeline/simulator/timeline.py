"""Deliveries: events with their arrival times and resulting API objects. `disorder` delays, shuffles and repeats them."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from random import Random
from typing import Any, Literal

import orjson

Json = dict[str, Any]
Kind = Literal["subscription", "plan", "product", "sale", "refund", "capture", "capture_refund", "dispute"]


@dataclass(frozen=True, slots=True)
class ApiObject:
    """An object as PayPal's API returns it after a change. A higher `version` is newer."""

    kind: Kind
    version: int
    resource: Json

    @property
    def id(self) -> str:
        """The id under which the API returns the object. A dispute has no `id`, but a `dispute_id`."""
        return str(self.resource.get("id") or self.resource["dispute_id"])


@dataclass(frozen=True, slots=True)
class Delivery:
    """One delivery of an event. `at` is its arrival time in UTC.

    `kept` contains the objects that PayPal's API returns from then on. `copy` is 0 for the first delivery of an event and
    counts its repeats. `delayed` is true if `disorder` delayed this one.
    """

    at: datetime
    event: Json
    kept: tuple[ApiObject, ...] = ()
    copy: int = 0
    delayed: bool = False

    @property
    def id(self) -> str:
        """The event's id."""
        return str(self.event["id"])

    @property
    def type(self) -> str:
        """The event's type, for example `PAYMENT.SALE.COMPLETED`."""
        return str(self.event["event_type"])

    @property
    def body(self) -> bytes:
        """The bytes that PayPal posts: compact JSON in UTF-8, with PayPal's order of keys."""
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
    """Return the deliveries with delays and repeats, as a network causes them, sorted by arrival time.

    The share `delayed` arrives up to `shuffle` later. The share `duplicates` arrives a second time within `shuffle`: the
    same event in a new transmission. No delivery arrives after `until`.
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


def lose(deliveries: Iterable[Delivery], rng: Random, share: float) -> tuple[list[Delivery], list[Delivery]]:
    """Return the deliveries that arrive and the lost ones: the `share` of events that PayPal never posts.

    All copies of a lost event are lost. Apply a lost delivery to the `PaypalState` without posting it: the API's objects
    and its list of events show it.
    """
    arrived: list[Delivery] = []
    lost: list[Delivery] = []
    fate: dict[str, bool] = {}
    for delivery in deliveries:
        if delivery.id not in fate:
            fate[delivery.id] = rng.random() < share
        (lost if fate[delivery.id] else arrived).append(delivery)
    return arrived, lost


def by_time(deliveries: Iterable[Delivery]) -> list[Delivery]:
    """Sort by arrival time. Deliveries with the same time keep their order."""
    return sorted(deliveries, key=lambda delivery: delivery.at)


def _within(rng: Random, at: datetime, window: timedelta, until: datetime | None) -> datetime:
    moved = at + window * rng.random()
    return moved if until is None else max(at, min(moved, until))
