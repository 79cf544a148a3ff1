"""Months of a vendor whose webhooks get lost, with a daily reconciliation; then a comparison with the simulator's truth."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from pipeline.db.models import ReconciliationException
from pipeline.simulator.random_life import Life
from pipeline.simulator.timeline import Delivery
from tests.paypal_runs.detection import detect
from tests.paypal_runs.mail_check import MailCheck
from tests.paypal_runs.population import all_deliveries, population
from tests.paypal_runs.vendor import Vendor
from tests.support.pipeline_under_test import PipelineUnderTest
from tests.support.true_state import StoredState

START = datetime(2025, 1, 1, 6, tzinfo=UTC)
AFTERWARDS = timedelta(days=5)  # reconciliations after the last event: PayPal reports money hours late
LATEST = timedelta(days=2)  # after the end: delays of the last events. One-off payments may come later
SHOWN = 20  # differences in the report


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run. `lost`: share of the webhooks; `unlisted`: share of these that PayPal's list of events lacks, too."""

    customers: int = 44
    months: int = 13
    lost: float = 0.08
    unlisted: float = 0.0
    step: timedelta = timedelta(hours=1)
    http_lookups: bool = True
    seed: int = 1

    @property
    def end(self) -> datetime:
        return START + timedelta(days=round(self.months * 365 / 12))


@dataclass(frozen=True, slots=True)
class _Fate:
    lost: set[str]
    unlisted: set[str]


class LostEventsRun:
    """One run. `progress` gets the day of the simulation after each day."""

    def __init__(
        self, pipeline: PipelineUnderTest, plan: Plan, progress: Callable[[int], object] = lambda _: None
    ) -> None:
        self._pipeline, self._plan, self._progress = pipeline, plan, progress
        self.lives: dict[str, Life] = {
            life.subscription.id: life for life in population(plan.customers, START, plan.end, plan.seed)
        }
        last = plan.end + LATEST
        self._deliveries = [each for each in all_deliveries(self.lives.values()) if each.at <= last]
        self._fate = _fate(self._deliveries, plan)
        self._counts: Counter[str] = Counter()

    @property
    def days(self) -> int:
        """How many days are simulated."""
        return (self._plan.end + AFTERWARDS - START).days

    def run(self) -> dict[str, Any]:
        """Simulate all months. Return the figures as JSON."""
        began = time.monotonic()
        self._pipeline.clock.move_to(START)
        with Vendor(self._pipeline, http_lookups=self._plan.http_lookups) as vendor:
            for day, arrivals in enumerate(self._days()):
                for until, deliveries in arrivals:
                    self._step(vendor, until, deliveries)
                self._count(vendor.reconcile())
                self._progress(day + 1)
            return self._report(vendor, time.monotonic() - began)

    def _days(self) -> Iterator[list[tuple[datetime, list[Delivery]]]]:
        """Yield for each day its steps: their ends and the events since the last one."""
        position, until = 0, START
        for _ in range(self.days):
            day, midnight = [], until + timedelta(days=1)
            while until < midnight:
                until, first = min(until + self._plan.step, midnight), position
                while position < len(self._deliveries) and self._deliveries[position].at <= until:
                    position += 1
                day.append((until, self._deliveries[first:position]))
            yield day

    def _step(self, vendor: Vendor, until: datetime, deliveries: Sequence[Delivery]) -> None:
        clock = self._pipeline.clock
        clock.move_to(max(until, clock.now()))
        for each in deliveries:
            vendor.world.apply(replace(each, event={}) if each.id in self._fate.unlisted else each)
        vendor.receive([each for each in deliveries if each.id not in self._fate.lost])

    def _count(self, result: Any) -> None:
        for name in ("events_listed", "events_imported", "subscriptions_looked_up", "transactions_compared",
                     "differences_new", "differences_resolved"):  # fmt: skip
            self._counts[name] += getattr(result, name)

    def _report(self, vendor: Vendor, seconds: float) -> dict[str, Any]:
        lost = [each for each in self._deliveries if each.id in self._fate.lost]
        mails = MailCheck(self.lives).run(self._pipeline)
        state = StoredState(self._pipeline)
        differing = {id: found for id, life in self.lives.items() if (found := _differences(state, life))}
        return {
            "customers": len(self.lives), "days": self.days, "events": len(self._deliveries),
            "seconds": round(seconds, 1), "requests": _by_path(vendor.fake.asked),
            **detect(self._pipeline, lost, vendor.requested).as_json(),
            "unlisted": len(self._fate.unlisted), "reconciliation": dict(self._counts),
            "open_exceptions": self._open_exceptions(), "parked": list(state.parked())[:SHOWN],
            "customers_equal_to_the_truth": len(self.lives) - len(differing),
            "differences": [f"{id}: {each}" for id, found in differing.items() for each in found][:SHOWN],
            "access_equal_to_the_second": self._exact_access(state),
            "mails_checked": dict(mails.checked.most_common()), "mails_withheld": mails.withheld,
            "mails_wrong": len(mails.wrong), "wrong_mails": mails.wrong[:SHOWN],
        }  # fmt: skip

    def _exact_access(self, state: StoredState) -> int:
        truths = [life.truth for life in self.lives.values()]
        return sum(state.paid_through(truth) == truth.paid_until for truth in truths)

    def _open_exceptions(self) -> list[str]:
        rows = self._pipeline.rows(ReconciliationException)
        return [f"{row.kind} {row.id}: {row.reason}" for row in rows if row.resolved_at is None]


def is_right(report: dict[str, Any]) -> bool:
    """Return whether every customer equals the truth, no mail is wrong, and nothing is left open or parked."""
    wrong = report["differences"], report["wrong_mails"], report["open_exceptions"], report["parked"]
    return not any(wrong) and report["customers_equal_to_the_truth"] == report["customers"]


def _fate(deliveries: Sequence[Delivery], plan: Plan) -> _Fate:
    rng = Random(plan.seed)
    lost = [each.id for each in deliveries if rng.random() < plan.lost]
    return _Fate(set(lost), {id for id in lost if rng.random() < plan.unlisted})


def _differences(state: StoredState, life: Life) -> list[str]:
    return list(state.differences(life.truth, life.subscription.now))


def _by_path(asked: Sequence[str]) -> dict[str, int]:
    """Return the number of requests by method and kind of object."""
    kinds = (each.split("/") for each in asked)
    return dict(Counter(f"{parts[0]}{'/'.join(parts[1:4])}" for parts in kinds).most_common())
