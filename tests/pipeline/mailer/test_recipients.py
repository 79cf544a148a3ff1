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
from tests.support.misbehaving_relay import House, Wire
from tests.support.outbox_fixtures import OPERATOR, SENDER, TEMPLATES, only, receipt, scheduler
from tests.support.pipeline_under_test import River

PAYPALS, CUSTOMERS = "paypal@example.com", "customer@example.com"
WITH_PAGES = replace(SENDER, pages="https://billing.example.com")
NEWS = {name: value for name, value in TEMPLATES.example("product_news").items() if name != "unsubscribe"}

Sent = Sequence[tuple[str, bytes]]
Send = Callable[..., Awaitable[Sent]]


@pytest.fixture
async def send(river: River) -> AsyncIterator[Send]:
    """Returns a function that sends the due mails to a scripted relay and returns what the relay received."""
    servers = []

    async def sending(fake_relay: House | None = None, sender: Sender = WITH_PAGES) -> Sent:
        fake_relay, loop = fake_relay or House(), asyncio.get_running_loop()
        server = await loop.create_server(lambda: Wire(fake_relay, loop=loop), "127.0.0.1", 0)
        servers.append(server)
        relay = Relay(f"smtp://127.0.0.1:{server.sockets[0].getsockname()[1]}", connections=1)
        mailer = Mailer(river.database, river.master, river.clock, TEMPLATES, relay, sender)
        await mailer.send_due()
        await mailer.close()
        return fake_relay.received

    yield sending
    for server in servers:
        server.close()


def add_customer(river: River, *, email: str | None = PAYPALS, own_email: str | None = None, **choices: bool) -> str:
    """Add a customer with one subscription: the e-mail address that PayPal reports, and the customer's own address."""
    with river.database.transaction() as session:
        keyring = river.keyring(session)
        row = Customer(id="c1", created_at=river.now, **choices)
        session.add(row)
        session.flush()
        known = lww_map.merge({}, river.now, {"email": email, "given_name": "Ada", "surname": "Example"})
        person = keyring.system_key("I-ADA").encrypt_json("subscription.personal_data", known)
        session.add(Subscription(id="I-ADA", known={}, created_at=river.now, customer_id="c1", personal_data=person))
    if own_email:
        change(river, "email", own_email)
    return "c1"


def change(river: River, field: accounts.Field, value: str) -> None:
    """Correct a field of the customer's data, and withhold the notification mails about it."""
    with river.database.transaction() as session:
        accounts.correct_field(session, Keyring(river.master, session, river.now), "c1", field, value, river.now)
    for row in river.rows(Mail):
        if row.kind == "email_changed":
            river.set(row, state="withheld", due_at=None)


def queue_news(river: River) -> None:
    river.owe(NewMail("product_news", "product_news:1", None, NEWS, customer_id="c1"))


def mail_of_kind(river: River, kind: str) -> Mail:
    [row] = [row for row in river.rows(Mail) if row.kind == kind]
    return row


def header(data: bytes, name: str) -> str | None:
    value = message_from_bytes(data, policy=policy.default)[name]
    return None if value is None else str(value)


# Recipient


async def test_customer_data_takes_precedence_over_paypal_data(river: River, send: Send) -> None:
    add_customer(river, own_email=CUSTOMERS)
    change(river, "name", "Ada Lovelace")
    river.owe(receipt())
    [(recipient, data)] = await send()
    assert recipient == CUSTOMERS
    assert header(data, "To") == f"Ada Lovelace <{CUSTOMERS}>"
    assert "Hello Ada Lovelace," in data.decode()


async def test_paypal_address_is_used_without_customer_address(river: River, send: Send) -> None:
    add_customer(river)
    change(river, "company", "Example Works")
    river.owe(receipt())
    [(recipient, data)] = await send()
    assert (recipient, header(data, "To")) == (PAYPALS, f"Ada Example <{PAYPALS}>")


@pytest.mark.parametrize("own_email", [None, CUSTOMERS])
async def test_customer_without_subscription_receives_mail(river: River, send: Send, own_email: str | None) -> None:
    add_customer(river, own_email=own_email)
    river.owe(NewMail("receipt", "receipt:1", None, TEMPLATES.example("receipt"), customer_id="c1"))
    [(recipient, _)] = await send()
    assert recipient == (own_email or PAYPALS)


async def test_address_of_the_mail_takes_precedence(river: River, send: Send) -> None:
    add_customer(river, own_email=CUSTOMERS)
    facts = TEMPLATES.example("receipt")
    river.owe(
        NewMail("receipt", "one", None, facts, customer_id="c1", to="old@example.com"),
        NewMail("receipt", "two", None, facts, to="stranger@example.com", label="message:1"),
        NewMail("event_parked", "three", None, TEMPLATES.example("event_parked")),
    )
    found = {recipient: header(data, "To") for recipient, data in await send()}
    assert found == {
        "old@example.com": "Ada Example <old@example.com>",
        "stranger@example.com": "stranger@example.com",
        OPERATOR: OPERATOR,
    }
    assert {row.key_id for row in river.rows(Mail)} >= {"c1", "message:1", outbox.OPERATOR}
    assert b"stranger" not in b"".join(row.facts or b"" for row in river.rows(Mail))


async def test_corrected_address_applies_to_next_attempt(river: River, send: Send) -> None:
    add_customer(river)
    river.owe(receipt())
    await send(House(DOT=["451 4.3.0 try later"]))
    assert only(river).state == "queued"
    change(river, "email", CUSTOMERS)
    river.clock.advance(timedelta(hours=1))
    [(recipient, data)] = await send()
    assert recipient == CUSTOMERS
    assert PAYPALS not in data.decode()


async def test_address_corrected_during_attempt_applies_to_next_attempt(river: River, send: Send) -> None:
    add_customer(river)
    river.owe(receipt())
    await send(House(DOT=["451 4.3.0 try later"]))
    tried = only(river)
    change(river, "email", CUSTOMERS)
    river.set(
        tried, frozen=tried.frozen, recipient=tried.recipient
    )  # as if the correction had not cleared the frozen mail
    river.clock.advance(timedelta(hours=1))
    [(recipient, _)] = await send()
    assert recipient == CUSTOMERS


async def test_customer_mail_waits_for_an_address(river: River, send: Send) -> None:
    add_customer(river, email=None)
    river.owe(NewMail("receipt", "receipt:1", None, TEMPLATES.example("receipt"), customer_id="c1"))
    assert await send() == []
    assert (only(river).state, only(river).due_at) == ("queued", None)
    change(river, "email", CUSTOMERS)
    [(recipient, _)] = await send()
    assert recipient == CUSTOMERS


# Opt-out


async def test_product_news_contains_unsubscribe_link(river: River, send: Send) -> None:
    add_customer(river, wants_marketing=True)
    queue_news(river)
    [(_, data)] = await send()
    link = str(header(data, "List-Unsubscribe")).strip("<>")
    assert header(data, "List-Unsubscribe-Post") == "List-Unsubscribe=One-Click"
    assert link.startswith("https://billing.example.com/unsubscribe/")
    assert f"\r\nList-Unsubscribe: <{link}>\r\n".encode() in data, "the header must not be folded or encoded"
    assert link in str(message_from_bytes(data, policy=policy.default).get_body(("plain",)).get_content())  # type: ignore[union-attr]
    with river.database.transaction() as session:
        token = link.rpartition("/")[2]
        assert tokens.read_unsubscribe_token(river.keyring(session), token) == only(river).id


async def test_product_news_is_withheld_without_opt_in(river: River, send: Send) -> None:
    add_customer(river)
    queue_news(river)
    assert await send() == []
    assert (only(river).state, only(river).reason) == ("withheld", "the customer has not opted in to product news")


async def test_opt_out_withholds_frozen_mail(river: River, send: Send) -> None:
    add_customer(river, wants_marketing=True)
    queue_news(river)
    await send(House(DOT=["451 4.3.0 try later"]))
    assert only(river).frozen is not None
    with river.database.transaction() as session:
        accounts.record_consent(
            session, "c1", "marketing", given=False, source="one-click", text_version="1", now=river.now
        )
    river.clock.advance(timedelta(hours=1))
    assert await send() == []
    assert only(river).state == "withheld"


async def test_service_mail_is_sent_until_opt_out(river: River, send: Send, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(mail_kinds.MAILS, "renewal_reminder", mail_kinds.MailKind("service", "notices"))
    add_customer(river)
    facts = TEMPLATES.example("renewal_reminder")
    river.owe(NewMail("renewal_reminder", "one", "I-ADA", facts))
    [(_, data)] = await send()
    assert header(data, "List-Unsubscribe") is not None
    with river.database.transaction() as session:
        accounts.record_consent(
            session, "c1", "service", given=False, source="one-click", text_version="1", now=river.now
        )
    river.owe(NewMail("renewal_reminder", "two", "I-ADA", facts))
    assert await send() == []
    assert river.mails()["two"].reason == "the customer has opted out of service mail"


async def test_transactional_mail_is_sent_despite_opt_out(river: River, send: Send) -> None:
    add_customer(river, wants_marketing=False, wants_service_mail=False)
    river.owe(receipt())
    [(_, data)] = await send()
    assert (header(data, "List-Unsubscribe"), header(data, "List-Unsubscribe-Post")) == (None, None)


@pytest.mark.parametrize("pages", ["", "http://127.0.0.1:8000"])
async def test_optional_mail_requires_unsubscribe_page(river: River, send: Send, pages: str) -> None:
    add_customer(river, wants_marketing=True)
    queue_news(river)
    assert await send(sender=replace(SENDER, pages=pages)) == []
    assert "SMT_PUBLIC_URL" in str(only(river).reason)


async def test_reminder_uses_address_that_customer_entered(river: River) -> None:
    add_customer(river, email=None, own_email=CUSTOMERS)
    [row] = river.rows(Subscription)
    renews = river.now + timedelta(days=3)
    river.set(row, status="ACTIVE", next_billing_at=renews, remind_at=river.now)
    scheduler(river).remind()
    assert mail_of_kind(river, "renewal_reminder").due_at == river.now
