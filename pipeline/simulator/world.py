"""The current state of the simulated PayPal: each object as the API returns it, updated by deliveries."""

import copy
from collections.abc import Iterable

from pipeline.simulator import shapes
from pipeline.simulator.plans import PLANS, Plan
from pipeline.simulator.timeline import ApiObject, Delivery, Json, Kind


class PaypalState:
    """All subscriptions, sales, refunds and plans. One thread may read while another calls `apply`."""

    def __init__(self, plans: Iterable[Plan] = PLANS.values()) -> None:
        self._objects: dict[tuple[Kind, str], ApiObject] = {}
        for plan in plans:
            self._store(ApiObject("plan", 0, shapes.plan(plan)))

    def apply(self, delivery: Delivery) -> None:
        """Update the objects of this delivery. Late and repeated deliveries never restore an older version.

        Call it before the webhook is posted, because PayPal's API is up to date before the webhook arrives. For a lost
        webhook, call it without posting.
        """
        for api_object in delivery.kept:
            self._store(api_object)

    def show(self, kind: Kind, name: str) -> Json | None:
        """Return a copy of the object's current state; None if the id is unknown."""
        found = self._objects.get((kind, name))
        return copy.deepcopy(found.resource) if found else None

    def ids(self, kind: Kind) -> list[str]:
        """Return the ids of all objects of a kind."""
        return [name for of, name in list(self._objects) if of == kind]

    def _store(self, new: ApiObject) -> None:
        key = (new.kind, str(new.resource["id"]))
        current = self._objects.get(key)
        if current is None or current.version < new.version:
            self._objects[key] = new
