"""A webhook is answered after it is durable, 32 at once; nothing is handled meanwhile, on either side."""

from sqlalchemy import func, select

from benchmarks import tools
from benchmarks.context import Bench
from benchmarks.load import Load
from benchmarks.peer import QUEUE, Peer
from benchmarks.rows import Figure, Limit, Row
from benchmarks.servers import Wrong, expect
from benchmarks.subject import Home
from benchmarks.tools import CONNECTIONS, Posted
from pipeline.db.models import Event

PEER = "FastAPI + celery.delay with confirms"
OUR_QUEUE = "smt.events"


def measure(bench: Bench) -> list[Row]:
    """Both columns beside the same peer."""
    load = bench.load("lives", bench.care.posted)
    taken = bench.rounds(
        {
            "ingest, embedded": lambda: embedded(bench, load),
            "ingest, peer": lambda: peer(bench, load),
            "ingest, PostgreSQL + RabbitMQ": lambda: at_scale(bench, load),
        }
    )
    one, other, scale = taken.values()
    return [
        _row("webhook answered after durable, c=32, embedded", one, other, 12, None, 10),
        _row("webhook answered after durable, c=32, PostgreSQL + RabbitMQ", scale, other, 6, 8, 15),
    ]


def embedded(bench: Bench, load: Load) -> Posted:
    """One process, SQLite, the queue inside the process."""
    home = Home(bench.new_folder())
    home.prepare(load.signer)
    with home.role("web-only"):
        posted = tools.post(load, home.url, bench.care.post_seconds)
    _expect_rows(home, posted)
    return posted


def at_scale(bench: Bench, load: Load) -> Posted:
    """One web process, PostgreSQL, RabbitMQ with quorum queues."""
    with bench.servers.database() as database:
        home = Home(bench.new_folder(), database=database, broker=bench.servers.rabbitmq.url)
        home.prepare(load.signer)
        with home.role("web"):
            posted = tools.post(load, home.url, bench.care.post_seconds)
        _expect_rows(home, posted)
        home.close()
    bench.servers.empty(OUR_QUEUE)
    return posted


def peer(bench: Bench, load: Load) -> Posted:
    """One uvicorn process; RabbitMQ's queue as Celery declares it."""
    side = Peer(bench.new_folder(), bench.bins, broker=bench.servers.rabbitmq.url)
    side.prepare(load.signer)
    bench.servers.empty(QUEUE)
    with side.web():
        posted = tools.post(load, side.url, bench.care.post_seconds)
    _within(bench.servers.waiting_in(QUEUE), posted, "tasks in the peer's queue")
    bench.servers.empty(QUEUE)
    return posted


def _expect_rows(home: Home, posted: Posted) -> None:
    """Each event answered 200 is a row, waiting to be handled."""
    with home.parts.database.reading() as session:
        webhooks = select(func.count()).where(Event.source == "webhook")
        stored = session.execute(webhooks).scalar_one()
        waiting = session.execute(webhooks.where(Event.state == "received")).scalar_one()
    _within(stored, posted, "events stored")
    expect(waiting, stored, "events waiting to be handled")


def _within(found: int, posted: Posted, what: str) -> None:
    """What was on its way when wrk ended may be there or not."""
    if not posted.answered <= found <= posted.answered + CONNECTIONS:
        raise Wrong(f"{what}: {found}, and {posted.answered} were answered 200")


def _row(
    name: str, ours: list[Posted], theirs: list[Posted], target: float, stretch: float | None, most_ms: float
) -> Row:
    return Row(
        name,
        PEER,
        "webhooks/s",
        Figure.of([posted.pace for posted in ours]),
        Figure.of([posted.pace for posted in theirs]),
        target,
        stretch,
        limit=Limit(
            "p99 in ms",
            Figure.of([posted.p99_ms for posted in ours]),
            Figure.of([posted.p99_ms for posted in theirs]),
            most_ms,
        ),
    )
