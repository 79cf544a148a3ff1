"""The mailer sends each mail once: over real sockets to a misbehaving relay, and to a Postfix with a Maildir."""

import asyncio
import hashlib
import re
import threading
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from pipeline.db.engine import Database
from pipeline.db.models import Mail
from pipeline.mailer.mailer import CLAIM, Mailer
from pipeline.mailer.smtp_relay import Relay
from pipeline.outbox import mail_kinds
from pipeline.outbox import store as outbox
from pipeline.outbox.store import DELAYS, NewMail
from tests.support.misbehaving_relay import House, Serve
from tests.support.outbox_fixtures import (
    ADA,
    OPERATOR,
    SENDER,
    TEMPLATES,
    Make,
    header,
    meet,
    only,
    owe,
    receipt,
    scheduler,
    states,
)
from tests.support.pipeline_under_test import River
from tests.support.servers import Relay as Mailbox
from tests.support.subprocesses import free_port

# Sending


async def test_mail_is_sent_exactly_once(river: River, serve: Serve, make: Make) -> None:
    meet(river)
    owe(river)
    fake_relay = House()
    mailer = make(await serve(fake_relay))
    assert await mailer.send_due() == 1
    assert await mailer.send_due() == 0
    [(recipient, data)] = fake_relay.received
    row = only(river)
    assert recipient == ADA
    assert (row.state, row.sent_at, row.relay_reply, row.due_at) == (
        "sent",
        river.now,
        "250 2.0.0 queued as 4Xyz",
        None,
    )
    assert header(data, "Message-ID") == row.message_id == f"<receipt.{row.id}@bounces.example.com>"
    assert header(data, "To") == f"Ada Whitfield <{ADA}>"
    assert header(data, "Auto-Submitted") == "auto-generated"
    assert f"MAIL FROM:<b+{row.id}@bounces.example.com>" in " ".join(fake_relay.said)
    river.clock.advance(timedelta(days=365))
    assert await mailer.send_due() == 0


async def test_sent_mail_is_stored_encrypted(river: River, serve: Serve, make: Make) -> None:
    meet(river)
    owe(river)
    fake_relay = House()
    await make(await serve(fake_relay)).send_due()
    row = only(river)
    assert row.frozen
    assert row.recipient
    assert b"Ada" not in row.frozen
    assert b"ada" not in row.recipient
    with river.database.transaction() as session:
        assert (
            river.keyring(session).system_key("I-ADA").decrypt("mail.frozen", row.frozen) == fake_relay.received[0][1]
        )


async def test_every_customer_mail_kind_can_be_sent(brook: River, serve: Serve) -> None:
    river = brook
    meet(river)
    kinds = [kind for kind in TEMPLATES.kinds if kind != "event_parked" and not mail_kinds.is_optional(kind)]
    assert len(kinds) >= 7
    river.owe(*[NewMail(kind, f"{kind}:1", "I-ADA", TEMPLATES.example(kind)) for kind in kinds])
    fake_relay = House()
    relay = Relay(await serve(fake_relay), connections=2)
    mailer = Mailer(river.database, river.master, river.clock, TEMPLATES, relay, SENDER)
    await mailer.send_due()
    await mailer.close()
    assert {row.kind: row.state for row in river.rows(Mail)} == dict.fromkeys(kinds, "sent")
    assert len({data for _, data in fake_relay.received}) == len(kinds)


async def test_many_mails_are_sent_in_several_claims(river: River, serve: Serve, make: Make) -> None:
    meet(river)
    owe(river, CLAIM + 3)
    fake_relay = House()
    mailer = make(await serve(fake_relay))
    assert [await mailer.send_due() for _ in range(3)] == [CLAIM, 3, 0]
    assert len({header(data, "Message-ID") for _, data in fake_relay.received}) == CLAIM + 3


async def test_two_mailers_never_send_the_same_mail(river: River, serve: Serve, make: Make) -> None:
    meet(river)
    owe(river, 120)
    fake_relay, other = House(), Database(river.url)
    url = await serve(fake_relay)
    mailers = [make(url), make(url, other)]

    async def drain(mailer: Mailer) -> int:
        total = 0
        while sent := await mailer.send_due():
            total += sent
        return total

    assert sum(await asyncio.gather(*map(drain, mailers))) == 120
    assert len(fake_relay.received) == len({header(data, "Message-ID") for _, data in fake_relay.received}) == 120
    assert states(river) == ["sent"] * 120
    await mailers.pop().close()
    other.close()


async def test_wakeup_starts_sending_and_stop_ends_it(river: River, serve: Serve, make: Make) -> None:
    meet(river)
    fake_relay, stop, wakeup = House(), asyncio.Event(), asyncio.Event()
    running = asyncio.create_task(make(await serve(fake_relay)).run(stop, wakeup))
    await asyncio.sleep(0.05)
    owe(river)
    wakeup.set()
    while not fake_relay.received:
        await asyncio.sleep(0.01)
    stop.set()
    await running
    assert states(river) == ["sent"]


async def test_operator_mail_goes_to_the_operator(river: River, serve: Serve, make: Make) -> None:
    river.owe(NewMail("event_parked", "event_parked:1", None, TEMPLATES.example("event_parked")))
    fake_relay = House()
    await make(await serve(fake_relay)).send_due()
    assert [recipient for recipient, _ in fake_relay.received] == [OPERATOR]


# Retries


async def test_deferred_mail_is_retried_and_finally_fails(river: River, serve: Serve, make: Make) -> None:
    meet(river)
    owe(river)
    fake_relay = House(RCPT=["450 4.2.1 greylisted"] * 99)
    mailer, waited = make(await serve(fake_relay)), list[timedelta]()
    row = river.rows(Mail)[0]
    while await mailer.send_due():
        row = only(river)
        if row.state == "failed":
            break
        assert (row.state, row.relay_reply, row.reason) == ("queued", "450 4.2.1 greylisted", "450 4.2.1 greylisted")
        assert row.due_at
        waited.append(row.due_at - river.now)
        assert await mailer.send_due() == 0, "the mail must not be due before its retry time"
        river.clock.move_to(row.due_at)
    assert tuple(waited) == DELAYS
    assert (row.state, row.due_at, row.attempts) == ("failed", None, len(DELAYS) + 1)
    assert row.reason == "450 4.2.1 greylisted"
    assert fake_relay.received == []


async def test_refused_mail_fails_with_reason(river: River, serve: Serve, make: Make) -> None:
    meet(river)
    owe(river)
    fake_relay = House(RCPT=[f"550 5.1.1 <{ADA}> unknown here"])
    with capture_logs() as logs:
        await make(await serve(fake_relay)).send_due()
    row = only(river)
    assert (row.state, row.due_at) == ("failed", None)
    assert row.reason == row.relay_reply
    assert row.relay_reply
    assert "550 5.1.1" in row.relay_reply
    assert ADA not in row.relay_reply
    assert ADA not in str(logs)
    river.clock.advance(timedelta(days=365))
    assert await make(await serve(fake_relay)).send_due() == 0


@pytest.mark.parametrize("script", [{"MAIL": ["drop"]}, {"RCPT": ["451 4.3.0 later"]}, {"DATA": ["drop"]}])
async def test_mail_is_rendered_again_if_text_was_not_transmitted(
    river: River, serve: Serve, make: Make, script: dict[str, list[str]]
) -> None:
    """The new rendering uses an address that was corrected after the first attempt."""
    meet(river, email="adda@example.com")
    owe(river)
    fake_relay = House(**{verb: list(says) for verb, says in script.items()})
    mailer = make(await serve(fake_relay))
    await mailer.send_due()
    row = only(river)
    assert (row.state, row.frozen, row.recipient) == ("queued", None, None)
    meet(river)
    river.clock.move_to(row.due_at or river.now)
    await mailer.send_due()
    assert [recipient for recipient, _ in fake_relay.received] == [ADA]
    assert states(river) == ["sent"]
    assert only(river).message_id == row.message_id


async def test_retry_after_text_sends_the_same_bytes(river: River, serve: Serve, make: Make) -> None:
    meet(river)
    owe(river)
    fake_relay = House(DOT=["451 4.3.0 queue file write error"] * 3)
    url = await serve(fake_relay)
    for _ in range(4):
        await make(url).send_due()  # another mailer each time, as after a restart
        meet(river, email="another@example.com", name="Another")
        river.clock.move_to(only(river).due_at or river.now)
    assert states(river) == ["sent"]
    assert len(fake_relay.received) == 4
    assert len({hashlib.sha256(data).hexdigest() for _, data in fake_relay.received}) == 1
    assert {recipient for recipient, _ in fake_relay.received} == {ADA}


async def test_unreachable_relay_keeps_mails_queued(river: River, make: Make) -> None:
    meet(river)
    owe(river, 3)
    assert await make(f"smtp://127.0.0.1:{free_port()}").send_due() == 3
    assert states(river) == ["queued"] * 3
    assert {row.due_at for row in river.rows(Mail)} == {river.now + DELAYS[0]}


# Mails in doubt


@pytest.mark.parametrize("how", ["drop", "close", "354 what"])
async def test_mail_in_doubt_is_never_sent_again_automatically(
    river: River, serve: Serve, make: Make, how: str
) -> None:
    meet(river)
    owe(river)
    fake_relay = House(DOT=[how])
    mailer = make(await serve(fake_relay))
    await mailer.send_due()
    row = only(river)
    assert row.state == "doubt"
    assert row.reason
    assert row.reason.startswith("the connection was lost after DATA")
    assert row.frozen
    river.clock.advance(timedelta(days=365))
    assert await mailer.send_due() == 0
    assert scheduler(river).free_claims() == 0
    assert len(fake_relay.received) == 1


async def test_doubt_resolved_as_not_sent_sends_the_same_bytes(river: River, serve: Serve, make: Make) -> None:
    meet(river)
    owe(river)
    fake_relay = House(DOT=["drop"])
    mailer = make(await serve(fake_relay))
    await mailer.send_due()
    with river.database.transaction() as session:
        assert outbox.resolve_doubt(session, only(river).id, river.now, sent=False)
    await mailer.send_due()
    (_, first), (_, second) = fake_relay.received
    assert first == second
    assert states(river) == ["sent"]


# Postfix


async def test_postfix_delivers_each_frozen_mail_once(river: River, make: Make, mailbox: Mailbox) -> None:
    meet(river)
    owe(river, 10)
    await make(mailbox.smtp_url).send_due()
    delivered = await asyncio.to_thread(mailbox.wait_for, 10)
    assert states(river) == ["sent"] * 10
    rows = {str(row.message_id): row for row in river.rows(Mail)}
    assert {header(data, "Message-ID") for data in delivered} == set(rows)
    assert len(delivered) == 10
    with river.database.transaction() as session:
        data_key = river.keyring(session).system_key("I-ADA")
        for data in delivered:
            row = rows[header(data, "Message-ID")]
            frozen = data_key.decrypt("mail.frozen", row.frozen or b"").replace(b"\r\n", b"\n")
            assert data.endswith(frozen), "Postfix adds headers above and changes nothing else"
            assert header(data, "Return-Path") == f"<b+{row.id}@bounces.example.com>"
            assert row.relay_reply
            assert re.fullmatch(r"250 2\.0\.0 Ok: queued as \w+", row.relay_reply)


async def test_postfix_refusal_and_deferral_are_recorded(river: River, make: Make, mailbox: Mailbox) -> None:
    for name in ("refused", "later"):
        meet(river, f"I-{name}", email=f"{name}@example.com")
        river.owe(NewMail("receipt", f"receipt:{name}", f"I-{name}", receipt().facts))
    await make(mailbox.smtp_url).send_due()
    mails = river.mails()
    assert (mails["receipt:refused"].state, mails["receipt:later"].state) == ("failed", "queued")
    assert mails["receipt:later"].due_at == river.now + DELAYS[0]
    assert "5.1.1" in str(mails["receipt:refused"].reason)
    assert "@example.com" not in str([row.relay_reply for row in mails.values()])


def test_no_mailer_thread_is_left() -> None:
    assert [thread.name for thread in threading.enumerate() if "mailer" in thread.name] == []
