"""`paypal import` of a simulated account, killed at random points and started again, then compared with PayPal's data."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

from handlers import HANDLERS
from pipeline.clock import MovableClock, SystemClock
from pipeline.db.models import Event, Mail, Payment, Subscription
from pipeline.inbox import store as inbox
from pipeline.simulator.people import crowd
from pipeline.simulator.random_life import Life, random_life
from pipeline.simulator.server.api import FakePaypalApi
from pipeline.simulator.world import PaypalState
from tests.paypal_runs import import_process
from tests.support.pipeline_under_test import PipelineUnderTest
from tests.support.subprocesses import ManagedProcess

LONGEST_MONTHS = 34  # PayPal returns transactions of three years
LONGEST_SECONDS = 1800
PER_SECOND = 100_000.0  # no limit: what the program itself can do
SNAPSHOT = "GET /v1/billing/subscriptions/I-"


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run: how many subscriptions are imported, and how often the import is killed."""

    subscriptions: int = 5000
    kills: int = 20
    seed: int = 1


class KilledImport:
    """One account at the simulated PayPal. `say` gets a line after each process."""

    def __init__(self, plan: Plan, say: Callable[[str], object] = lambda _: None) -> None:
        self._plan, self._say, self._rng = plan, say, Random(plan.seed)
        self.lives = list(_lives(plan))
        self._world = PaypalState()
        for life in self.lives:
            for each in life.deliveries:
                self._world.apply(each)
        self._fake = FakePaypalApi(self._world)

    def run(self, folder: Path, *, unkilled: bool = True) -> dict[str, Any]:
        """Import without kills and with kills, each into a folder of its own. Return the figures as JSON."""
        with self._fake.serve() as paypal:
            plain = self._unkilled(folder / "unkilled", paypal) if unkilled else {}
            before = len(self._fake.asked)
            killed = self._killed(folder / "killed", paypal)
        asked = self._fake.asked[before:]
        return {"unkilled": plain, "killed": killed | {"requests": _methods(asked)} | self._compared(folder / "killed")}

    def _unkilled(self, folder: Path, paypal: str) -> dict[str, Any]:
        began, before = time.monotonic(), len(self._fake.asked)
        self._start(folder, paypal).wait(LONGEST_SECONDS)
        seconds, requests = time.monotonic() - began, len(self._fake.asked) - before
        self._say(f"without kills: {requests} requests in {seconds:.0f} s")
        return {"seconds": round(seconds, 1), "requests": requests, "requests_per_second": round(requests / seconds, 1)}

    def _killed(self, folder: Path, paypal: str) -> dict[str, Any]:
        points = sorted(self._rng.sample(range(1, self._plan.subscriptions), self._plan.kills))
        first = len(self._fake.asked)
        for number, point in enumerate(points, start=1):
            process = self._start(folder, paypal)
            process.wait_until(lambda point=point: self._snapshots(first) >= point)  # type: ignore[misc]
            time.sleep(self._rng.random() * 0.03)
            process.end(kill=True)
            self._say(f"kill {number} after {self._snapshots(first)} subscriptions")
        self._start(folder, paypal).wait(LONGEST_SECONDS)
        return {"kills": len(points), "subscriptions_asked_for": self._snapshots(first)}

    def _start(self, folder: Path, paypal: str) -> ManagedProcess:
        if not folder.exists():
            folder.mkdir(mode=0o700)
            import_process.create_tables(folder)
        return import_process.start(folder, folder, paypal, PER_SECOND)

    def _snapshots(self, first: int) -> int:
        return sum(
            each.startswith(SNAPSHOT) and not each.endswith("/transactions") for each in self._fake.asked[first:]
        )

    def _compared(self, folder: Path) -> dict[str, Any]:
        """Let the worker handle all events, and compare every subscription and payment with PayPal's."""
        clock = MovableClock(SystemClock().now() + timedelta(hours=1))
        pipeline = PipelineUnderTest(f"sqlite:///{folder / 'smt-billing.db'}", folder, clock)
        _handle_all(pipeline)
        truths = {life.truth.id: life.truth for life in self.lives}
        statuses = {row.id: row.status for row in pipeline.rows(Subscription)}
        payments = {row.id: (row.amount, row.currency) for row in pipeline.rows(Payment)}
        sales = {
            each.id: (each.gross, each.currency) for truth in truths.values() for each in truth.transactions.values()
        }
        events = pipeline.rows(Event)
        mails = [row for row in pipeline.rows(Mail) if row.subscription_id and row.state != "withheld"]
        pipeline.database.close()
        return {
            "subscriptions": len(statuses), "states": dict(Counter(statuses.values()).most_common()),
            "states_equal": statuses == {id: truth.status for id, truth in truths.items()},
            "payments": len(payments), "payments_equal": payments == sales,
            "sums": _sums(payments.values()), "sums_at_paypal": _sums(sales.values()),
            "imported_twice": _repeated(events), "events_not_handled": sum(row.state != "handled" for row in events),
            "mails_to_customers": len(mails),
        }  # fmt: skip


def is_right(report: dict[str, Any]) -> bool:
    """Return whether everything is stored once, equals PayPal's data, and nothing was changed or mailed."""
    found = report["killed"]
    return bool(
        found["states_equal"] and found["payments_equal"] and found["sums"] == found["sums_at_paypal"]
    ) and not (
        found["imported_twice"] or found["events_not_handled"] or found["mails_to_customers"]
        or set(found["requests"]) - {"GET", "POST /v1/oauth2/token"}
    )  # fmt: skip


def _lives(plan: Plan) -> Iterator[Life]:
    """Yield lives of up to three years that end before now."""
    rng, now = Random(plan.seed), SystemClock().now().replace(microsecond=0)
    for person in crowd(plan.subscriptions, rng):
        months = rng.randint(1, LONGEST_MONTHS)
        start = now - timedelta(days=30 * months + rng.randint(1, 20))
        most = 60
        while True:
            life = random_life(Random(rng.random()), start, months, person, most_changes=most)
            if life.deliveries[-1].at < now:
                yield life
                break
            most = max(life.changes - 1, 0)


def _handle_all(pipeline: PipelineUnderTest) -> None:
    worker = pipeline.worker(HANDLERS)
    while True:
        with pipeline.database.transaction() as session:
            due = inbox.lease_due(session, pipeline.now, 2000)
        if not due:
            return
        worker.handle(due)


def _repeated(events: list[Event]) -> int:
    """Return how many objects have more than one imported event."""
    objects = Counter(
        (row.type, row.facts.get("sale") or row.facts.get("subscription")) for row in events if row.source == "history"
    )
    return sum(number > 1 for number in objects.values())


def _sums(money: Any) -> dict[str, int]:
    sums: Counter[str] = Counter()
    for amount, currency in money:
        sums[currency] += amount
    return dict(sorted(sums.items()))


def _methods(asked: list[str]) -> dict[str, int]:
    """Return the requests by method; a POST with its path."""
    return dict(Counter("GET" if each.startswith("GET ") else each for each in asked))
