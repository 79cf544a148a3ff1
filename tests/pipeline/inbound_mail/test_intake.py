"""Intake: a message is stored encrypted once, acknowledged once, opens a request, and changes nothing else."""

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
SUPPORT_MAILS, PRIVACY_MAILS = ["support_received", "request_due"], ["privacy_request_received", "request_due"]


def sign_up(river: River, person: SignUpData = ADA) -> str:
    with river.database.transaction() as session:
        keyring = river.keyring(session)
        id = accounts.create_account(
            session, keyring, person, adult_text="1", news=True, now=river.now, source="sign-up"
        )
        accounts.record_consent(
            session, id, "marketing", given=True, source="link by mail", text_version="1", now=river.now
        )
        return id


def receive(river: River, raw: bytes) -> FiledMail:
    return intake.store_mail(raw, river.database, river.master, river.clock, PAGE)


def mail_kinds(river: River) -> list[str]:
    """Return the kinds of all mails, acknowledgements first."""
    return sorted((row.kind for row in river.rows(Mail)), key=lambda kind: kind == "request_due")


def requests(river: River) -> list[tuple[str, str, str | None]]:
    return sorted(
        ((row.kind, row.state, row.customer_id) for row in river.rows(PrivacyRequest)), key=lambda found: found[0]
    )


def test_question_is_stored_encrypted_and_acknowledged(river: River) -> None:
    customer = sign_up(river)
    raw = mail("How do I add a second user?")
    filed = receive(river, raw)
    assert (filed.kind, filed.asked, filed.customer_id) == ("support", None, customer)
    assert mail_kinds(river) == SUPPORT_MAILS
    assert requests(river) == [("other", "received", customer)]
    with river.database.reading() as session:
        row = session.execute(select(InboundMail)).scalar_one()
        assert row.content
        assert b"second user" not in row.content
        assert river.keyring(session).system_key(customer).decrypt("inbound_mail.content", row.content) == raw
        assert row.request_id == session.execute(select(PrivacyRequest.id)).scalar_one()
        recipients = select(Mail.customer_id).where(Mail.kind == "support_received")
        assert session.execute(recipients).scalar_one() == customer


def test_same_message_is_stored_and_answered_once(river: River) -> None:
    raw = mail("How do I add a second user?")
    assert not receive(river, raw).known
    assert receive(river, raw).known
    assert mail_kinds(river) == SUPPORT_MAILS
    assert len(requests(river)) == 1


def test_same_message_with_other_received_header_is_known(river: River) -> None:
    raw = mail("How do I add a second user?", Message_ID="<1@example.com>")
    assert not receive(river, b"Received: from a by b; Sun, 1 Mar 2026 12:00:00 +0000\r\n" + raw).known
    assert receive(river, b"Received: from c by d; Sun, 1 Mar 2026 12:01:00 +0000\r\n" + raw).known
    assert not receive(river, mail("Another one", Message_ID="<1@example.com>")).known


def test_automatic_message_is_stored_but_not_answered(river: River) -> None:
    sign_up(river)
    filed = receive(river, mail("please delete my account", Auto_Submitted="auto-replied"))
    assert filed.kind == "automatic"
    assert (mail_kinds(river), requests(river)) == ([], [])


def test_loop_of_autoresponders_ends(river: River) -> None:
    for number in range(10):
        receive(river, mail(f"I am away, number {number}"))
        river.clock.advance(timedelta(minutes=1))
    assert mail_kinds(river).count("support_received") == ANSWERED_A_DAY
    assert river.count(PrivacyRequest) == 10  # each still opens a request
    river.clock.advance(timedelta(days=1))
    receive(river, mail("a question of the day after"))
    assert mail_kinds(river).count("support_received") == ANSWERED_A_DAY + 1


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
def test_message_opens_request_and_changes_nothing(river: River, text: str, kind: str) -> None:
    customers = [sign_up(river)]
    river.clock.advance(timedelta(hours=1))
    customers.append(sign_up(river))
    receive(river, mail(text))
    assert requests(river) == [(kind, "received", customers[1])]
    assert mail_kinds(river) == (SUPPORT_MAILS if kind == "other" else PRIVACY_MAILS)
    for row in river.rows(Customer):
        assert (row.wants_marketing, row.wants_service_mail, row.erase_at) == (True, True, None)
    assert "mail" not in {row.source for row in river.rows(Consent)}
    with river.database.reading() as session:
        for customer in customers:
            assert accounts.personal_data(session, river.keyring(session), customer)["email"] == "ada@example.com"


def test_repeated_privacy_message_opens_one_request(river: River) -> None:
    sign_up(river)
    receive(river, mail("please delete my account"))
    receive(river, mail("PLEASE delete my account!"))
    assert mail_kinds(river) == PRIVACY_MAILS
    [request] = river.rows(PrivacyRequest)
    assert [row.request_id for row in river.rows(InboundMail)] == [request.id] * 2


def test_two_questions_open_two_requests(river: River) -> None:
    sign_up(river)
    receive(river, mail("How do I add a second user?"))
    receive(river, mail("How do I add a third user?"))
    assert len({row.request_id for row in river.rows(InboundMail)}) == river.count(PrivacyRequest) == 2


def test_unknown_sender_gets_the_same_answer_as_customer(river: River) -> None:
    sign_up(river)
    receive(river, mail("please delete my account", sender="ada@example.com"))
    receive(river, mail("please delete my account", sender="stranger@example.com"))
    assert [kind for kind, _, _ in requests(river)] == ["erase", "erase"]
    assert sorted(mail_kinds(river)) == sorted(PRIVACY_MAILS * 2)
    with river.database.reading() as session:
        answers = [
            river.keyring(session).system_key(row.key_id).decrypt_json("mail.facts", row.facts)
            for row in session.execute(select(Mail).where(Mail.kind == "privacy_request_received")).scalars()
        ]
    for facts in answers:
        facts.pop("_to", None)
        facts.pop("request")
    assert answers[0] == answers[1]


@pytest.mark.parametrize("sender", ["ada@example.com", "stranger@example.com"])
@pytest.mark.parametrize("text", ["please unsubscribe me", "please delete my account", "a question"])
def test_repeated_messages_of_sender_get_few_answers(river: River, sender: str, text: str) -> None:
    sign_up(river)
    for number in range(10):
        spelling = sender if number % 2 else sender.upper()
        receive(river, mail(f"{text}, number {number}", sender=spelling))
    assert len(mail_kinds(river)) <= 2 * ANSWERED_A_DAY
    if sender.startswith("stranger"):
        assert river.count(PrivacyRequest) == 10  # each still opens a request


def test_answers_to_unknown_senders_are_limited_per_hour(river: River) -> None:
    """A flood with forged senders: each message is stored, but few of these addresses get mail."""
    limit = PER_HOUR["answer_strangers"]
    sign_up(river)
    for number in range(limit + 5):
        text = "please delete my account" if number % 2 else "a question"
        receive(river, mail(text, sender=f"victim{number}@example.com"))
    assert count_answers(river) == limit
    assert river.count(InboundMail) == river.count(PrivacyRequest) == limit + 5
    receive(river, mail("a question"))
    assert count_answers(river) == limit + 1
    river.clock.advance(timedelta(hours=1))
    receive(river, mail("a question", sender="later@example.com"))
    assert count_answers(river) == limit + 2


def count_answers(river: River) -> int:
    return sum(kind != "request_due" for kind in mail_kinds(river))


def test_privacy_message_after_questions_alerts_operator(river: River) -> None:
    for number in range(ANSWERED_A_DAY + 1):
        receive(river, mail(f"question {number}"))
    before = mail_kinds(river).count("request_due")
    receive(river, mail("please delete my account"))
    assert ("erase", "received", None) in requests(river)
    assert mail_kinds(river).count("request_due") == before + 1
