"""A message is filed once, sealed, with its sender; acknowledged once, and put to the operator; it changes nothing."""

from datetime import timedelta

import pytest
from sqlalchemy import select

from pipeline.customers import accounts
from pipeline.customers.accounts import SignUpData
from pipeline.customers.rate_limit import PER_HOUR
from pipeline.db.models import Consent, Customer, InboundMail, Mail, PrivacyRequest
from pipeline.inbound_mail import intake
from pipeline.inbound_mail.intake import ANSWERED_A_DAY, FiledMail
from tests.pipeline.inbound_mail.test_parser import mail
from tests.support.pipeline_under_test import River

PAGE = "https://billing.example.com/account"
ADA = SignUpData("Ada Example", "ada@example.com")
ASKED, ASKED_A_RIGHT = ["support_received", "request_due"], ["privacy_request_received", "request_due"]


def signed_up(river: River, person: SignUpData = ADA) -> str:
    with river.database.transaction() as session:
        keyring = river.keyring(session)
        id = accounts.create_account(
            session, keyring, person, adult_text="1", news=True, now=river.now, source="sign-up"
        )
        accounts.record_consent(
            session, id, "marketing", given=True, source="link by mail", text_version="1", now=river.now
        )
        return id


def took(river: River, raw: bytes) -> FiledMail:
    return intake.store_mail(raw, river.database, river.master, river.clock, PAGE)


def owed(river: River) -> list[str]:
    """The kinds of all mails, the acknowledgements first."""
    return sorted((row.kind for row in river.rows(Mail)), key=lambda kind: kind == "request_due")


def opened(river: River) -> list[tuple[str, str, str | None]]:
    return sorted(
        ((row.kind, row.state, row.customer_id) for row in river.rows(PrivacyRequest)), key=lambda found: found[0]
    )


def test_a_question_is_filed_sealed_with_its_customer_and_acknowledged(river: River) -> None:
    customer = signed_up(river)
    raw = mail("How do I add a second user?")
    filed = took(river, raw)
    assert (filed.kind, filed.asked, filed.customer_id) == ("support", None, customer)
    assert owed(river) == ASKED
    assert opened(river) == [("other", "received", customer)]
    with river.database.reading() as session:
        row = session.execute(select(InboundMail)).scalar_one()
        assert row.content
        assert b"second user" not in row.content
        assert river.keyring(session).system_key(customer).decrypt("inbound_mail.content", row.content) == raw
        assert row.request_id == session.execute(select(PrivacyRequest.id)).scalar_one()
        told = select(Mail.customer_id).where(Mail.kind == "support_received")
        assert session.execute(told).scalar_one() == customer


def test_the_same_mail_is_filed_and_answered_once(river: River) -> None:
    raw = mail("How do I add a second user?")
    assert not took(river, raw).known
    assert took(river, raw).known
    assert owed(river) == ASKED
    assert len(opened(river)) == 1


def test_a_mail_that_came_twice_on_different_ways_is_one(river: River) -> None:
    raw = mail("How do I add a second user?", Message_ID="<1@example.com>")
    assert not took(river, b"Received: from a by b; Sun, 1 Mar 2026 12:00:00 +0000\r\n" + raw).known
    assert took(river, b"Received: from c by d; Sun, 1 Mar 2026 12:01:00 +0000\r\n" + raw).known
    assert not took(river, mail("Another one", Message_ID="<1@example.com>")).known


def test_mail_of_a_machine_is_filed_and_never_answered(river: River) -> None:
    signed_up(river)
    filed = took(river, mail("please delete my account", Auto_Submitted="auto-replied"))
    assert filed.kind == "automatic"
    assert (owed(river), opened(river)) == ([], [])


def test_two_machines_that_answer_each_other_come_to_an_end(river: River) -> None:
    for number in range(10):
        took(river, mail(f"I am away, number {number}"))
        river.clock.advance(timedelta(minutes=1))
    assert owed(river).count("support_received") == ANSWERED_A_DAY
    assert river.count(PrivacyRequest) == 10  # each is noted all the same
    river.clock.advance(timedelta(days=1))
    took(river, mail("a question of the day after"))
    assert owed(river).count("support_received") == ANSWERED_A_DAY + 1


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("please delete my account", "erase"),
        ("send me a copy of my data", "access"),
        ("my child signed up", "child"),
        ("please unsubscribe me", "opt_out"),
        ("a question about GDPR", "other"),
    ],
)
def test_a_wish_is_put_to_the_operator_and_nothing_is_done_on_a_mail_alone(river: River, text: str, kind: str) -> None:
    customers = [signed_up(river)]
    river.clock.advance(timedelta(hours=1))
    customers.append(signed_up(river))
    took(river, mail(text))
    assert opened(river) == [(kind, "received", customers[1])]
    assert owed(river) == (ASKED if kind == "other" else ASKED_A_RIGHT)
    for row in river.rows(Customer):
        assert (row.wants_marketing, row.wants_service_mail, row.erase_at) == (True, True, None)
    assert "mail" not in {row.source for row in river.rows(Consent)}
    with river.database.reading() as session:
        for customer in customers:
            assert accounts.personal_data(session, river.keyring(session), customer)["email"] == "ada@example.com"


def test_a_wish_told_twice_is_one_request(river: River) -> None:
    signed_up(river)
    took(river, mail("please delete my account"))
    took(river, mail("PLEASE delete my account!"))
    assert owed(river) == ASKED_A_RIGHT
    [request] = river.rows(PrivacyRequest)
    assert [row.request_id for row in river.rows(InboundMail)] == [request.id] * 2


def test_two_questions_are_two_requests(river: River) -> None:
    signed_up(river)
    took(river, mail("How do I add a second user?"))
    took(river, mail("How do I add a third user?"))
    assert len({row.request_id for row in river.rows(InboundMail)}) == river.count(PrivacyRequest) == 2


def test_a_stranger_gets_the_same_answer_as_a_customer(river: River) -> None:
    signed_up(river)
    took(river, mail("please delete my account", sender="ada@example.com"))
    took(river, mail("please delete my account", sender="stranger@example.com"))
    assert [kind for kind, _, _ in opened(river)] == ["erase", "erase"]
    assert sorted(owed(river)) == sorted(ASKED_A_RIGHT * 2)
    with river.database.reading() as session:
        told = [
            river.keyring(session).system_key(row.key_id).decrypt_json("mail.facts", row.facts)
            for row in session.execute(select(Mail).where(Mail.kind == "privacy_request_received")).scalars()
        ]
    for facts in told:
        facts.pop("_to", None)
        facts.pop("request")
    assert told[0] == told[1]


@pytest.mark.parametrize("sender", ["ada@example.com", "stranger@example.com"])
@pytest.mark.parametrize("text", ["please unsubscribe me", "please delete my account", "a question"])
def test_nobody_is_bombed_with_mail_by_one_senders_wishes(river: River, sender: str, text: str) -> None:
    signed_up(river)
    for number in range(10):
        written = sender if number % 2 else sender.upper()
        took(river, mail(f"{text}, number {number}", sender=written))
    assert len(owed(river)) <= 2 * ANSWERED_A_DAY
    if sender.startswith("stranger"):
        assert river.count(PrivacyRequest) == 10  # each is noted all the same


def test_strangers_are_answered_so_many_times_an_hour_in_all_and_customers_always(river: River) -> None:
    """A flood in others' names: each message is filed, and most of those who never wrote hear nothing."""
    strangers = PER_HOUR["answer_strangers"]
    signed_up(river)
    for number in range(strangers + 5):
        text = "please delete my account" if number % 2 else "a question"
        took(river, mail(text, sender=f"victim{number}@example.com"))
    assert answers(river) == strangers
    assert river.count(InboundMail) == river.count(PrivacyRequest) == strangers + 5
    took(river, mail("a question"))
    assert answers(river) == strangers + 1
    river.clock.advance(timedelta(hours=1))
    took(river, mail("a question", sender="later@example.com"))
    assert answers(river) == strangers + 2


def answers(river: River) -> int:
    return sum(kind != "request_due" for kind in owed(river))


def test_a_strangers_wish_after_questions_is_still_put_to_the_operator(river: River) -> None:
    for number in range(ANSWERED_A_DAY + 1):
        took(river, mail(f"question {number}"))
    before = owed(river).count("request_due")
    took(river, mail("please delete my account"))
    assert ("erase", "received", None) in opened(river)
    assert owed(river).count("request_due") == before + 1
