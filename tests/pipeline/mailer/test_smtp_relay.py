"""The SMTP client over real sockets, with relays that misbehave."""

import asyncio
import re

import pytest

from pipeline.mailer import smtp_connection, smtp_relay
from pipeline.mailer.smtp_connection import DeliveryResult
from pipeline.mailer.smtp_relay import RelayUnreachableError
from tests.support.misbehaving_relay import ADA, MAIL, SENDER, MakeRelay, MisbehavingRelay, Serve, send
from tests.support.servers import Relay as PrivateRelay


async def test_mail_arrives_unchanged(serve: Serve, relay_to: MakeRelay) -> None:
    fake_relay = MisbehavingRelay()
    reply = await send(relay_to(await serve(fake_relay)))
    assert reply == DeliveryResult("sent", "250 2.0.0 queued as 4Xyz", True)
    assert fake_relay.received == [(ADA, MAIL)]
    assert fake_relay.said[:2] == ["CONNECT", "EHLO [127.0.0.1]"]


async def test_delivery_report_is_requested_with_envelope_id(serve: Serve, relay_to: MakeRelay) -> None:
    fake_relay = MisbehavingRelay()
    await send(relay_to(await serve(fake_relay)))
    assert f"MAIL FROM:<{SENDER}> SIZE={len(MAIL) + 5} RET=HDRS ENVID=token+2B1" in fake_relay.said
    assert f"RCPT TO:<{ADA}> NOTIFY=FAILURE,DELAY ORCPT=rfc822;{ADA}" in fake_relay.said


async def test_relay_without_extensions_gets_plain_commands(serve: Serve, relay_to: MakeRelay) -> None:
    fake_relay = MisbehavingRelay()
    fake_relay.offers = False
    assert (await send(relay_to(await serve(fake_relay)))).outcome == "sent"
    assert f"MAIL FROM:<{SENDER}>" in fake_relay.said
    assert f"RCPT TO:<{ADA}>" in fake_relay.said


@pytest.mark.parametrize(
    ("verb", "answer", "outcome"),
    [
        ("MAIL", "451 4.3.0 try later", "later"),
        ("MAIL", "550 5.7.1 not you", "failed"),
        ("MAIL", "421 4.3.2 going down", "later"),
        ("RCPT", "450 4.2.1 greylisted", "later"),
        ("RCPT", "550 5.1.1 unknown", "failed"),
        ("RCPT", "421 4.3.2 going down", "later"),
        ("DATA", "452 4.3.1 disk full", "later"),
        ("DATA", "554 5.5.1 no valid recipients", "failed"),
        ("DATA", "421 4.3.2 going down", "later"),
        ("DATA", "250 what", "later"),
        ("DOT", "451 4.3.0 queue file write error", "later"),
        ("DOT", "554 5.6.0 content refused", "failed"),
        ("DOT", "421 4.3.2 going down", "later"),
        ("DOT", "354 again", "doubt"),
    ],
)
@pytest.mark.parametrize("in_groups", [False, True])
async def test_reply_code_determines_outcome(
    serve: Serve, relay_to: MakeRelay, verb: str, answer: str, outcome: str, in_groups: bool
) -> None:
    fake_relay = MisbehavingRelay(**{verb: [answer]})
    fake_relay.in_groups = in_groups
    relay = relay_to(await serve(fake_relay))
    assert await send(relay) == DeliveryResult(outcome, answer, verb == "DOT")  # type: ignore[arg-type]
    assert (await send(relay)).outcome == "sent", "a leftover reply must not be assigned to the second mail"


@pytest.mark.parametrize("verb", ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA"])
@pytest.mark.parametrize("how", ["drop", "close", "hang", "banana", "421 4.3.2 too busy"])
@pytest.mark.parametrize("in_groups", [False, True])
async def test_failure_before_text_means_later(
    serve: Serve, relay_to: MakeRelay, verb: str, how: str, in_groups: bool
) -> None:
    fake_relay = MisbehavingRelay(**{verb: [how]})
    fake_relay.in_groups = in_groups
    reply = await send(relay_to(await serve(fake_relay), timeout=0.5 if how == "hang" else 5))
    assert (reply.outcome, reply.data_began) == ("later", False)
    assert fake_relay.connections == 1
    assert fake_relay.received == []


@pytest.mark.parametrize("how", ["drop", "close", "hang", "banana"])
async def test_missing_reply_after_text_means_doubt(serve: Serve, relay_to: MakeRelay, how: str) -> None:
    fake_relay = MisbehavingRelay(DOT=[how])
    relay = relay_to(await serve(fake_relay), final=0.2)
    reply = await send(relay)
    assert (reply.outcome, reply.data_began) == ("doubt", True)
    assert len(fake_relay.received) == 1  # the relay has the mail: sending it again would deliver it twice
    fake_relay.opened.set()
    relay._final_timeout = 5.0
    assert (await send(relay)).outcome == "sent"
    assert fake_relay.connections == 2  # so the late reply cannot be assigned to another mail


async def test_commands_are_pipelined(relay_to: MakeRelay) -> None:
    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 relay\r\n")
        await reader.readline()
        writer.write(b"250-relay\r\n250 PIPELINING\r\n")
        await reader.readuntil(b"DATA\r\n")  # reply only after all commands have arrived
        for piece in (b"25", b"0 2.1.0 Ok\r", b"\n250-2.1.5\r\n250 Ok\r\n354 go on\r\n"):
            writer.write(piece)
            await asyncio.sleep(0.01)
        await reader.readuntil(b"\r\n.\r\n")
        writer.write(b"250 2.0.0 queued\r\n")
        await reader.readline()
        writer.close()

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    reply = await send(relay_to(f"smtp://127.0.0.1:{server.sockets[0].getsockname()[1]}"))
    server.close()
    assert reply == DeliveryResult("sent", "250 2.0.0 queued", True)


async def test_refused_mail_text_is_never_sent(serve: Serve, relay_to: MakeRelay) -> None:
    fake_relay = MisbehavingRelay(RCPT=["550 5.1.1 unknown"], DATA=["354 go on all the same"])
    fake_relay.in_groups = True
    relay = relay_to(await serve(fake_relay))
    assert await send(relay) == DeliveryResult("failed", "550 5.1.1 unknown", False)
    assert (await send(relay)).outcome == "sent"
    assert (fake_relay.connections, len(fake_relay.received)) == (2, 1)


async def test_unsolicited_reply_is_not_assigned_to_next_mail(serve: Serve, relay_to: MakeRelay) -> None:
    fake_relay = MisbehavingRelay()
    relay = relay_to(await serve(fake_relay))
    await send(relay)
    await fake_relay.wires[0].push("250 2.0.0 queued, unsolicited")
    await asyncio.sleep(0.05)
    fake_relay.script["DOT"] = ["554 5.6.0 content refused"]
    assert (await send(relay)).outcome == "failed"
    assert fake_relay.connections == 2


async def test_final_reply_has_longer_timeout(serve: Serve, relay_to: MakeRelay) -> None:
    fake_relay = MisbehavingRelay(DOT=["hang"])
    sending = asyncio.create_task(send(relay_to(await serve(fake_relay), timeout=1)))
    await fake_relay.hanging.wait()
    await asyncio.sleep(1.2)
    assert not sending.done()
    fake_relay.opened.set()
    assert (await sending).outcome == "sent"


async def test_unreachable_relay_means_later(relay_to: MakeRelay) -> None:
    server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    reply = await send(relay_to(f"smtp://127.0.0.1:{port}"))
    assert (reply.outcome, reply.data_began) == ("later", False)
    assert reply.text.startswith("cannot connect to the relay: ")


async def test_many_mails_share_few_connections(serve: Serve, relay_to: MakeRelay) -> None:
    fake_relay = MisbehavingRelay()
    relay = relay_to(await serve(fake_relay), connections=3)
    recipients = [f"person{number}@example.com" for number in range(40)]
    replies = await asyncio.gather(*(send(relay, recipient) for recipient in recipients))
    assert {reply.outcome for reply in replies} == {"sent"}
    assert sorted(recipient for recipient, _ in fake_relay.received) == sorted(recipients)
    assert 1 < fake_relay.connections <= 3
    await send(relay)
    assert fake_relay.connections <= 3


async def test_connection_is_replaced_after_maximum_uses(
    serve: Serve, relay_to: MakeRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smtp_relay, "MOST_USES", 2)
    fake_relay = MisbehavingRelay()
    relay = relay_to(await serve(fake_relay))
    assert [(await send(relay)).outcome for _ in range(5)] == ["sent"] * 5
    assert fake_relay.connections == 3
    assert fake_relay.said.count("QUIT") == 2


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA"])
@pytest.mark.parametrize("how", ["drop", "close", "421 4.4.2 idle too long"])
async def test_dead_idle_connection_is_replaced(serve: Serve, relay_to: MakeRelay, verb: str, how: str) -> None:
    fake_relay = MisbehavingRelay()
    relay = relay_to(await serve(fake_relay))
    assert (await send(relay)).outcome == "sent"
    fake_relay.script[verb] = [how]
    assert (await send(relay)).outcome == "sent"
    assert fake_relay.connections == 2
    assert len(fake_relay.received) == 2


async def test_dead_connection_is_replaced_only_once(serve: Serve, relay_to: MakeRelay) -> None:
    fake_relay = MisbehavingRelay()
    relay = relay_to(await serve(fake_relay))
    await send(relay)
    fake_relay.script["MAIL"] = ["drop", "drop", "drop"]
    assert (await send(relay)).outcome == "later"
    assert fake_relay.connections == 2


async def test_idle_connection_lost_after_text_means_doubt(serve: Serve, relay_to: MakeRelay) -> None:
    fake_relay = MisbehavingRelay()
    relay = relay_to(await serve(fake_relay))
    await send(relay)
    fake_relay.script["DOT"] = ["drop"]
    assert (await send(relay)).outcome == "doubt"
    assert len(fake_relay.received) == 2


async def test_connection_closed_by_relay_is_not_used(serve: Serve, relay_to: MakeRelay) -> None:
    fake_relay = MisbehavingRelay()
    relay = relay_to(await serve(fake_relay))
    await send(relay)
    fake_relay.wires[0].transport.close()
    while relay._idle[0].alive:
        await asyncio.sleep(0.01)
    assert (await send(relay)).outcome == "sent"
    assert fake_relay.connections == 2


@pytest.mark.parametrize(("answer", "connections"), [([], 1), (["drop"], 2), (["421 4.4.2 bye"], 2), (["hang"], 2)])
async def test_long_idle_connection_is_tested_first(
    serve: Serve, relay_to: MakeRelay, monkeypatch: pytest.MonkeyPatch, answer: list[str], connections: int
) -> None:
    monkeypatch.setattr(smtp_connection, "IDLE_SECONDS", -1.0)
    fake_relay = MisbehavingRelay(RSET=answer)
    relay = relay_to(await serve(fake_relay), timeout=1 if answer == ["hang"] else 5)
    assert (await send(relay)).outcome == "sent"
    assert "RSET" not in fake_relay.said
    assert (await send(relay)).outcome == "sent"
    assert fake_relay.said.count("RSET") == 1
    assert fake_relay.connections == connections


async def test_connection_is_reused_after_refusal(serve: Serve, relay_to: MakeRelay) -> None:
    fake_relay = MisbehavingRelay(RCPT=["550 5.1.1 unknown", "450 4.2.1 later"], DOT=["554 5.6.0 no"])
    relay = relay_to(await serve(fake_relay))
    assert [(await send(relay)).outcome for _ in range(4)] == ["failed", "later", "failed", "sent"]
    assert fake_relay.connections == 1


async def test_cancelled_mail_closes_connection_and_frees_slot(serve: Serve, relay_to: MakeRelay) -> None:
    fake_relay = MisbehavingRelay(DOT=["hang"])
    relay = relay_to(await serve(fake_relay))
    sending = asyncio.create_task(send(relay))
    await fake_relay.hanging.wait()
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert (await send(relay, "eve@example.com")).outcome == "sent"
    assert fake_relay.connections == 2
    assert fake_relay.wires[0].transport is None


async def test_reply_is_stored_without_addresses(serve: Serve, relay_to: MakeRelay) -> None:
    answer = "550 5.1.1 <Ada@example.com>: no mailbox ada here, ask postmaster@example.com\x07"
    reply = await send(relay_to(await serve(MisbehavingRelay(RCPT=[answer]))))
    assert reply.text == "550 5.1.1 <address>: no mailbox address here, ask address"


async def test_long_reply_is_truncated(serve: Serve, relay_to: MakeRelay) -> None:
    reply = await send(relay_to(await serve(MisbehavingRelay(RCPT=["550 " + "x" * 5000]))))
    assert reply.outcome == "failed"
    assert len(reply.text) <= 400


async def test_international_local_part_requires_smtputf8(serve: Serve, relay_to: MakeRelay) -> None:
    plain, able = MisbehavingRelay(), MisbehavingRelay()
    refused = await send(relay_to(await serve(plain)), "jörg@bücher.example")
    assert refused.outcome == "failed"
    assert "SMTPUTF8" in refused.text
    assert plain.received == []
    accepted = await send(relay_to(await serve(able, enable_SMTPUTF8=True)), "jörg@bücher.example")
    assert accepted.outcome == "sent"
    assert able.received[0][0] == "jörg@xn--bcher-kva.example"
    assert any(line.endswith("SMTPUTF8 BODY=8BITMIME RET=HDRS ENVID=token+2B1") for line in able.said)


async def test_international_domain_requires_no_extension(serve: Serve, relay_to: MakeRelay) -> None:
    fake_relay = MisbehavingRelay()
    assert (await send(relay_to(await serve(fake_relay)), "ada@bücher.example")).outcome == "sent"
    assert fake_relay.received[0][0] == "ada@xn--bcher-kva.example"


@pytest.mark.parametrize(
    ("sender", "recipient", "data"),
    [
        (SENDER, "ada", MAIL),
        (SENDER, "ada@example.com> NOTIFY=NEVER", MAIL),
        (SENDER, "ada@example.com\r\nDATA", MAIL),
        ("no at sign", ADA, MAIL),
        ("jörg@example.com", ADA, MAIL),
        (SENDER, ADA, b"Subject: x\r\n\r\nend\n.\nMAIL FROM:<evil@example.org>\r\n"),
        (SENDER, ADA, b"Subject: x\r\n\r\nend\r.\r\n"),
    ],
)
async def test_invalid_mail_fails_without_connection(
    serve: Serve, relay_to: MakeRelay, sender: str, recipient: str, data: bytes
) -> None:
    fake_relay = MisbehavingRelay()
    reply = await relay_to(await serve(fake_relay)).send(sender, recipient, data, envelope_id="x")
    assert (reply.outcome, reply.data_began) == ("failed", False)
    assert "ada" not in reply.text
    assert fake_relay.connections == 0


async def test_empty_envelope_sender_is_allowed(serve: Serve, relay_to: MakeRelay) -> None:
    fake_relay = MisbehavingRelay()
    reply = await relay_to(await serve(fake_relay)).send("", ADA, MAIL, envelope_id="x")
    assert reply.outcome == "sent"
    assert any(line.startswith("MAIL FROM:<> ") for line in fake_relay.said)


async def test_closed_relay_quits_and_sends_no_more(serve: Serve, relay_to: MakeRelay) -> None:
    fake_relay = MisbehavingRelay()
    relay = relay_to(await serve(fake_relay))
    await send(relay)
    await relay.close()
    assert fake_relay.said[-1] == "QUIT"
    assert (await send(relay)).outcome == "later"
    assert fake_relay.connections == 1


async def test_close_does_not_wait_for_hanging_relay(
    serve: Serve, relay_to: MakeRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smtp_connection, "QUIT_SECONDS", 0.1)
    fake_relay = MisbehavingRelay(QUIT=["hang"])
    relay = relay_to(await serve(fake_relay))
    await send(relay)
    await asyncio.wait_for(relay.close(), timeout=5)


async def test_postfix_accepts_refuses_and_delivers(mailbox: PrivateRelay, relay_to: MakeRelay) -> None:
    relay = relay_to(mailbox.smtp_url)
    recipients = [ADA, "refused@example.com", "later@example.com", "jörg@bücher.example", "eve@bücher.example"]
    replies = [await send(relay, recipient) for recipient in recipients]
    assert [reply.outcome for reply in replies] == ["sent", "failed", "later", "sent", "sent"]
    assert re.match(r"250 2\.0\.0 Ok: queued as \w+", replies[0].text)
    assert "refused@" not in replies[1].text
    delivered = await asyncio.to_thread(mailbox.wait_for, 3)
    assert all(mail.endswith(MAIL.partition(b"\r\n\r\n")[2].replace(b"\r\n", b"\n")) for mail in delivered)
    assert "Postfix" in await relay.probe()


# Probe


async def test_probe_returns_greeting_and_extensions(serve: Serve, relay_to: MakeRelay) -> None:
    fake_relay = MisbehavingRelay()
    result = await relay_to(await serve(fake_relay)).probe()
    assert result.startswith("relay.example.com ESMTP (without TLS; offers 8BITMIME, DSN, HELP, SIZE")
    assert fake_relay.said[-1] == "QUIT"


@pytest.mark.parametrize(("verb", "how"), [("CONNECT", "drop"), ("CONNECT", "421 4.3.2 too busy"), ("EHLO", "drop")])
async def test_failed_probe_names_address_and_reason(serve: Serve, relay_to: MakeRelay, verb: str, how: str) -> None:
    with pytest.raises(RelayUnreachableError, match=r"127\.0\.0\.1:\d+: .+"):
        await relay_to(await serve(MisbehavingRelay(**{verb: [how]}))).probe()
