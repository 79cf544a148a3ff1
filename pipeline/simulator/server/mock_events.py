"""Test events of PayPal's webhook simulator: a fixed id per type, and objects that do not exist."""

import zlib
from datetime import UTC, datetime
from random import Random

from pipeline.money import Money
from pipeline.simulator import ids, shapes
from pipeline.simulator.people import PEOPLE
from pipeline.simulator.plans import CLOUD
from pipeline.simulator.server.event_types import EVENT_TYPES
from pipeline.simulator.subscription import SimulatedSubscription
from pipeline.simulator.timeline import Json

_AT = datetime(2018, 12, 19, 22, 20, 32, tzinfo=UTC)


def mock_event(kind: str) -> Json:
    """Return the test event of a type. It is the same for every call, so a second test repeats the first event's id."""
    rng, id = _rng(kind), _mock_id(kind)
    url = f"{shapes.API}/v1/notifications/webhooks-events/{id}"
    version = EVENT_TYPES[kind]["resource_versions"][0]
    return {
        "id": id,
        "event_version": "1.0",
        "create_time": shapes.millis(_AT),
        "resource_type": kind.split(".")[1].lower(),
        **({"resource_version": version} if version != "1.0" else {}),
        "event_type": kind,
        "summary": f"Test event {kind}",
        "resource": _resource(kind, rng),
        "links": [shapes.link(url, "self"), shapes.link(url + "/resend", "resend", "POST")],
    }


def is_mock_event(event: Json) -> bool:
    """Return whether this is a test event."""
    return bool(event["id"] == _mock_id(event["event_type"]))


def _mock_id(kind: str) -> str:
    return ids.event(_rng(f"id of {kind}"))


def _rng(kind: str) -> Random:
    return Random(zlib.crc32(kind.encode()))  # noqa: S311 - test data


def _resource(kind: str, rng: Random) -> Json:
    subscription = SimulatedSubscription(PEOPLE[0], CLOUD, _AT, rng)
    subscription.start()
    if kind.startswith("BILLING.SUBSCRIPTION."):
        return subscription.snapshot()
    if kind.startswith("BILLING.PLAN."):
        return shapes.plan(CLOUD)
    if kind in ("PAYMENT.SALE.REFUNDED", "PAYMENT.SALE.REVERSED"):
        money = Money(-CLOUD.price.amount, CLOUD.price.currency)  # test events have a minus sign
        return shapes.refund(ids.payment(rng), ids.payment(rng), money, money, _AT)
    if kind.startswith("PAYMENT.SALE."):
        return next(iter(subscription.sales.values())).resource
    return {"id": ids.payment(rng), "create_time": shapes.seconds(_AT), "links": []}
