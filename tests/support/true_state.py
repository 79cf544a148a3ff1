"""Compare the stored state of subscriptions with the simulator's truth."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from pipeline.billing.next_charge import next_charge
from pipeline.db.models import Event, Payment, Plan, Subscription
from pipeline.simulator.truth import Truth
from tests.support.pipeline_under_test import PipelineUnderTest

SAME_DAY = timedelta(days=1, hours=3)  # PayPal charges up to a day before or hours after the billing time


class StoredState:
    """All rows that the comparison needs, read once."""

    def __init__(self, pipeline: PipelineUnderTest) -> None:
        self.subscriptions = {row.id: row for row in pipeline.rows(Subscription)}
        self.plans = {row.id: row for row in pipeline.rows(Plan)}
        self.payments: Mapping[str | None, dict[str, Payment]] = defaultdict(dict)
        for row in pipeline.rows(Payment):
            self.payments[row.subscription_id][row.id] = row
        self._events = pipeline.rows(Event)

    def parked(self) -> Iterator[str]:
        """Yield a sentence about each parked event."""
        yield from (f"{each.type} is {each.state}: {each.reason}" for each in self._events if each.state == "parked")

    def differences(self, truth: Truth, now: datetime) -> Iterator[str]:
        """Yield each difference between the subscription's rows and the truth. Access counts from `now` on."""
        row = self.subscriptions.get(truth.id)
        if row is None:
            yield f"{truth.id} is not stored"
            return
        if (row.status, row.plan_id) != (truth.status, truth.plan_id):
            yield f"{row.status} on {row.plan_id}, not {truth.status} on {truth.plan_id}"
        if row.outstanding is not None and row.outstanding != truth.outstanding.amount:
            yield f"outstanding {row.outstanding}, not {truth.outstanding}"
        yield from _access(row, truth, now)
        yield from _next_charge(row, self.plans.get(row.plan_id or ""), truth)
        yield from _payments(self.payments[row.id], truth)

    def paid_through(self, truth: Truth) -> datetime | None:
        """Return until when the subscription has access here."""
        row = self.subscriptions.get(truth.id)
        return row.paid_through if row else None


def differences(pipeline: PipelineUnderTest, truths: Sequence[tuple[Truth, datetime]]) -> list[str]:
    """Return the differences of these truths, each with the time from which access counts, and the parked events."""
    state = StoredState(pipeline)
    return [each for truth, now in truths for each in state.differences(truth, now)] + list(state.parked())


def _access(row: Subscription, truth: Truth, now: datetime) -> Iterator[str]:
    """Compare the ends of access. An end in the past is as good as another."""
    ours, right = (max(until or now, now) for until in (row.paid_through, truth.paid_until))
    if abs(ours - right) > SAME_DAY:
        yield f"paid through {row.paid_through}, not {truth.paid_until}"


def _next_charge(row: Subscription, plan: Plan | None, truth: Truth) -> Iterator[str]:
    """Compare the next charge. A figure may be missing, but a wrong one is never named."""
    if row.status != "ACTIVE":
        return
    found, right = next_charge(row, plan), truth.next_billing
    if found.at != (right.at if right else None):
        yield f"next charge at {found.at}, not {right}"
    if found.total and right and (found.total.amount, found.total.currency) != (right.total, right.currency):
        yield f"next charge of {found.total}, not {right}"


def _payments(rows: dict[str, Payment], truth: Truth) -> Iterator[str]:
    if rows.keys() != truth.transactions.keys():
        yield f"payments {sorted(rows)}, not {sorted(truth.transactions)}"
    for id, right in truth.transactions.items():
        found = rows.get(id)
        if found is None:
            continue
        if (found.amount, found.currency) != (right.gross, right.currency):
            yield f"{id} of {found.amount} {found.currency}, not {right.gross} {right.currency}"
        if found.refunded != right.refunded:
            yield f"{id} refunded {found.refunded}, not {right.refunded}"
        status = "refunded" if found.status == "reversed" else found.status
        if status != right.status and not right.held:
            yield f"{id} is {found.status}, not {right.status}"
