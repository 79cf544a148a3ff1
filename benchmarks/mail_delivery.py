"""Receipts rendered, built and accepted: by Postfix, which is the limit then, and by smtp-sink, which is none."""

from collections.abc import Callable

from sqlalchemy.engine import make_url

from benchmarks import receipt, tools
from benchmarks.context import Bench
from benchmarks.peer import Peer
from benchmarks.rows import Figure, Row
from benchmarks.servers import Sink, Wrong, commits, count, expect, pace, tell, wait
from benchmarks.subject import Home

PEER = "Django EmailMultiAlternatives, connect per mail"
SENT_SECONDS = 120
LOGGED_SECONDS = 60  # its log is written by a process of its own, which a busy machine keeps waiting
SESSIONS = 10  # more than these are no faster for smtp-source


def into_postfix(bench: Bench) -> list[Row]:
    """Beside Django, and beside what Postfix can take at all."""
    postfix, care = bench.servers.postfix, bench.care
    mail = bench.folder / "receipt"
    mail.write_bytes(receipt.written().replace(b"\r\n", b"\n"))
    with bench.servers.database() as owed:
        home = owing(bench, owed)
        taken = bench.rounds(
            {
                "mail into Postfix": lambda: _counted(bench, lambda: ours(bench, home, postfix.smtp_url), care.mailed),
                "mail into Postfix, peer": lambda: _peer_into_postfix(bench),
                "mail into Postfix, smtp-source": lambda: _counted(
                    bench,
                    lambda: tools.source(postfix.port, care.mailed, mail, SESSIONS),
                    care.mailed,
                    alike=True,
                ),
            }
        )
    one, django, most = (Figure.of(paces) for paces in taken.values())
    name = "mail rendered, built and accepted by Postfix, 1 process"
    return [
        Row(name, PEER, "mails/s", one, django, 2.3),
        Row("the same compared with smtp-source", "smtp-source, 10 connections kept", "mails/s", one, most, 0.65),
    ]


def into_sink(bench: Bench) -> list[Row]:
    """Where the relay costs next to nothing."""
    with bench.servers.database() as owed:
        home = owing(bench, owed)
        taken = bench.rounds(
            {
                "mail into smtp-sink": lambda: _ours_into_sink(bench, home),
                "mail into smtp-sink, peer": lambda: _peer_into_sink(bench),
            }
        )
    one, django = (Figure.of(paces) for paces in taken.values())
    return [Row("mail rendered, built and accepted by smtp-sink, 1 process", PEER, "mails/s", one, django, 5)]


def owing(bench: Bench, database: str) -> Home:
    """An installation that owes one receipt to each of its customers, and no other mail."""
    load = bench.load("newcomers", 2 * bench.care.mailed)
    home = Home(bench.new_folder(), database=database, broker=bench.servers.rabbitmq.url)
    home.prepare(load.signer)
    home.parts.worker().handle(home.store(load.bodies))
    home.close()
    tell(database, "UPDATE mail SET state = 'withheld', due_at = NULL WHERE kind <> 'receipt'")
    due = count(database, "mail", "state = 'queued' AND due_at <= now()")
    expect(due, bench.care.mailed, "receipts owed")
    return home


def ours(bench: Bench, owed: Home, smtp: str) -> float:
    """The mailer's own pace: claim, decrypt, render, build, freeze, send, settle."""
    with bench.servers.database(template=make_url(owed.database).database) as database:
        home = owed.moved_to(bench.new_folder(), database, smtp)
        with home.role("mailer"):
            wait(lambda: count(database, "mail", "state = 'queued'") == 0, SENT_SECONDS, "every mail sent", pause=0.5)
        expect(count(database, "mail", "state = 'sent'"), bench.care.mailed, "mails sent")
        return pace(commits(database, "mail", "state = 'sent'"))


def _ours_into_sink(bench: Bench, owed: Home) -> float:
    sink = Sink(bench.folder)
    try:
        found = ours(bench, owed, sink.url)
    finally:
        taken = sink.stop()
    expect(taken, bench.care.mailed, "mails in smtp-sink")
    return found


def _peer_into_sink(bench: Bench) -> float:
    sink = Sink(bench.folder)
    try:
        told = _send(bench, sink.port)
    finally:
        taken = sink.stop()
    expect(taken, int(told["made"]), "the peer's mails in smtp-sink")
    return told["timed"] / told["seconds"]


def _peer_into_postfix(bench: Bench) -> float:
    told: dict[str, float] = {}

    def send() -> float:
        told.update(_send(bench, bench.servers.postfix.port))
        return told["timed"] / told["seconds"]

    return _counted(bench, send, lambda: int(told["made"]))


def _send(bench: Bench, port: int) -> dict[str, float]:
    """Nothing but rendering, building and sending: no table is read or written, unlike ours."""
    side = Peer(bench.new_folder(), bench.bins, smtp_port=port)
    return side.call("send", str(bench.care.mailed_by_peer))


def _counted(
    bench: Bench, measure: Callable[[], float], wanted: int | Callable[[], int], *, alike: bool = False
) -> float:
    """Measure, and see that Postfix has taken each mail once."""
    postfix = bench.servers.postfix
    postfix.accepted()
    found, seen = measure(), 0

    def all_there() -> bool:
        nonlocal seen
        seen += postfix.accepted(alike=alike)
        return seen >= (wanted if isinstance(wanted, int) else wanted())

    wait(all_there, LOGGED_SECONDS, "every mail in Postfix's log")
    if seen != (wanted if isinstance(wanted, int) else wanted()):
        raise Wrong(f"Postfix took {seen} mails")
    return found
