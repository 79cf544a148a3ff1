"""Lives of subscriptions, told to a river in any order, and what they came to.

Lives are the simulator's: any mixture of happenings that PayPal allows. `Shore` tells one again and again under the
same keys, so that what it came to can be compared.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import orjson

from handlers import HANDLERS
from pipeline.clock import MovableClock
from pipeline.db.models import Base, EncryptionKey, Event, Mail, Payment, Plan, Refund, Subscription
from pipeline.inbox.parsing import event_from_lookup
from pipeline.simulator import shapes
from pipeline.simulator.plans import PLANS
from pipeline.simulator.random_subscription import random_subscription
from pipeline.simulator.timeline import Delivery
from pipeline.worker.worker import Worker
from tests.support.pipeline_under_test import River, delivery
from tests.support.sample_events import renamed

Json = dict[str, Any]
# Before all lives, so that nothing is ever old news.
EARLY = datetime(2024, 1, 1, tzinfo=UTC)
# What has been seen missing in events whose type begins so.
LACKING = {
    "BILLING.": ("update_time", "status_update_time", "custom_id", "subscriber", "billing_info", "status", "plan_id"),
    "PAYMENT.": ("billing_agreement_id", "custom", "update_time", "create_time", "sale_id", "links", "state"),
}
NOT_COMPARED = {"remind_at", "created_at", "personal_data"}  # when we learned of it; `personal_data` is opened first


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a life came to."""

    rows: dict[str, dict[str, Any]]
    mails: dict[str, tuple[str, str | None, bool]]  # key -> state, reason, whether it is due
    unhandled: set[str]


class Shore:
    """One database on which lives are told again and again, under the same keys."""

    def __init__(self, folder: Path, url: str = "sqlite:///:memory:") -> None:
        self.river = River(url, folder, MovableClock(EARLY))

    def worker(self) -> Worker:
        return self.river.worker(HANDLERS, may_read=True)

    def tell(self, batches: Sequence[Sequence[Json]]) -> Outcome:
        """Tell these in this order, each batch in a transaction of its own, and once more what waited for an answer."""
        self.clear()
        worker = self.worker()
        ids = [id for batch in batches for id in self._handled(worker, batch)]
        worker.handle(ids)
        return self.outcome()

    def store(self, events: Sequence[Json]) -> list[str]:
        return [item.event_id for item in self.river.store(*[delivery(event) for event in events])]

    def outcome(self) -> Outcome:
        return Outcome(self._rows(), self._mails(), self._unhandled())

    def _unhandled(self) -> set[str]:
        """By what they say: an event that was told twice has two ids."""
        rows = [row for row in self.river.rows(Event) if row.state != "handled"]
        return {f"{row.type} {orjson.dumps(row.facts, option=orjson.OPT_SORT_KEYS).decode()}" for row in rows}

    def _handled(self, worker: Worker, batch: Sequence[Json]) -> list[str]:
        ids = self.store(batch)
        worker.handle(ids)
        return ids

    def clear(self) -> None:
        """Forget everything but the keys."""
        self.river.empty(EncryptionKey)

    def _rows(self) -> dict[str, dict[str, Any]]:
        return {
            f"{table.__tablename__} {row.id}": self._columns(row)  # type: ignore[attr-defined]
            for table in (Subscription, Payment, Refund, Plan)
            for row in self.river.rows(table)
        }

    def _columns(self, row: Base) -> dict[str, Any]:
        names = {column.name for column in row.__table__.columns}
        values = {name: getattr(row, name) for name in sorted(names - NOT_COMPARED)}
        return values | ({"personal_data": self._person(row)} if isinstance(row, Subscription) else {})

    def _person(self, row: Subscription) -> Any:
        with self.river.database.transaction() as session:
            return (
                self.river.keyring(session)
                .system_key(row.id)
                .decrypt_json("subscription.personal_data", row.personal_data)
            )

    def _mails(self) -> dict[str, tuple[str, str | None, bool]]:
        return {row.idempotency_key: (row.state, row.reason, row.due_at is not None) for row in self.river.rows(Mail)}


def life(seed: int) -> list[Json]:
    """The events of a life in order, with PayPal's answers to some reads among them."""
    rng = Random(seed)
    deliveries = random_subscription(rng, steps=7)
    events: list[Json] = []
    for told in deliveries:
        events += [told.event, *_reads(told, rng)]
    if rng.random() < 0.8:
        plan = PLANS[deliveries[0].event["resource"]["plan_id"]]
        events.insert(rng.randrange(len(events)), _read("plan", shapes.plan(plan)))
    return list({event["id"]: event for event in events}.values())


def odd(seed: int) -> list[Json]:
    """A life with what has been seen missing, old or told anew; now and then two, of people on the same plans."""
    rng = Random(seed)
    events = [_lacking(event, rng) if rng.random() < 0.25 else event for event in life(seed)]
    if rng.random() < 0.2:
        events += life(seed + 1)
    if rng.random() < 0.3:
        events = [_same_time(event) for event in events]
    if rng.random() < 0.15:
        events = [_old_form(event) if event["event_type"].startswith("BILLING.SUB") else event for event in events]
    plans = [event for event in events if event["event_type"] == "READ.PLAN"]
    return [*events, *[_dearer(event) for event in plans if rng.random() < 0.5]]


def shuffled(events: Sequence[Json], order: Random) -> list[list[Json]]:
    """In any order, some told twice under two ids, in batches of any size."""
    pile = [*events, *[renamed(event, "again") for event in events if order.random() < 0.2]]
    order.shuffle(pile)
    batches = []
    while pile:
        size = order.choice((1, 1, 2, 3, 5, len(pile)))
        batches.append(pile[:size])
        pile = pile[size:]
    return batches


def _reads(told: Delivery, rng: Random) -> list[Json]:
    """A refund that does not say of which sale is always asked for, the others now and then."""
    silent = told.type in ("PAYMENT.SALE.REFUNDED", "PAYMENT.SALE.REVERSED") and "sale_id" not in told.event["resource"]
    kept = [item for item in told.kept if rng.random() < 0.15 or (silent and item.kind == "refund")]
    return [_read(item.kind, item.resource) for item in kept]


def _read(kind: str, resource: Json) -> Json:
    answer: Json = orjson.loads(event_from_lookup(kind, resource, EARLY))
    return answer


def _lacking(event: Json, rng: Random) -> Json:
    fields = next((fields for kind, fields in LACKING.items() if event["event_type"].startswith(kind)), ())
    gone = rng.sample(fields, min(len(fields), rng.randint(1, 2)))
    return {**event, "resource": {key: value for key, value in event["resource"].items() if key not in gone}}


def _same_time(event: Json) -> Json:
    """All that happened on a day happened at its beginning."""
    times = {key: value[:11] + "00:00:00Z" for key, value in event["resource"].items() if key.endswith("update_time")}
    return {**event, "resource": event["resource"] | times}


def _dearer(plan: Json) -> Json:
    """The same plan after its price went up."""
    regular = plan["resource"]["billing_cycles"][-1]
    price = {**regular["pricing_scheme"]["fixed_price"], "value": "99999"}
    regular = {**regular, "pricing_scheme": {"fixed_price": price}}
    told_anew = {"billing_cycles": [regular], "update_time": "2025-06-01T08:00:00Z"}
    return _read("plan", {**plan["resource"], **told_anew})


def _old_form(event: Json) -> Json:
    """The same news in the form of an old billing agreement."""
    new = event["resource"]
    info, subscriber = new.get("billing_info", {}), new.get("subscriber", {})
    details = {
        "outstanding_balance": {"value": info.get("outstanding_balance", {}).get("value", "0")},
        "failed_payment_count": str(info.get("failed_payments_count", 0)),
        **({"next_billing_date": info["next_billing_time"]} if "next_billing_time" in info else {}),
    }
    definition = {"type": "REGULAR", "frequency": "Month", "frequency_interval": "1", "amount": {"value": "29.00"}}
    name = subscriber.get("name", {})
    payer = {"email": subscriber.get("email_address"), "payer_id": subscriber.get("payer_id"), **name}
    resource = {
        "id": new["id"],
        "state": new.get("status", "").capitalize(),
        "start_date": new["start_time"],
        "plan": {"curr_code": "EUR", "payment_definitions": [definition]},
        "payer": {"payment_method": "paypal", "payer_info": payer},
        "agreement_details": details,
    }
    return renamed({**event, "resource_type": "Agreement", "resource": resource})
