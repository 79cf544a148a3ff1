"""Cost as it grows: the same work beside few and beside many subscriptions, two events each. It has to stay flat.

A thousand customers go through the program's own code; copies of their rows, under ids of their own, make up the rest.
"""

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, select, update
from sqlalchemy.event import listen

from benchmarks import load
from benchmarks.context import Bench
from benchmarks.rows import Figure, Row
from benchmarks.servers import expect, tell
from benchmarks.subject import Home
from pipeline.billing.reminders import ReminderPolicy
from pipeline.clock import MovableClock, SystemClock
from pipeline.db.models import Base, Customer, EncryptionKey, Event, Mail, Payment, StatusHistoryEntry, Subscription
from pipeline.inbox import store as inbox
from pipeline.scheduler.renewal_reminders import RenewalReminders
from pipeline.scheduler.stale_claims import release_stale_claims

FLAT = 1 / 1.3  # of the cost beside few and the cost beside many
LARGE = 100_000  # subscriptions
CUSTOMERS = 1_000  # that are no copies
NEW = 100  # customers that come in each repeat
REMINDED = 20  # in each repeat
STEPS = ("webhook stored", "recovery of overdue events", "event handled", "reminder queued")

# How a copy's ids are made. `fresh` is the same for the same id and number, so copies belong together as originals do.
SUBSCRIPTION = "'I-' || fresh({0}, n)"
COPIED: dict[type[Base], dict[str, str]] = {
    EncryptionKey: {"key_id": SUBSCRIPTION.format("key_id")},
    Customer: {"id": "'c' || fresh(id, n)"},
    Subscription: {"id": SUBSCRIPTION.format("id"), "customer_id": "'c' || fresh(customer_id, n)"},
    Event: {
        "id": "'WH-' || fresh(id, n)",
        "key_id": SUBSCRIPTION.format("key_id"),
        "transmission_id": "fresh(transmission_id, n)",
        "body": "NULL",  # 5 GB for a million subscriptions; kept out of line, and read by nothing that is measured
    },
    Payment: {"id": "fresh(id, n)", "subscription_id": SUBSCRIPTION.format("subscription_id")},
    StatusHistoryEntry: {
        "subscription_id": SUBSCRIPTION.format("subscription_id"),
        "event_id": "'WH-' || fresh(event_id, n)",
    },
    Mail: {
        "id": "fresh(id, n)",
        "idempotency_key": "kind || ':' || fresh(idempotency_key, n)",
        "key_id": SUBSCRIPTION.format("key_id"),
        "subscription_id": SUBSCRIPTION.format("subscription_id"),
    },
}


@dataclass(slots=True)
class Grown:
    """An installation with so many subscriptions, and what each step has cost there, in µs for one."""

    size: int
    home: Home
    names: list[str]
    costs: dict[str, list[float]] = field(default_factory=lambda: {step: [] for step in STEPS})


def measure(bench: Bench) -> list[Row]:
    """Both databases."""
    rows = []
    with _postgresql(bench, _sizes(bench)) as grown:
        rows += _compare(bench, "PostgreSQL", grown)
    rows += _compare(bench, "SQLite", [_grow(bench, Home(bench.new_folder()), size) for size in bench.care.grown])
    return rows


def _sizes(bench: Bench) -> tuple[int, ...]:
    """Those of the run; in a full one also ten times the largest, which takes minutes to grow."""
    largest = bench.care.grown[-1]
    return (*bench.care.grown, 10 * largest) if largest >= LARGE else bench.care.grown


@contextmanager
def _postgresql(bench: Bench, sizes: tuple[int, ...]) -> Iterator[list[Grown]]:
    if not sizes:
        yield []
        return
    with _postgresql(bench, sizes[:-1]) as smaller, bench.servers.database() as database:
        grown = _grow(bench, Home(bench.new_folder(), database=database), sizes[-1])
        yield [*smaller, grown]
        grown.home.close()


def _compare(bench: Bench, where: str, grown: list[Grown]) -> list[Row]:
    """Repeat the steps beside each size in turns; the first repeat only warms up."""
    now = SystemClock().now()
    for repeat in range(bench.care.repeats + 1):
        bench.step(f"growth, {where}, repeat {repeat} of {bench.care.repeats}")
        bodies = load.newcomers(NEW, now, seed=1000 + repeat)
        for each in grown:
            _repeat(each, bodies, repeat)
    few, many = grown[0], grown[-1]
    peer_name = f"the same with {few.size:,} subscriptions"
    return [
        Row(
            f"{step} with {many.size:,} subscriptions, {where}",
            peer_name,
            "µs each",
            Figure.of(many.costs[step][1:]),
            Figure.of(few.costs[step][1:]),
            FLAT,
            smaller_is_better=True,
        )
        for step in STEPS
    ]


def _repeat(grown: Grown, bodies: list[bytes], repeat: int) -> None:
    parts, ids = grown.home.parts, []
    clock = MovableClock(SystemClock().now() + timedelta(minutes=2))
    reminders = RenewalReminders(parts.database, parts.master_key, clock, ReminderPolicy(), may_read=False)

    def sweep() -> int:
        with parts.database.reading() as session:
            return len(inbox.due_event_ids(session, clock.now(), len(bodies))) + release_stale_claims(
                parts.database, clock
            )

    _time(grown, "webhook stored", len(bodies), lambda: ids.extend(grown.home.store(bodies, group=32)))
    _time(grown, "recovery of overdue events", len(bodies), lambda: expect(sweep(), len(bodies), "swept"))
    _time(grown, "event handled", len(bodies), lambda: parts.worker().handle(ids))
    with parts.database.transaction() as session:
        due = grown.names[repeat * REMINDED : (repeat + 1) * REMINDED]
        session.execute(update(Subscription).where(Subscription.id.in_(due)).values(remind_at=clock.now()))
    _time(grown, "reminder queued", REMINDED, lambda: expect(reminders.queue_due(), REMINDED, "reminded"))


def _time(grown: Grown, step: str, count: int, work: Callable[[], object]) -> None:
    start = time.perf_counter()
    work()
    grown.costs[step].append(1e6 * (time.perf_counter() - start) / count)


# Growing


def _grow(bench: Bench, home: Home, size: int) -> Grown:
    bench.step(f"growing to {size:,} subscriptions")
    home.prepare(bench.load("newcomers", 2).signer)
    home.parts.worker().handle(home.store(load.newcomers(CUSTOMERS, SystemClock().now())))
    with home.parts.database.transaction() as session:
        session.execute(update(Mail).values(state="sent", due_at=None))
        subscriptions = list(session.execute(select(Subscription.id)).scalars())
    _copy(home, size // CUSTOMERS - 1)
    return Grown(size, home, subscriptions)


def _copy(home: Home, times: int) -> None:
    database = home.parts.database
    if database.is_sqlite:
        listen(database.engine, "connect", _add_fresh)
        database.engine.dispose()
    with database.engine.begin() as connection:
        if not database.is_sqlite:
            connection.exec_driver_sql(FRESH)
        connection.exec_driver_sql("CREATE TEMPORARY TABLE copy (n INTEGER)")
        connection.exec_driver_sql("INSERT INTO copy VALUES " + ", ".join(f"({n})" for n in range(1, times + 1)))
        for table, made in COPIED.items():
            _copy_table(connection, table, made)
        connection.exec_driver_sql("DROP TABLE copy")
        connection.exec_driver_sql("ANALYZE")
    if not database.is_sqlite:
        tell(home.database, "VACUUM")


def _copy_table(connection: Connection, table: type[Base], made: dict[str, str]) -> None:
    columns = [column.name for column in table.__table__.columns if (table, column.name) != (StatusHistoryEntry, "id")]
    values = [made.get(column, column) for column in columns]
    which = "WHERE substr(key_id, 1, 2) = 'I-'" if "key_id" in columns else ""  # not our own keys, and not the plan
    name = table.__tablename__
    connection.exec_driver_sql(
        f'INSERT INTO "{name}" ({", ".join(columns)}) SELECT {", ".join(values)} FROM "{name}", copy {which}'
    )


# The same in both databases: twenty characters that look random, None for None.
FRESH = """
    CREATE FUNCTION fresh(id text, n int) RETURNS text LANGUAGE sql IMMUTABLE STRICT
    AS $$ SELECT upper(substr(md5(id || n), 1, 20)) $$
"""


def _add_fresh(connection: Any, _record: object) -> None:
    def fresh(id: str | None, n: int) -> str | None:
        return id and hashlib.md5(f"{id}{n}".encode(), usedforsecurity=False).hexdigest()[:20].upper()

    connection.create_function("fresh", 2, fresh, deterministic=True)
