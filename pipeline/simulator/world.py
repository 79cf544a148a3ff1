"""What PayPal knows by now: each object as its API shows it, fed by the deliveries of the stories."""

import copy
from collections.abc import Iterable

from pipeline.simulator import shapes
from pipeline.simulator.plans import PLANS, Plan
from pipeline.simulator.timeline import ApiObject, Delivery, Json, Kind


class PaypalState:
    """Subscriptions, sales and refunds so far, and all plans. May be read by one thread while another applies."""

    def __init__(self, plans: Iterable[Plan] = PLANS.values()) -> None:
        self._objects: dict[tuple[Kind, str], ApiObject] = {}
        for plan in plans:
            self._keep(ApiObject("plan", 0, shapes.plan(plan)))

    def apply(self, delivery: Delivery) -> None:
        """Let happen what this delivery tells of. Late and repeated deliveries change nothing back.

        PayPal knows before it tells: apply a delivery before it is posted, or without posting it (one that got lost).
        """
        for kept in delivery.kept:
            self._keep(kept)

    def show(self, kind: Kind, name: str) -> Json | None:
        """The object as it is now, a copy; None if PayPal knows none by that id."""
        kept = self._objects.get((kind, name))
        return copy.deepcopy(kept.resource) if kept else None

    def ids(self, kind: Kind) -> list[str]:
        """The ids of all objects of a kind."""
        return [name for of, name in list(self._objects) if of == kind]

    def _keep(self, kept: ApiObject) -> None:
        key = (kept.kind, str(kept.resource["id"]))
        known = self._objects.get(key)
        if known is None or known.version < kept.version:
            self._objects[key] = kept
