"""The mailer sends each mail once: over real sockets to a misbehaving relay, and to a Postfix with a Maildir."""

import asyncio
import hashlib
import re
import threading
from dataclasses import replace
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
from tests.support.misbehaving_relay import MisbehavingRelay, Serve
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
from tests.support.pipeline_under_test import PipelineUnderTest
from tests.support.servers import Relay as Mailbox
from tests.support.subprocesses import free_port

# Sending


async def test_mail_is_sent_exactly_once(pipeline: PipelineUnderTest, serve: Serve, make: Make) -> None:
    meet(pipeline)
    owe(pipeline)
    fake_relay = MisbehavingRelay()
    mailer = make(await serve(fake_relay))
    assert await mailer.send_due() == 1
    assert await mailer.send_due() == 0
    [(recipient, data)] = fake_relay.received
    row = only(pipeline)
    assert recipient == ADA
    assert (row.state, row.sent_at, row.relay_reply, row.due_at) == (
        "sent",
        pipeline.now,
        "250 2.0.0 queued as 4Xyz",
        None,
    )
    assert header(data, "Message-ID") == row.message_id == f"<{row.id}@bounces.example.com>"
    assert header(data, "To") == f"Ada Whitfield <{ADA}>"
    assert header(data, "Auto-Submitted") == "auto-generated"
    assert f"MAIL FROM:<b+{row.id}@bounces.example.com>" in " ".join(fake_relay.said)
    pipeline.clock.advance(timedelta(days=365))
    assert await mailer.send_due() == 0


async def test_message_id_of_longest_domain_is_stored_and_sent(pipeline: PipelineUnderTest, serve: Serve) -> None:
    meet(pipeline)
    owe(pipeline)
    domain = f"{'d' * 63}.{'e' * 63}.{'f' * 63}.{'g' * 29}.com"  # the envelope sender has 254 characters
    fake_relay = MisbehavingRelay()
    relay = Relay(await serve(fake_relay), connections=1)
    sender = replace(SENDER, envelope_domain=domain)
    mailer = Mailer(pipeline.database, pipeline.master, pipeline.clock, TEMPLATES, relay, sender)
    assert await mailer.send_due() == 1
    await mailer.close()
    [(_, data)] = fake_relay.received
    row = only(pipeline)
    assert header(data, "Message-ID") == row.message_id == f"<{row.id}@{domain}>"
    assert f"MAIL FROM:<b+{row.id}@{domain}>" in " ".join(fake_relay.said)
    assert f"Message-ID: {row.message_id}\r\n".encode() in data


async def test_sent_mail_is_stored_encrypted(pipeline: PipelineUnderTest, serve: Serve, make: Make) -> None:
    meet(pipeline)
    owe(pipeline)
    fake_relay = MisbehavingRelay()
    await make(await serve(fake_relay)).send_due()
    row = only(pipeline)
    assert row.frozen
    assert row.recipient
    assert b"Ada" not in row.frozen
    assert b"ada" not in row.recipient
    with pipeline.database.transaction() as session:
        assert (
            pipeline.keyring(session).system_key("I-ADA").decrypt("mail.frozen", row.frozen)
            == fake_relay.received[0][1]
        )


async def test_every_customer_mail_kind_can_be_sent(sqlite_pipeline: PipelineUnderTest, serve: Serve) -> None:
    pipeline = sqlite_pipeline
    meet(pipeline)
    kinds = [kind for kind in TEMPLATES.kinds if kind != "event_parked" and not mail_kinds.is_optional(kind)]
    assert len(kinds) >= 7
    pipeline.owe(*[NewMail(kind, f"{kind}:1", "I-ADA", TEMPLATES.example(kind)) for kind in kinds])
    fake_relay = MisbehavingRelay()
    relay = Relay(await serve(fake_relay), connections=2)
    mailer = Mailer(pipeline.database, pipeline.master, pipeline.clock, TEMPLATES, relay, SENDER)
    await mailer.send_due()
    await mailer.close()
    assert {row.kind: row.state for row in pipeline.rows(Mail)} == dict.fromkeys(kinds, "sent")
    assert len({data for _, data in fake_relay.received}) == len(kinds)


async def test_many_mails_are_sent_in_several_claims(pipeline: PipelineUnderTest, serve: Serve, make: Make) -> None:
    meet(pipeline)
    owe(pipeline, CLAIM + 3)
    fake_relay = MisbehavingRelay()
    mailer = make(await serve(fake_relay))
    assert [await mailer.send_due() for _ in range(3)] == [CLAIM, 3, 0]
    assert len({header(data, "Message-ID") for _, data in fake_relay.received}) == CLAIM + 3


async def test_two_mailers_never_send_the_same_mail(pipeline: PipelineUnderTest, serve: Serve, make: Make) -> None:
    meet(pipeline)
    owe(pipeline, 120)
    fake_relay, other = MisbehavingRelay(), Database(pipeline.url)
    url = await serve(fake_relay)
    mailers = [make(url), make(url, other)]

    async def drain(mailer: Mailer) -> int:
        total = 0
        while sent := await mailer.send_due():
            total += sent
        return total

    assert sum(await asyncio.gather(*map(drain, mailers))) == 120
    assert len(fake_relay.received) == len({header(data, "Message-ID") for _, data in fake_relay.received}) == 120
    assert states(pipeline) == ["sent"] * 120
    await mailers.pop().close()
    other.close()


async def test_wakeup_starts_sending_and_stop_ends_it(pipeline: PipelineUnderTest, serve: Serve, make: Make) -> None:
    meet(pipeline)
    fake_relay, stop, wakeup = MisbehavingRelay(), asyncio.Event(), asyncio.Event()
    running = asyncio.create_task(make(await serve(fake_relay)).run(stop, wakeup))
    await asyncio.sleep(0.05)
    owe(pipeline)
    wakeup.set()
    while not fake_relay.received:
        await asyncio.sleep(0.01)
    stop.set()
    await running
    assert states(pipeline) == ["sent"]


async def test_operator_mail_goes_to_the_operator(pipeline: PipelineUnderTest, serve: Serve, make: Make) -> None:
    pipeline.owe(NewMail("event_parked", "event_parked:1", None, TEMPLATES.example("event_parked")))
    fake_relay = MisbehavingRelay()
    await make(await serve(fake_relay)).send_due()
    assert [recipient for recipient, _ in fake_relay.received] == [OPERATOR]


# Retries


async def test_deferred_mail_is_retried_and_finally_fails(
    pipeline: PipelineUnderTest, serve: Serve, make: Make
) -> None:
    meet(pipeline)
    owe(pipeline)
    fake_relay = MisbehavingRelay(RCPT=["450 4.2.1 greylisted"] * 99)
    mailer, waited = make(await serve(fake_relay)), list[timedelta]()
    row = pipeline.rows(Mail)[0]
    while await mailer.send_due():
        row = only(pipeline)
        if row.state == "failed":
            break
        assert (row.state, row.relay_reply, row.reason) == ("queued", "450 4.2.1 greylisted", "450 4.2.1 greylisted")
        assert row.due_at
        waited.append(row.due_at - pipeline.now)
        assert await mailer.send_due() == 0, "the mail must not be due before its retry time"
        pipeline.clock.move_to(row.due_at)
    assert tuple(waited) == DELAYS
    assert (row.state, row.due_at, row.attempts) == ("failed", None, len(DELAYS) + 1)
    assert row.reason == "450 4.2.1 greylisted"
    assert fake_relay.received == []


async def test_refused_mail_fails_with_reason(pipeline: PipelineUnderTest, serve: Serve, make: Make) -> None:
    meet(pipeline)
    owe(pipeline)
    fake_relay = MisbehavingRelay(RCPT=[f"550 5.1.1 <{ADA}> unknown here"])
    with capture_logs() as logs:
        await make(await serve(fake_relay)).send_due()
    row = only(pipeline)
    assert (row.state, row.due_at) == ("failed", None)
    assert row.reason == row.relay_reply
    assert row.relay_reply
    assert "550 5.1.1" in row.relay_reply
    assert ADA not in row.relay_reply
    assert ADA not in str(logs)
    pipeline.clock.advance(timedelta(days=365))
    assert await make(await serve(fake_relay)).send_due() == 0


@pytest.mark.parametrize("script", [{"MAIL": ["drop"]}, {"RCPT": ["451 4.3.0 later"]}, {"DATA": ["drop"]}])
async def test_mail_is_rendered_again_if_text_was_not_transmitted(
    pipeline: PipelineUnderTest, serve: Serve, make: Make, script: dict[str, list[str]]
) -> None:
    """The new rendering uses an address that was corrected after the first attempt."""
    meet(pipeline, email="adda@example.com")
    owe(pipeline)
    fake_relay = MisbehavingRelay(**{verb: list(says) for verb, says in script.items()})
    mailer = make(await serve(fake_relay))
    await mailer.send_due()
    row = only(pipeline)
    assert (row.state, row.frozen, row.recipient) == ("queued", None, None)
    meet(pipeline)
    pipeline.clock.move_to(row.due_at or pipeline.now)
    await mailer.send_due()
    assert [recipient for recipient, _ in fake_relay.received] == [ADA]
    assert states(pipeline) == ["sent"]
    assert only(pipeline).message_id == row.message_id


async def test_retry_after_text_sends_the_same_bytes(pipeline: PipelineUnderTest, serve: Serve, make: Make) -> None:
    meet(pipeline)
    owe(pipeline)
    fake_relay = MisbehavingRelay(DOT=["451 4.3.0 queue file write error"] * 3)
    url = await serve(fake_relay)
    for _ in range(4):
        await make(url).send_due()  # another mailer each time, as after a restart
        meet(pipeline, email="another@example.com", name="Another")
        pipeline.clock.move_to(only(pipeline).due_at or pipeline.now)
    assert states(pipeline) == ["sent"]
    assert len(fake_relay.received) == 4
    assert len({hashlib.sha256(data).hexdigest() for _, data in fake_relay.received}) == 1
    assert {recipient for recipient, _ in fake_relay.received} == {ADA}


async def test_unreachable_relay_keeps_mails_queued(pipeline: PipelineUnderTest, make: Make) -> None:
    meet(pipeline)
    owe(pipeline, 3)
    assert await make(f"smtp://127.0.0.1:{free_port()}").send_due() == 3
    assert states(pipeline) == ["queued"] * 3
    assert {row.due_at for row in pipeline.rows(Mail)} == {pipeline.now + DELAYS[0]}


# Mails in doubt


@pytest.mark.parametrize("how", ["drop", "close", "354 what"])
async def test_mail_in_doubt_is_never_sent_again_automatically(
    pipeline: PipelineUnderTest, serve: Serve, make: Make, how: str
) -> None:
    meet(pipeline)
    owe(pipeline)
    fake_relay = MisbehavingRelay(DOT=[how])
    mailer = make(await serve(fake_relay))
    await mailer.send_due()
    row = only(pipeline)
    assert row.state == "doubt"
    assert row.reason
    assert row.reason.startswith("the connection was lost after DATA")
    assert row.frozen
    pipeline.clock.advance(timedelta(days=365))
    assert await mailer.send_due() == 0
    assert scheduler(pipeline).free_claims() == 0
    assert len(fake_relay.received) == 1


async def test_doubt_resolved_as_not_sent_sends_the_same_bytes(
    pipeline: PipelineUnderTest, serve: Serve, make: Make
) -> None:
    meet(pipeline)
    owe(pipeline)
    fake_relay = MisbehavingRelay(DOT=["drop"])
    mailer = make(await serve(fake_relay))
    await mailer.send_due()
    with pipeline.database.transaction() as session:
        assert outbox.resolve_doubt(session, only(pipeline).id, pipeline.now, sent=False)
    await mailer.send_due()
    (_, first), (_, second) = fake_relay.received
    assert first == second
    assert states(pipeline) == ["sent"]


# Postfix


async def test_postfix_delivers_each_frozen_mail_once(
    pipeline: PipelineUnderTest, make: Make, mailbox: Mailbox
) -> None:
    meet(pipeline)
    owe(pipeline, 10)
    await make(mailbox.smtp_url).send_due()
    delivered = await asyncio.to_thread(mailbox.wait_for, 10)
    assert states(pipeline) == ["sent"] * 10
    rows = {str(row.message_id): row for row in pipeline.rows(Mail)}
    assert {header(data, "Message-ID") for data in delivered} == set(rows)
    assert len(delivered) == 10
    with pipeline.database.transaction() as session:
        data_key = pipeline.keyring(session).system_key("I-ADA")
        for data in delivered:
            row = rows[header(data, "Message-ID")]
            frozen = data_key.decrypt("mail.frozen", row.frozen or b"").replace(b"\r\n", b"\n")
            assert data.endswith(frozen), "Postfix adds headers above and changes nothing else"
            assert header(data, "Return-Path") == f"<b+{row.id}@bounces.example.com>"
            assert row.relay_reply
            assert re.fullmatch(r"250 2\.0\.0 Ok: queued as \w+", row.relay_reply)


async def test_postfix_refusal_and_deferral_are_recorded(
    pipeline: PipelineUnderTest, make: Make, mailbox: Mailbox
) -> None:
    for name in ("refused", "later"):
        meet(pipeline, f"I-{name}", email=f"{name}@example.com")
        pipeline.owe(NewMail("receipt", f"receipt:{name}", f"I-{name}", receipt().facts))
    await make(mailbox.smtp_url).send_due()
    mails = pipeline.mails()
    assert (mails["receipt:refused"].state, mails["receipt:later"].state) == ("failed", "queued")
    assert mails["receipt:later"].due_at == pipeline.now + DELAYS[0]
    assert "5.1.1" in str(mails["receipt:refused"].reason)
    assert "@example.com" not in str([row.relay_reply for row in mails.values()])


def test_no_mailer_thread_is_left() -> None:
    assert [thread.name for thread in threading.enumerate() if "mailer" in thread.name] == []
