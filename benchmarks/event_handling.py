"""Events handled into PostgreSQL: the queue is full when the workers start, and their commits tell the pace."""

from sqlalchemy.engine import make_url

from benchmarks.context import Bench
from benchmarks.load import EVENTS_EACH, Load
from benchmarks.peer import QUEUE, Peer
from benchmarks.rows import Figure, Row
from benchmarks.servers import commits, count, expect, pace, wait
from benchmarks.subject import Home

PEER = "Celery prefork 2, acks_late, three writes in one transaction"
OUR_QUEUE = "smt.events"
HANDLED_SECONDS = 120


def measure(bench: Bench) -> list[Row]:
    """One and two worker processes beside Celery's two."""
    load = bench.load("lives", bench.care.handled)
    with bench.servers.database() as stored:
        home = Home(bench.new_folder(), database=stored, broker=bench.servers.rabbitmq.url)
        home.prepare(load.signer)
        ids = home.store(load.bodies)
        home.close()
        taken = bench.rounds(
            {
                "handled, 1 process": lambda: ours(bench, home, ids, 1),
                "handled, peer": lambda: peer(bench, load),
                "handled, 2 processes": lambda: ours(bench, home, ids, 2),
            }
        )
    one, other, two = (Figure.of(paces) for paces in taken.values())
    return [
        Row("events handled into PostgreSQL, 1 worker process", PEER, "events/s", one, other, 5, 8),
        Row("events handled into PostgreSQL, 2 worker processes", PEER, "events/s", two, other, 8, 12),
    ]


def ours(bench: Bench, stored: Home, ids: list[str], workers: int) -> float:
    """A copy of the database in which everything is stored and nothing handled."""
    with bench.servers.database(template=make_url(stored.database).database) as database:
        home = stored.moved_to(bench.new_folder(), database)
        bench.servers.empty(OUR_QUEUE)
        home.publish(ids)
        with home.role(*["worker"] * workers):
            wait(lambda: count(database, "event", "state = 'received'") == 0, HANDLED_SECONDS, "every event handled")
        _expect_books(database, len(ids))
        home.close()
        return pace(commits(database, "event", "state = 'handled' AND source = 'webhook'"))


def peer(bench: Bench, load: Load) -> float:
    """The same events, fewer of them."""
    with bench.servers.database() as database:
        side = Peer(bench.new_folder(), bench.bins, database=database, broker=bench.servers.rabbitmq.url)
        side.prepare(load.signer)
        bench.servers.empty(QUEUE)
        events = bench.care.handled_by_peer
        side.call("publish", str(load.write_bodies(side.folder / "bodies.json")), str(events))
        with side.worker():
            wait(lambda: count(database, "outbox") == events, HANDLED_SECONDS, "every event handled by the peer")
        return pace(commits(database, "outbox"))


def _expect_books(database: str, events: int) -> None:
    """Each event handled once: a subscription for four of them, three payments, four mails owed or withheld."""
    lives = events // EVENTS_EACH["lives"]
    expect(count(database, "event", "state = 'handled' AND source = 'webhook'"), events, "events handled")
    expect(count(database, "subscription", "status = 'ACTIVE'"), lives, "active subscriptions")
    expect(count(database, "payment", "status = 'completed'"), 3 * lives, "completed payments")
    expect(count(database, "mail"), 4 * lives, "mails")
