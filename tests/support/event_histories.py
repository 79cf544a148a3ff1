"""Random event histories of subscriptions, and `OrderedReplay`, which handles one in any order and returns the rows.

The simulator generates the histories: any sequence of events that PayPal allows. `OrderedReplay` handles a history
repeatedly with the same encryption keys, so the results can be compared.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
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
from tests.support.pipeline_under_test import PipelineUnderTest, delivery
from tests.support.sample_events import renamed

Json = dict[str, Any]
# Before every history, so no event is too old.
EARLY = datetime(2024, 1, 1, tzinfo=UTC)
YEARS = timedelta(days=3000)  # from EARLY to the end of every history
# Fields that real events of these types sometimes lack, by prefix of the type.
OPTIONAL_FIELDS = {
    "BILLING.": ("update_time", "status_update_time", "custom_id", "subscriber", "billing_info", "status", "plan_id"),
    "PAYMENT.": ("billing_agreement_id", "custom", "update_time", "create_time", "sale_id", "links", "state"),
}
NOT_COMPARED = {
    "remind_at",
    "created_at",
    "personal_data",
}  # These depend on the time of receipt. `personal_data` is compared decrypted.


@dataclass(frozen=True, slots=True)
class Outcome:
    """The rows and mails after a history."""

    rows: dict[str, dict[str, Any]]
    mails: dict[str, tuple[str, str | None, bool]]  # idempotency key -> state, reason, whether it is due
    unhandled: set[str]


class OrderedReplay:
    """One database that handles histories repeatedly with the same encryption keys."""

    def __init__(self, folder: Path, url: str = "sqlite:///:memory:") -> None:
        self.pipeline = PipelineUnderTest(url, folder, MovableClock(EARLY))

    def worker(self) -> Worker:
        return self.pipeline.worker(HANDLERS, may_read=True, max_ahead=YEARS)

    def tell(self, batches: Sequence[Sequence[Json]]) -> Outcome:
        """Handle the batches in order, one transaction each. Then handle all events again, for those that wait."""
        self.clear()
        worker = self.worker()
        ids = [id for batch in batches for id in self._handled(worker, batch)]
        worker.handle(ids)
        return self.outcome()

    def store(self, events: Sequence[Json]) -> list[str]:
        return [item.event_id for item in self.pipeline.store(*[delivery(event) for event in events])]

    def outcome(self) -> Outcome:
        return Outcome(self._rows(), self._mails(), self._unhandled())

    def _unhandled(self) -> set[str]:
        """Return the unhandled events by type and facts. An event that was received twice has two ids."""
        rows = [row for row in self.pipeline.rows(Event) if row.state != "handled"]
        return {f"{row.type} {orjson.dumps(row.facts, option=orjson.OPT_SORT_KEYS).decode()}" for row in rows}

    def _handled(self, worker: Worker, batch: Sequence[Json]) -> list[str]:
        ids = self.store(batch)
        worker.handle(ids)
        return ids

    def clear(self) -> None:
        """Delete all rows except the encryption keys."""
        self.pipeline.empty(EncryptionKey)

    def _rows(self) -> dict[str, dict[str, Any]]:
        return {
            f"{table.__tablename__} {row.id}": self._columns(row)  # type: ignore[attr-defined]
            for table in (Subscription, Payment, Refund, Plan)
            for row in self.pipeline.rows(table)
        }

    def _columns(self, row: Base) -> dict[str, Any]:
        names = {column.name for column in row.__table__.columns}
        values = {name: getattr(row, name) for name in sorted(names - NOT_COMPARED)}
        return values | ({"personal_data": self._person(row)} if isinstance(row, Subscription) else {})

    def _person(self, row: Subscription) -> Any:
        with self.pipeline.database.transaction() as session:
            return (
                self.pipeline.keyring(session)
                .system_key(row.id)
                .decrypt_json("subscription.personal_data", row.personal_data)
            )

    def _mails(self) -> dict[str, tuple[str, str | None, bool]]:
        return {
            row.idempotency_key: (row.state, row.reason, row.due_at is not None) for row in self.pipeline.rows(Mail)
        }


def life(seed: int) -> list[Json]:
    """Return the events of one history in order, with PayPal's answers to some look-ups."""
    rng = Random(seed)
    deliveries = random_subscription(rng, steps=7)
    events: list[Json] = []
    for item in deliveries:
        events += [item.event, *_look_ups(item, rng)]
    if rng.random() < 0.8:
        plan = PLANS[deliveries[0].event["resource"]["plan_id"]]
        events.insert(rng.randrange(len(events)), _look_up("plan", shapes.plan(plan)))
    return list({event["id"]: event for event in events}.values())


def odd(seed: int) -> list[Json]:
    """Return a history with irregularities: missing fields, equal times, old event forms, changed plan prices.

    Sometimes it contains a second subscription on the same plans.
    """
    rng = Random(seed)
    events = [_without_some_fields(event, rng) if rng.random() < 0.25 else event for event in life(seed)]
    if rng.random() < 0.2:
        events += life(seed + 1)
    if rng.random() < 0.3:
        events = [_same_time(event) for event in events]
    if rng.random() < 0.15:
        events = [_old_form(event) if event["event_type"].startswith("BILLING.SUB") else event for event in events]
    plans = [event for event in events if event["event_type"] == "READ.PLAN"]
    return [*events, *[_with_higher_price(event) for event in plans if rng.random() < 0.5]]


def shuffled(events: Sequence[Json], order: Random) -> list[list[Json]]:
    """Return the events in random order and random batches. Some occur twice, with two ids."""
    pile = [*events, *[renamed(event, "again") for event in events if order.random() < 0.2]]
    order.shuffle(pile)
    batches = []
    while pile:
        size = order.choice((1, 1, 2, 3, 5, len(pile)))
        batches.append(pile[:size])
        pile = pile[size:]
    return batches


def _look_ups(delivery: Delivery, rng: Random) -> list[Json]:
    """Return answers to look-ups: always for a refund without its sale, at random for other resources."""
    is_refund = delivery.type in ("PAYMENT.SALE.REFUNDED", "PAYMENT.SALE.REVERSED")
    no_sale = is_refund and "sale_id" not in delivery.event["resource"]
    kept = [item for item in delivery.kept if rng.random() < 0.15 or (no_sale and item.kind == "refund")]
    return [_look_up(item.kind, item.resource) for item in kept]


def _look_up(kind: Any, resource: Json) -> Json:
    answer: Json = orjson.loads(event_from_lookup(kind, resource, EARLY))
    return answer


def _without_some_fields(event: Json, rng: Random) -> Json:
    fields = next((fields for kind, fields in OPTIONAL_FIELDS.items() if event["event_type"].startswith(kind)), ())
    gone = rng.sample(fields, min(len(fields), rng.randint(1, 2)))
    return {**event, "resource": {key: value for key, value in event["resource"].items() if key not in gone}}


def _same_time(event: Json) -> Json:
    """Set every update time to the beginning of its day."""
    times = {key: value[:11] + "00:00:00Z" for key, value in event["resource"].items() if key.endswith("update_time")}
    return {**event, "resource": event["resource"] | times}


def _with_higher_price(plan: Json) -> Json:
    """Return the same plan with a higher price."""
    regular = plan["resource"]["billing_cycles"][-1]
    price = {**regular["pricing_scheme"]["fixed_price"], "value": "99999"}
    regular = {**regular, "pricing_scheme": {"fixed_price": price}}
    changes = {"billing_cycles": [regular], "update_time": "2025-06-01T08:00:00Z"}
    return _look_up("plan", {**plan["resource"], **changes})


def _old_form(event: Json) -> Json:
    """Return the same event in the form of an old billing agreement."""
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
