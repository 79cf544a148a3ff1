"""Each mail once: over real sockets to a relay that misbehaves on demand, and to a Postfix that delivers into a Maildir."""

import asyncio
import contextlib
import hashlib
import os
import re
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import timedelta
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from pipeline import outbox, purposes, register
from pipeline.database import Database, StoreDown
from pipeline.keys import KeyProblem, MasterKey
from pipeline.mailer import CLAIM, Mailer, Sender
from pipeline.outbox import DELAYS, Owed
from pipeline.render import Templates, Vendor, default_folder
from pipeline.scheduler import Scheduler
from pipeline.smtp import Relay
from pipeline.subscription import Reminders
from pipeline.tables import Key, Mail, Subscription
from tests import role
from tests.leash import Leashed, free_port, until
from tests.pipeline.test_smtp import House, Wire
from tests.river import River
from tests.services import Relay as Mailbox

ADA = "ada.whitfield@example.com"
OPERATOR = "operator@example.com"
VENDOR = Vendor("SMT Constructions", "https://smt.example.com", "1 Mill Lane", "#1d4e89", "SMT-CRM", "help@example.com")
SENDER = Sender(
    "SMT Constructions", "billing@example.com", "help@example.com", "bounces.example.com", "en_US", OPERATOR
)
TEMPLATES = Templates(default_folder(), VENDOR, "en_US")

Serve = Callable[[House], Awaitable[str]]
Make = Callable[..., Mailer]


def meet(river: River, id: str = "I-ADA", email: str | None = ADA, name: str = "Ada") -> None:
    """A customer with this address."""
    known = register.merge({}, river.now, {"email": email, "given_name": name, "surname": "Whitfield"})
    with river.database.transaction() as session:
        person = river.keyring(session).own(id).seal_json("subscription.person", known)
        row = session.get(Subscription, id) or Subscription(id=id, known={}, created_at=river.now)
        row.person = person
        session.add(row)


def receipt(number: int = 1, of: str = "I-ADA") -> Owed:
    facts = {**TEMPLATES.example("receipt"), "subscription": of, "payment": f"SALE{number}"}
    return Owed("receipt", f"receipt:SALE{number}", of, facts)


def owe(river: River, count: int = 1) -> None:
    river.owe(*[receipt(number) for number in range(1, count + 1)])


def only(river: River) -> Mail:
    [row] = river.rows(Mail)
    return row


def states(river: River) -> list[str]:
    return sorted(row.state for row in river.rows(Mail))


def header(data: bytes, name: str) -> str:
    return str(message_from_bytes(data, policy=policy.default)[name])


def scheduler(river: River) -> Scheduler:
    return Scheduler(
        river.database, river.master, river.clock,
        reminders=Reminders(), may_read=False, operator="",
    )  # fmt: skip


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Opens a house; gives the URL to reach it."""
    opened: list[tuple[asyncio.Server, House]] = []

    async def make(house: House) -> str:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Wire(house, loop=loop), "127.0.0.1", 0)
        opened.append((server, house))
        return f"smtp://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    yield make
    for server, house in opened:
        server.close()
        house.opened.set()
        for wire in house.wires:
            if wire.transport is not None:
                wire.transport.abort()
    await asyncio.sleep(0.01)


@pytest.fixture
async def make(river: River) -> AsyncIterator[Make]:
    """Mailers, on the river's database unless another is given."""
    made: list[Mailer] = []

    def mailer(url: str, database: Database | None = None, *, final: float = 5, connections: int = 2) -> Mailer:
        relay = Relay(url, connections=connections, timeout_seconds=5, final_timeout_seconds=final)
        made.append(Mailer(database or river.database, river.master, river.clock, TEMPLATES, relay, SENDER))
        return made[-1]

    yield mailer
    for each in made:
        await each.close()


# Sent


async def test_a_mail_is_sent_exactly_once(river: River, serve: Serve, make: Make) -> None:
    meet(river)
    owe(river)
    house = House()
    mailer = make(await serve(house))
    assert await mailer.send_due() == 1
    assert await mailer.send_due() == 0
    [(recipient, data)] = house.received
    row = only(river)
    assert recipient == ADA
    assert (row.state, row.sent_at, row.reply, row.due_at) == ("sent", river.now, "250 2.0.0 queued as 4Xyz", None)
    assert header(data, "Message-ID") == row.message_id == f"<receipt.{row.id}@bounces.example.com>"
    assert header(data, "To") == f"Ada Whitfield <{ADA}>"
    assert header(data, "Auto-Submitted") == "auto-generated"
    assert f"MAIL FROM:<b+{row.id}@bounces.example.com>" in " ".join(house.said)
    river.clock.advance(timedelta(days=365))
    assert await mailer.send_due() == 0


async def test_what_lies_in_the_table_of_a_sent_mail_is_sealed(river: River, serve: Serve, make: Make) -> None:
    meet(river)
    owe(river)
    house = House()
    await make(await serve(house)).send_due()
    row = only(river)
    assert row.frozen
    assert row.recipient
    assert b"Ada" not in row.frozen
    assert b"ada" not in row.recipient
    with river.database.transaction() as session:
        assert river.keyring(session).own("I-ADA").open("mail.frozen", row.frozen) == house.received[0][1]


async def test_every_kind_of_mail_that_customers_get_can_be_sent(brook: River, serve: Serve) -> None:
    river = brook
    meet(river)
    kinds = [kind for kind in TEMPLATES.kinds if kind != "event_parked" and not purposes.is_optional(kind)]
    assert len(kinds) >= 7
    river.owe(*[Owed(kind, f"{kind}:1", "I-ADA", TEMPLATES.example(kind)) for kind in kinds])
    house = House()
    relay = Relay(await serve(house), connections=2)
    mailer = Mailer(river.database, river.master, river.clock, TEMPLATES, relay, SENDER)
    await mailer.send_due()
    await mailer.close()
    assert {row.kind: row.state for row in river.rows(Mail)} == dict.fromkeys(kinds, "sent")
    assert len({data for _, data in house.received}) == len(kinds)


async def test_more_than_one_claims_worth_is_sent_claim_by_claim(river: River, serve: Serve, make: Make) -> None:
    meet(river)
    owe(river, CLAIM + 3)
    house = House()
    mailer = make(await serve(house))
    assert [await mailer.send_due() for _ in range(3)] == [CLAIM, 3, 0]
    assert len({header(data, "Message-ID") for _, data in house.received}) == CLAIM + 3


async def test_two_mailers_never_send_the_same_mail(river: River, serve: Serve, make: Make) -> None:
    meet(river)
    owe(river, 120)
    house, other = House(), Database(river.url)
    url = await serve(house)
    mailers = [make(url), make(url, other)]

    async def drain(mailer: Mailer) -> int:
        total = 0
        while sent := await mailer.send_due():
            total += sent
        return total

    assert sum(await asyncio.gather(*map(drain, mailers))) == 120
    assert len(house.received) == len({header(data, "Message-ID") for _, data in house.received}) == 120
    assert states(river) == ["sent"] * 120
    await mailers.pop().close()
    other.close()


async def test_the_bell_wakes_a_mailer_and_stopping_ends_it(river: River, serve: Serve, make: Make) -> None:
    meet(river)
    house, stop, bell = House(), asyncio.Event(), asyncio.Event()
    running = asyncio.create_task(make(await serve(house)).run(stop, bell))
    await asyncio.sleep(0.05)
    owe(river)
    bell.set()
    while not house.received:
        await asyncio.sleep(0.01)
    stop.set()
    await running
    assert states(river) == ["sent"]


async def test_a_mail_to_the_operator_goes_to_the_operator(river: River, serve: Serve, make: Make) -> None:
    river.owe(Owed("event_parked", "event_parked:1", None, TEMPLATES.example("event_parked")))
    house = House()
    await make(await serve(house)).send_due()
    assert [recipient for recipient, _ in house.received] == [OPERATOR]


# Tried again


async def test_a_mail_that_is_not_taken_now_is_tried_again_after_the_delays_and_then_failed(
    river: River, serve: Serve, make: Make
) -> None:
    meet(river)
    owe(river)
    house = House(RCPT=["450 4.2.1 greylisted"] * 99)
    mailer, waited = make(await serve(house)), list[timedelta]()
    row = river.rows(Mail)[0]
    while await mailer.send_due():
        row = only(river)
        if row.state == "failed":
            break
        assert (row.state, row.reply, row.reason) == ("owed", "450 4.2.1 greylisted", "450 4.2.1 greylisted")
        assert row.due_at
        waited.append(row.due_at - river.now)
        assert await mailer.send_due() == 0, "not before its time"
        river.clock.move_to(row.due_at)
    assert tuple(waited) == DELAYS
    assert (row.state, row.due_at, row.attempts) == ("failed", None, len(DELAYS) + 1)
    assert row.reason == "450 4.2.1 greylisted"
    assert house.received == []


async def test_a_mail_that_is_refused_is_failed_and_visible(river: River, serve: Serve, make: Make) -> None:
    meet(river)
    owe(river)
    house = House(RCPT=[f"550 5.1.1 <{ADA}> unknown here"])
    with capture_logs() as logs:
        await make(await serve(house)).send_due()
    row = only(river)
    assert (row.state, row.due_at) == ("failed", None)
    assert row.reason == row.reply
    assert row.reply
    assert "550 5.1.1" in row.reply
    assert ADA not in row.reply
    assert ADA not in str(logs)
    river.clock.advance(timedelta(days=365))
    assert await make(await serve(house)).send_due() == 0


@pytest.mark.parametrize("script", [{"MAIL": ["drop"]}, {"RCPT": ["451 4.3.0 later"]}, {"DATA": ["drop"]}])
async def test_before_the_text_began_the_mail_is_thrown_away_and_written_anew(
    river: River, serve: Serve, make: Make, script: dict[str, list[str]]
) -> None:
    """An address that was corrected meanwhile is used."""
    meet(river, email="adda@example.com")
    owe(river)
    house = House(**{verb: list(says) for verb, says in script.items()})
    mailer = make(await serve(house))
    await mailer.send_due()
    row = only(river)
    assert (row.state, row.frozen, row.recipient) == ("owed", None, None)
    meet(river)
    river.clock.move_to(row.due_at or river.now)
    await mailer.send_due()
    assert [recipient for recipient, _ in house.received] == [ADA]
    assert states(river) == ["sent"]
    assert only(river).message_id == row.message_id


async def test_after_the_text_began_the_mail_stays_the_same_to_the_last_byte(
    river: River, serve: Serve, make: Make
) -> None:
    meet(river)
    owe(river)
    house = House(DOT=["451 4.3.0 queue file write error"] * 3)
    url = await serve(house)
    for _ in range(4):
        await make(url).send_due()  # another mailer each time, as after a restart
        meet(river, email="somebody.else@example.com", name="Somebody")
        river.clock.move_to(only(river).due_at or river.now)
    assert states(river) == ["sent"]
    assert len(house.received) == 4
    assert len({hashlib.sha256(data).hexdigest() for _, data in house.received}) == 1
    assert {recipient for recipient, _ in house.received} == {ADA}


async def test_a_relay_that_is_away_keeps_mails_owed(river: River, make: Make) -> None:
    meet(river)
    owe(river, 3)
    assert await make(f"smtp://127.0.0.1:{free_port()}").send_due() == 3
    assert states(river) == ["owed"] * 3
    assert {row.due_at for row in river.rows(Mail)} == {river.now + DELAYS[0]}


# Doubt


@pytest.mark.parametrize("how", ["drop", "close", "354 what"])
async def test_a_connection_lost_after_the_text_is_doubt_and_never_sent_again_by_itself(
    river: River, serve: Serve, make: Make, how: str
) -> None:
    meet(river)
    owe(river)
    house = House(DOT=[how])
    mailer = make(await serve(house))
    await mailer.send_due()
    row = only(river)
    assert row.state == "doubt"
    assert row.reason
    assert row.reason.startswith("the connection was lost after DATA")
    assert row.frozen
    river.clock.advance(timedelta(days=365))
    assert await mailer.send_due() == 0
    assert scheduler(river).free_claims() == 0
    assert len(house.received) == 1


async def test_a_doubt_that_a_person_settled_as_not_sent_goes_out_with_the_same_bytes(
    river: River, serve: Serve, make: Make
) -> None:
    meet(river)
    owe(river)
    house = House(DOT=["drop"])
    mailer = make(await serve(house))
    await mailer.send_due()
    with river.database.transaction() as session:
        assert outbox.settle_doubt(session, only(river).id, river.now, sent=False)
    await mailer.send_due()
    (_, first), (_, second) = house.received
    assert first == second
    assert states(river) == ["sent"]


# Neighbours


async def test_a_mail_that_cannot_be_written_does_not_stop_the_others(river: River, serve: Serve, make: Make) -> None:
    meet(river)
    meet(river, "I-BEA", email="bea@@example..com")
    meet(river, "I-CYD")
    river.owe(
        Owed("receipt", "bad:1", "I-ADA", {"payment": "a fact is missing"}),
        Owed("receipt", "bad:2", "I-ADA", {}),
        receipt(3, "I-BEA"),
        receipt(4, "I-CYD"),
        receipt(5),
        receipt(6),
    )
    mails = river.mails()
    river.set(mails["bad:2"], kind="no_such_mail")
    river.set(mails["receipt:SALE4"], facts=b"broken beyond repair, and long enough")
    river.set(mails["receipt:SALE5"], frozen=b"broken beyond repair, and long enough", recipient=b"the same, as well")
    house = House()
    with capture_logs() as logs:
        await make(await serve(house)).send_due()
    found = {key: (row.state, row.reason) for key, row in river.mails().items()}
    assert found.pop("receipt:SALE6") == ("sent", None)
    assert {state for state, _ in found.values()} == {"failed"}
    assert all(reason for _, reason in found.values())
    assert "bea@" not in str(found) + str(logs)
    assert len(house.received) == 1


async def test_a_key_that_is_broken_fails_its_mail_and_no_other(river: River, serve: Serve, make: Make) -> None:
    meet(river)
    meet(river, "I-BEA")
    river.owe(receipt(1), receipt(2, "I-BEA"))
    river.set(next(row for row in river.rows(Key) if row.label == "I-BEA"), wrapped=b"a broken row of a good table")
    house = House()
    mailer = make(await serve(house))
    await mailer.send_due()
    assert {key: row.state for key, row in river.mails().items()} == {
        "receipt:SALE1": "sent",
        "receipt:SALE2": "failed",
    }


async def test_a_template_that_fails_in_a_way_of_its_own_fails_its_mail_and_quotes_nobody(
    river: River, serve: Serve, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    meet(river)
    owe(river)

    def fail(*_: object) -> None:
        raise RuntimeError(ADA)

    mailer = make(await serve(House()))
    monkeypatch.setattr(TEMPLATES, "render", fail)
    with capture_logs() as logs:
        await mailer.send_due()
    assert (only(river).state, only(river).reason) == ("failed", "a fault of ours: RuntimeError")
    assert ADA not in str(logs)


async def test_the_wrong_master_key_is_no_mails_fault(river: River, serve: Serve, make: Make) -> None:
    """The mailer ends, its supervisor sees it, and nothing is failed."""
    meet(river)
    owe(river, 2)
    house, right = House(), river.master
    url = await serve(house)
    river.master = MasterKey(os.urandom(32))
    with pytest.raises(KeyProblem, match="restore the right key file"):
        await make(url).send_due()
    assert states(river) == ["owed", "owed"]
    river.master = right
    assert await make(url).send_due() == 2


async def test_a_relay_that_fails_in_a_way_of_its_own_leaves_one_doubt_and_harms_no_other(
    river: River, serve: Serve, make: Make
) -> None:
    meet(river)
    owe(river, 3)
    house = House()
    mailer = make(await serve(house))
    send, turns = mailer._relay.send, iter([True, False, False])

    async def fail(*words: Any, **more: Any) -> Any:
        if next(turns):
            raise RuntimeError(ADA)
        return await send(*words, **more)

    mailer._relay.send = fail  # type: ignore[method-assign]
    with capture_logs() as logs:
        await mailer.send_due()
    assert states(river) == ["doubt", "sent", "sent"]
    assert ADA not in str(logs) + str([row.reason for row in river.rows(Mail)])


async def test_without_an_address_a_mail_waits_and_goes_out_when_there_is_one(
    river: River, serve: Serve, make: Make
) -> None:
    meet(river, email=None)
    owe(river)
    house = House()
    mailer = make(await serve(house))
    await mailer.send_due()
    row = only(river)
    assert (row.state, row.due_at, row.frozen) == ("owed", None, None)
    assert await mailer.send_due() == 0
    assert house.received == []
    meet(river)
    river.set(row, due_at=river.now)
    await mailer.send_due()
    assert states(river) == ["sent"]


async def test_a_mail_to_the_operator_waits_where_none_is_named(river: River, serve: Serve) -> None:
    river.owe(Owed("event_parked", "event_parked:1", None, TEMPLATES.example("event_parked")))
    nobody = Sender("SMT", "billing@example.com", "help@example.com", "example.com", "en_US")
    relay = Relay(await serve(House()), connections=1)
    mailer = Mailer(river.database, river.master, river.clock, TEMPLATES, relay, nobody)
    await mailer.send_due()
    await mailer.close()
    assert (only(river).state, only(river).due_at) == ("owed", None)


async def test_nothing_goes_to_who_was_erased_after_it_was_owed(river: River, serve: Serve, make: Make) -> None:
    meet(river)
    owe(river)
    river.set(next(row for row in river.rows(Key) if row.label == "I-ADA"), wrapped=None, erased_at=river.now)
    house = House()
    await make(await serve(house)).send_due()
    assert (only(river).state, only(river).reason) == ("withheld", "the person has been erased")
    assert house.received == []


# When the database is away


async def test_what_could_not_be_settled_is_settled_before_anything_else(
    river: River, serve: Serve, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    meet(river)
    owe(river)
    house = House()
    mailer = make(await serve(house))

    def away(*_: object) -> None:
        raise StoreDown("gone")

    monkeypatch.setattr("pipeline.mailer.outbox.settle", away)
    for _ in range(3):
        with pytest.raises(StoreDown):
            await mailer.send_due()
    assert states(river) == ["sending"]
    assert scheduler(river).free_claims() == 0
    monkeypatch.undo()
    assert await mailer.send_due() == 0
    assert states(river) == ["sent"]
    assert len(house.received) == 1


def lose_the_word_of(transaction: Callable[[], Any]) -> Callable[[], Any]:
    """Transactions that are committed, and then fail."""

    @contextlib.contextmanager
    def lost() -> Iterator[Any]:
        with transaction() as session:
            yield session
        raise StoreDown("the connection was lost")

    return lost


def gone(*_: object) -> None:
    raise StoreDown("gone")


async def test_a_claim_of_unknown_outcome_is_given_back(
    river: River, serve: Serve, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit was done, and the word of it was lost."""
    meet(river)
    owe(river, 2)
    house = House()
    mailer = make(await serve(house))
    with monkeypatch.context() as broken:
        broken.setattr(river.database, "transaction", lose_the_word_of(river.database.transaction))
        with pytest.raises(StoreDown):
            await asyncio.to_thread(mailer._claim)
    assert states(river) == ["sending", "sending"]
    assert await mailer.send_due() == 2
    assert states(river) == ["sent", "sent"]
    assert len(house.received) == 2


async def test_a_claim_of_unknown_outcome_is_given_back_also_when_the_next_fails_under_another_name(
    river: River, serve: Serve, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that restarts cuts all connections, and may go away once more."""
    meet(river)
    owe(river)
    mailer = make(await serve(House()))
    with monkeypatch.context() as broken:
        broken.setattr(river.database, "transaction", lose_the_word_of(river.database.transaction))
        with pytest.raises(StoreDown):
            await asyncio.to_thread(mailer._claim)
    with monkeypatch.context() as broken:
        broken.setattr("pipeline.mailer._Life.look", lambda _: False)
        broken.setattr("pipeline.mailer.outbox.give_back", gone)
        with pytest.raises(StoreDown):
            await asyncio.to_thread(mailer._claim)
    assert await mailer.send_due() == 1
    assert states(river) == ["sent"]


async def test_what_is_on_the_wire_is_not_given_back_with_a_claim_of_unknown_outcome(
    river: River, serve: Serve, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    meet(river)
    owe(river)
    house, stop, bell = House(DOT=["hang"]), asyncio.Event(), asyncio.Event()
    mailer = make(await serve(house))
    running = asyncio.create_task(mailer.run(stop, bell))
    await house.hanging.wait()
    claim, failed = outbox.claim, asyncio.Event()
    loop = asyncio.get_running_loop()

    def lose(session: Any, *words: Any) -> Any:
        claim(session, *words)
        session.commit()
        loop.call_soon_threadsafe(failed.set)
        raise StoreDown("the connection was lost")

    monkeypatch.setattr("pipeline.mailer.outbox.claim", lose)
    owe(river, 3)
    bell.set()
    await failed.wait()
    monkeypatch.undo()
    monkeypatch.setattr("pipeline.mailer.POLL_SECONDS", 0.02)
    await asyncio.sleep(0.5)
    house.opened.set()
    while states(river) != ["sent"] * 3:
        await asyncio.sleep(0.01)
    stop.set()
    await running
    assert len(house.received) == 3


async def test_a_mailer_stops_in_peace_while_the_database_is_away(
    river: River, serve: Serve, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    meet(river)
    owe(river)
    house, stop = House(), asyncio.Event()

    def away(*_: object) -> None:
        raise StoreDown("gone")

    monkeypatch.setattr("pipeline.mailer.outbox.settle", away)
    running = asyncio.create_task(make(await serve(house)).run(stop, asyncio.Event()))
    while not house.received:
        await asyncio.sleep(0.01)
    stop.set()
    await running
    assert states(river) == ["sending"], "the relay's log will tell"


async def test_a_mail_that_is_slow_keeps_no_other_back(river: River, serve: Serve, make: Make) -> None:
    meet(river)
    owe(river, CLAIM + 3)
    house, stop = House(DOT=["hang"]), asyncio.Event()
    running = asyncio.create_task(make(await serve(house)).run(stop, asyncio.Event()))
    while states(river) != ["sending"] + ["sent"] * (CLAIM + 2):
        await asyncio.sleep(0.02)
    house.opened.set()
    stop.set()
    await running
    assert states(river) == ["sent"] * (CLAIM + 3)


async def test_a_mailer_whose_connection_was_cut_goes_on_under_another_name(stream: River, serve: Serve) -> None:
    meet(stream)
    owe(stream)
    house = House(DOT=["hang"])
    relay = Relay(await serve(house), connections=2)
    mailer = Mailer(stream.database, stream.master, stream.clock, TEMPLATES, relay, SENDER)
    sending = asyncio.create_task(mailer.send_due())
    await house.hanging.wait()
    with stream.database.transaction() as session:
        session.execute(text("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"))
    while not await asyncio.to_thread(scheduler(stream).free_claims):
        await asyncio.sleep(0.01)
    assert states(stream) == ["doubt"], "nobody can know that it lives"
    house.opened.set()
    await sending
    assert states(stream) == ["sent"], "it knew better"
    first = only(stream).holder
    stream.owe(receipt(2))
    await mailer.send_due()
    assert stream.mails()["receipt:SALE2"].holder != first
    await mailer.close()


# Death


async def mailer_that_hangs(river: River, house: House, url: str, folder: Path, *more: tuple[str, str]) -> Leashed:
    """A mailer of its own process that has handed over a mail's text and waits for the answer."""
    meet(river)
    owe(river)
    mailer = role.start("mailer", folder, data_dir=river.folder, database_url=river.url, smtp_url=url, **dict(more))
    await asyncio.wait_for(house.hanging.wait(), 60)
    return mailer


async def test_a_mailer_killed_while_sending_leaves_a_doubt(
    river: River, serve: Serve, make: Make, tmp_path: Path
) -> None:
    house = House(DOT=["hang"])
    url = await serve(house)
    mailer = await mailer_that_hangs(river, house, url, tmp_path)
    assert scheduler(river).free_claims() == 0, "it lives"
    assert states(river) == ["sending"]
    mailer.end(kill=True)
    while not await asyncio.to_thread(scheduler(river).free_claims):
        await asyncio.sleep(0.01)
    row = only(river)
    assert (row.state, row.reason) == ("doubt", "its mailer died while sending it")
    assert await make(url).send_due() == 0
    assert len(house.received) == 1


async def test_a_mailer_that_was_stopped_is_not_dead(river: River, serve: Serve, tmp_path: Path) -> None:
    """A timer would take its claim away, and the mail would go out twice when it goes on."""
    house = House(DOT=["hang"])
    mailer = await mailer_that_hangs(river, house, await serve(house), tmp_path)
    os.killpg(mailer.pid, signal.SIGSTOP)
    river.clock.advance(timedelta(days=365))
    assert scheduler(river).free_claims() == 0
    assert states(river) == ["sending"]
    os.killpg(mailer.pid, signal.SIGCONT)
    house.opened.set()
    while states(river) != ["sent"]:
        await asyncio.sleep(0.01)
    assert await asyncio.to_thread(mailer.end) == 0
    assert len(house.received) == 1


async def test_a_mailer_shows_life_while_the_relay_hangs_and_all_that_was_claimed_waits(
    river: River, serve: Serve, tmp_path: Path
) -> None:
    owe(river, 2 * CLAIM + 1)
    house, shown = House(DOT=["hang"]), river.folder / "run" / "mailer"
    mailer = await mailer_that_hangs(river, house, await serve(house), tmp_path, ("smtp_connections", "1"))
    while states(river).count("sending") < 2 * CLAIM:
        await asyncio.sleep(0.01)
    os.utime(shown, (0, 0))
    await asyncio.to_thread(until, lambda: shown.stat().st_mtime > 0, 20, "a sign of life while all waits")
    house.opened.set()
    assert await asyncio.to_thread(mailer.end) == 0


# Postfix


async def test_postfix_delivers_each_mail_once_as_it_was_frozen(river: River, make: Make, mailbox: Mailbox) -> None:
    meet(river)
    owe(river, 10)
    await make(mailbox.smtp_url).send_due()
    delivered = await asyncio.to_thread(mailbox.wait_for, 10)
    assert states(river) == ["sent"] * 10
    rows = {str(row.message_id): row for row in river.rows(Mail)}
    assert {header(data, "Message-ID") for data in delivered} == set(rows)
    assert len(delivered) == 10
    with river.database.transaction() as session:
        seal = river.keyring(session).own("I-ADA")
        for data in delivered:
            row = rows[header(data, "Message-ID")]
            frozen = seal.open("mail.frozen", row.frozen or b"").replace(b"\r\n", b"\n")
            assert data.endswith(frozen), "Postfix adds lines above, and changes nothing"
            assert header(data, "Return-Path") == f"<b+{row.id}@bounces.example.com>"
            assert row.reply
            assert re.fullmatch(r"250 2\.0\.0 Ok: queued as \w+", row.reply)


async def test_postfix_refuses_and_defers_and_it_shows(river: River, make: Make, mailbox: Mailbox) -> None:
    for name in ("refused", "later"):
        meet(river, f"I-{name}", email=f"{name}@example.com")
        river.owe(Owed("receipt", f"receipt:{name}", f"I-{name}", receipt().facts))
    await make(mailbox.smtp_url).send_due()
    mails = river.mails()
    assert (mails["receipt:refused"].state, mails["receipt:later"].state) == ("failed", "owed")
    assert mails["receipt:later"].due_at == river.now + DELAYS[0]
    assert "5.1.1" in str(mails["receipt:refused"].reason)
    assert "@example.com" not in str([row.reply for row in mails.values()])


def test_no_thread_of_a_mailer_outlives_it() -> None:
    assert [thread.name for thread in threading.enumerate() if "mailer" in thread.name] == []
