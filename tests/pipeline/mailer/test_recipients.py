"""Recipient and opt-out of a mail, evaluated when it is sent, over a real socket."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from email import message_from_bytes, policy

import pytest

from pipeline.crypto.keyring import Keyring
from pipeline.customers import accounts
from pipeline.db import lww_map
from pipeline.db.models import Customer, Mail, Subscription
from pipeline.mailer.mailer import Mailer, Sender
from pipeline.mailer.smtp_relay import Relay
from pipeline.outbox import mail_kinds, tokens
from pipeline.outbox import store as outbox
from pipeline.outbox.store import NewMail
from tests.support.misbehaving_relay import MisbehavingRelay, Wire
from tests.support.outbox_fixtures import OPERATOR, SENDER, TEMPLATES, only, receipt, scheduler
from tests.support.pipeline_under_test import PipelineUnderTest

PAYPALS, CUSTOMERS = "paypal@example.com", "customer@example.com"
WITH_PAGES = replace(SENDER, pages="https://billing.example.com")
NEWS = {name: value for name, value in TEMPLATES.example("product_news").items() if name != "unsubscribe"}

Sent = Sequence[tuple[str, bytes]]
Send = Callable[..., Awaitable[Sent]]


@pytest.fixture
async def send(pipeline: PipelineUnderTest) -> AsyncIterator[Send]:
    """Returns a function that sends the due mails to a scripted relay and returns what the relay received."""
    servers = []

    async def sending(fake_relay: MisbehavingRelay | None = None, sender: Sender = WITH_PAGES) -> Sent:
        fake_relay, loop = fake_relay or MisbehavingRelay(), asyncio.get_running_loop()
        server = await loop.create_server(lambda: Wire(fake_relay, loop=loop), "127.0.0.1", 0)
        servers.append(server)
        relay = Relay(f"smtp://127.0.0.1:{server.sockets[0].getsockname()[1]}", connections=1)
        mailer = Mailer(pipeline.database, pipeline.master, pipeline.clock, TEMPLATES, relay, sender)
        await mailer.send_due()
        await mailer.close()
        return fake_relay.received

    yield sending
    for server in servers:
        server.close()


def add_customer(
    pipeline: PipelineUnderTest, *, email: str | None = PAYPALS, own_email: str | None = None, **choices: bool
) -> str:
    """Add a customer with one subscription: the e-mail address that PayPal reports, and the customer's own address."""
    with pipeline.database.transaction() as session:
        keyring = pipeline.keyring(session)
        row = Customer(id="c1", created_at=pipeline.now, **choices)
        session.add(row)
        session.flush()
        known = lww_map.merge({}, pipeline.now, {"email": email, "given_name": "Ada", "surname": "Example"})
        person = keyring.system_key("I-ADA").encrypt_json("subscription.personal_data", known)
        session.add(
            Subscription(
                id="I-ADA",
                known={},
                created_at=pipeline.now,
                customer_id="c1",
                personal_data=person,
                is_established=True,
            )
        )
    if own_email:
        change(pipeline, "email", own_email)
    return "c1"


def change(pipeline: PipelineUnderTest, field: accounts.Field, value: str) -> None:
    """Correct a field of the customer's data, and withhold the notification mails about it."""
    with pipeline.database.transaction() as session:
        accounts.correct_field(
            session, Keyring(pipeline.master, session, pipeline.now), "c1", field, value, pipeline.now
        )
    for row in pipeline.rows(Mail):
        if row.kind == "email_changed":
            pipeline.set(row, state="withheld", due_at=None)


def queue_news(pipeline: PipelineUnderTest) -> None:
    pipeline.owe(NewMail("product_news", "product_news:1", None, NEWS, customer_id="c1"))


def mail_of_kind(pipeline: PipelineUnderTest, kind: str) -> Mail:
    [row] = [row for row in pipeline.rows(Mail) if row.kind == kind]
    return row


def header(data: bytes, name: str) -> str | None:
    value = message_from_bytes(data, policy=policy.default)[name]
    return None if value is None else str(value)


# Recipient


async def test_customer_data_takes_precedence_over_paypal_data(pipeline: PipelineUnderTest, send: Send) -> None:
    add_customer(pipeline, own_email=CUSTOMERS)
    change(pipeline, "name", "Ada Lovelace")
    pipeline.owe(receipt())
    [(recipient, data)] = await send()
    assert recipient == CUSTOMERS
    assert header(data, "To") == f"Ada Lovelace <{CUSTOMERS}>"
    assert "Hello Ada Lovelace," in data.decode()


async def test_paypal_address_is_used_without_customer_address(pipeline: PipelineUnderTest, send: Send) -> None:
    add_customer(pipeline)
    change(pipeline, "company", "Example Works")
    pipeline.owe(receipt())
    [(recipient, data)] = await send()
    assert (recipient, header(data, "To")) == (PAYPALS, f"Ada Example <{PAYPALS}>")


@pytest.mark.parametrize("own_email", [None, CUSTOMERS])
async def test_customer_without_subscription_receives_mail(
    pipeline: PipelineUnderTest, send: Send, own_email: str | None
) -> None:
    add_customer(pipeline, own_email=own_email)
    pipeline.owe(NewMail("receipt", "receipt:1", None, TEMPLATES.example("receipt"), customer_id="c1"))
    [(recipient, _)] = await send()
    assert recipient == (own_email or PAYPALS)


async def test_address_of_the_mail_takes_precedence(pipeline: PipelineUnderTest, send: Send) -> None:
    add_customer(pipeline, own_email=CUSTOMERS)
    facts = TEMPLATES.example("receipt")
    pipeline.owe(
        NewMail("receipt", "one", None, facts, customer_id="c1", to="old@example.com"),
        NewMail("receipt", "two", None, facts, to="stranger@example.com", label="message:1"),
        NewMail("event_parked", "three", None, TEMPLATES.example("event_parked")),
    )
    found = {recipient: header(data, "To") for recipient, data in await send()}
    assert found == {
        "old@example.com": "old@example.com",
        "stranger@example.com": "stranger@example.com",
        OPERATOR: OPERATOR,
    }
    assert {row.key_id for row in pipeline.rows(Mail)} >= {"c1", "message:1", outbox.OPERATOR}
    assert b"stranger" not in b"".join(row.facts or b"" for row in pipeline.rows(Mail))


async def test_corrected_address_applies_to_next_attempt(pipeline: PipelineUnderTest, send: Send) -> None:
    add_customer(pipeline)
    pipeline.owe(receipt())
    await send(MisbehavingRelay(DOT=["451 4.3.0 try later"]))
    assert only(pipeline).state == "queued"
    change(pipeline, "email", CUSTOMERS)
    pipeline.clock.advance(timedelta(hours=1))
    [(recipient, data)] = await send()
    assert recipient == CUSTOMERS
    assert PAYPALS not in data.decode()


async def test_address_corrected_during_attempt_applies_to_next_attempt(
    pipeline: PipelineUnderTest, send: Send
) -> None:
    add_customer(pipeline)
    pipeline.owe(receipt())
    await send(MisbehavingRelay(DOT=["451 4.3.0 try later"]))
    tried = only(pipeline)
    change(pipeline, "email", CUSTOMERS)
    pipeline.set(
        tried, frozen=tried.frozen, recipient=tried.recipient
    )  # as if the correction had not cleared the frozen mail
    pipeline.clock.advance(timedelta(hours=1))
    [(recipient, _)] = await send()
    assert recipient == CUSTOMERS


async def test_customer_mail_waits_for_an_address(pipeline: PipelineUnderTest, send: Send) -> None:
    add_customer(pipeline, email=None)
    pipeline.owe(NewMail("receipt", "receipt:1", None, TEMPLATES.example("receipt"), customer_id="c1"))
    assert await send() == []
    assert (only(pipeline).state, only(pipeline).due_at) == ("queued", None)
    change(pipeline, "email", CUSTOMERS)
    [(recipient, _)] = await send()
    assert recipient == CUSTOMERS


# Opt-out


async def test_product_news_contains_unsubscribe_link(pipeline: PipelineUnderTest, send: Send) -> None:
    add_customer(pipeline, wants_marketing=True)
    queue_news(pipeline)
    [(_, data)] = await send()
    link = str(header(data, "List-Unsubscribe")).strip("<>")
    assert header(data, "List-Unsubscribe-Post") == "List-Unsubscribe=One-Click"
    assert link.startswith("https://billing.example.com/unsubscribe/")
    assert f"\r\nList-Unsubscribe: <{link}>\r\n".encode() in data, "the header must not be folded or encoded"
    assert link in str(message_from_bytes(data, policy=policy.default).get_body(("plain",)).get_content())  # type: ignore[union-attr]
    with pipeline.database.transaction() as session:
        token = link.rpartition("/")[2]
        assert tokens.read_unsubscribe_token(pipeline.keyring(session), token) == only(pipeline).id


async def test_product_news_is_withheld_without_opt_in(pipeline: PipelineUnderTest, send: Send) -> None:
    add_customer(pipeline)
    queue_news(pipeline)
    assert await send() == []
    assert (only(pipeline).state, only(pipeline).reason) == (
        "withheld",
        "the customer has not opted in to product news",
    )


async def test_opt_out_withholds_frozen_mail(pipeline: PipelineUnderTest, send: Send) -> None:
    add_customer(pipeline, wants_marketing=True)
    queue_news(pipeline)
    await send(MisbehavingRelay(DOT=["451 4.3.0 try later"]))
    assert only(pipeline).frozen is not None
    with pipeline.database.transaction() as session:
        accounts.record_consent(
            session, "c1", "marketing", given=False, source="one-click", text_version="1", now=pipeline.now
        )
    pipeline.clock.advance(timedelta(hours=1))
    assert await send() == []
    assert only(pipeline).state == "withheld"


async def test_service_mail_is_sent_until_opt_out(
    pipeline: PipelineUnderTest, send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(mail_kinds.MAILS, "renewal_reminder", mail_kinds.MailKind("service", "notices"))
    add_customer(pipeline)
    facts = TEMPLATES.example("renewal_reminder")
    pipeline.owe(NewMail("renewal_reminder", "one", "I-ADA", facts))
    [(_, data)] = await send()
    assert header(data, "List-Unsubscribe") is not None
    with pipeline.database.transaction() as session:
        accounts.record_consent(
            session, "c1", "service", given=False, source="one-click", text_version="1", now=pipeline.now
        )
    pipeline.owe(NewMail("renewal_reminder", "two", "I-ADA", facts))
    assert await send() == []
    assert pipeline.mails()["two"].reason == "the customer has opted out of service mail"


async def test_transactional_mail_is_sent_despite_opt_out(pipeline: PipelineUnderTest, send: Send) -> None:
    add_customer(pipeline, wants_marketing=False, wants_service_mail=False)
    pipeline.owe(receipt())
    [(_, data)] = await send()
    assert (header(data, "List-Unsubscribe"), header(data, "List-Unsubscribe-Post")) == (None, None)


@pytest.mark.parametrize("pages", ["", "http://127.0.0.1:8000"])
async def test_optional_mail_requires_unsubscribe_page(pipeline: PipelineUnderTest, send: Send, pages: str) -> None:
    add_customer(pipeline, wants_marketing=True)
    queue_news(pipeline)
    assert await send(sender=replace(SENDER, pages=pages)) == []
    assert "SMT_PUBLIC_URL" in str(only(pipeline).reason)


async def test_reminder_uses_address_that_customer_entered(pipeline: PipelineUnderTest) -> None:
    add_customer(pipeline, email=None, own_email=CUSTOMERS)
    [row] = pipeline.rows(Subscription)
    renews = pipeline.now + timedelta(days=3)
    pipeline.set(row, status="ACTIVE", next_billing_at=renews, remind_at=pipeline.now)
    scheduler(pipeline).remind()
    assert mail_of_kind(pipeline, "renewal_reminder").due_at == pipeline.now
