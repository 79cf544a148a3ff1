"""The end to end: from the first webhook posted to the last mail accepted by Postfix. Two events, two mails each."""

import time

from benchmarks import tools
from benchmarks.context import Bench
from benchmarks.load import Load
from benchmarks.mail_delivery import LOGGED_SECONDS
from benchmarks.peer import QUEUE, Peer
from benchmarks.rows import Figure, Row
from benchmarks.servers import ask, count, expect, wait
from benchmarks.subject import Home

PEER = "FastAPI + Celery prefork 2 + Django mail"
ROLES = ("web", "worker", "mailer", "scheduler")
SETTLE_SECONDS = 180


def measure(bench: Bench) -> list[Row]:
    """Both with PostgreSQL, RabbitMQ and Postfix, and mails for every event."""
    mine, small = bench.load("newcomers", bench.care.end_to_end), bench.load("newcomers", bench.care.end_to_end_by_peer)
    taken = bench.rounds({"end to end": lambda: ours(bench, mine), "end to end, peer": lambda: peer(bench, small)})
    one, other = (Figure.of(paces) for paces in taken.values())
    return [Row("webhook in -> mail accepted by Postfix, end to end", PEER, "mails/s", one, other, 5)]


def ours(bench: Bench, load: Load) -> float:
    """One process of each role."""
    events, postfix, broker = len(load.bodies), bench.servers.postfix, bench.servers.rabbitmq.url
    with bench.servers.database() as database:
        home = Home(bench.new_folder(), database=database, broker=broker, smtp=postfix.smtp_url)
        home.prepare(load.signer)
        home.close()
        with home.role(*ROLES):
            time.sleep(2)  # all of them have started and wait
            postfix.accepted()
            began = time.time()  # noqa: TID251 - to be compared with PostgreSQL's clock
            tools.post_once(load, home.url, lambda: count(database, "event", "source = 'webhook'") == events)
            wait(lambda: count(database, "mail", "state = 'sent'") == events, SETTLE_SECONDS, "every mail sent")
        expect(count(database, "event", "source = 'webhook' AND state = 'handled'"), events, "events handled")
        return _pace(bench, database, "mail", "sent_at", events, began)


def peer(bench: Bench, load: Load) -> float:
    """One uvicorn process, two processes of Celery that handle and send."""
    events, postfix, broker = len(load.bodies), bench.servers.postfix, bench.servers.rabbitmq.url
    with bench.servers.database() as database:
        bench.servers.empty(QUEUE)
        folder = bench.new_folder()
        side = Peer(folder, bench.bins, database=database, broker=broker, smtp_port=postfix.port, mails=True)
        side.prepare(load.signer)
        with side.web(), side.worker():
            time.sleep(3)
            postfix.accepted()
            began = time.time()  # noqa: TID251
            tools.post_once(load, side.url, lambda: count(database, "outbox") == events)
            wait(lambda: count(database, "outbox", "sent_at IS NOT NULL") == events, SETTLE_SECONDS, "every mail sent")
        return _pace(bench, database, "outbox", "sent_at", events, began)


def _pace(bench: Bench, database: str, table: str, column: str, events: int, began: float) -> float:
    seen = 0

    def all_there() -> bool:
        nonlocal seen
        seen += bench.servers.postfix.accepted()
        return seen >= events

    wait(all_there, LOGGED_SECONDS, "every mail in Postfix's log")
    expect(seen, events, "mails that Postfix took")
    ended = float(ask(database, f"SELECT extract(epoch FROM max({column})) FROM {table}")[0][0])
    return events / (ended - began)
