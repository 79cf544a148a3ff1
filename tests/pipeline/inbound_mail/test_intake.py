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
from pipeline.outbox.store import REFERENCES
from tests.pipeline.inbound_mail.test_parser import mail
from tests.support.pipeline_under_test import PipelineUnderTest

PAGE = "https://billing.example.com/account"
ADA = SignUpData("Ada Example", "ada@example.com")
SUPPORT_MAILS, PRIVACY_MAILS = ["support_received", "request_due"], ["privacy_request_received", "request_due"]


def sign_up(pipeline: PipelineUnderTest, person: SignUpData = ADA) -> str:
    with pipeline.database.transaction() as session:
        keyring = pipeline.keyring(session)
        id = accounts.create_account(
            session, keyring, person, adult_text="1", news=True, now=pipeline.now, source="sign-up"
        )
        accounts.confirm_entered_address(session, keyring, id, pipeline.now)
        accounts.record_consent(
            session, id, "marketing", given=True, source="link by mail", text_version="1", now=pipeline.now
        )
        return id


def receive(pipeline: PipelineUnderTest, raw: bytes) -> FiledMail:
    return intake.store_mail(raw, pipeline.database, pipeline.master, pipeline.clock, PAGE)


def mail_kinds(pipeline: PipelineUnderTest) -> list[str]:
    """Return the kinds of all mails, acknowledgements first."""
    return sorted((row.kind for row in pipeline.rows(Mail)), key=lambda kind: kind == "request_due")


def requests(pipeline: PipelineUnderTest) -> list[tuple[str, str, str | None]]:
    return sorted(
        ((row.kind, row.state, row.customer_id) for row in pipeline.rows(PrivacyRequest)), key=lambda found: found[0]
    )


def test_question_is_stored_encrypted_and_acknowledged(pipeline: PipelineUnderTest) -> None:
    customer = sign_up(pipeline)
    raw = mail("How do I add a second user?")
    filed = receive(pipeline, raw)
    assert (filed.kind, filed.asked, filed.customer_id) == ("support", None, customer)
    assert mail_kinds(pipeline) == SUPPORT_MAILS
    assert requests(pipeline) == [("other", "received", customer)]
    with pipeline.database.reading() as session:
        row = session.execute(select(InboundMail)).scalar_one()
        assert row.content
        assert b"second user" not in row.content
        assert pipeline.keyring(session).system_key(customer).decrypt("inbound_mail.content", row.content) == raw
        assert row.request_id == session.execute(select(PrivacyRequest.id)).scalar_one()
        recipients = select(Mail.customer_id).where(Mail.kind == "support_received")
        assert session.execute(recipients).scalar_one() == customer


def test_same_message_is_stored_and_answered_once(pipeline: PipelineUnderTest) -> None:
    raw = mail("How do I add a second user?")
    assert not receive(pipeline, raw).known
    assert receive(pipeline, raw).known
    assert mail_kinds(pipeline) == SUPPORT_MAILS
    assert len(requests(pipeline)) == 1


def test_same_message_with_other_received_header_is_known(pipeline: PipelineUnderTest) -> None:
    raw = mail("How do I add a second user?", Message_ID="<1@example.com>")
    assert not receive(pipeline, b"Received: from a by b; Sun, 1 Mar 2026 12:00:00 +0000\r\n" + raw).known
    assert receive(pipeline, b"Received: from c by d; Sun, 1 Mar 2026 12:01:00 +0000\r\n" + raw).known
    assert not receive(pipeline, mail("Another one", Message_ID="<1@example.com>")).known


def test_automatic_message_is_stored_but_not_answered(pipeline: PipelineUnderTest) -> None:
    sign_up(pipeline)
    filed = receive(pipeline, mail("please delete my account", Auto_Submitted="auto-replied"))
    assert filed.kind == "automatic"
    assert (mail_kinds(pipeline), requests(pipeline)) == ([], [])


def test_loop_of_autoresponders_ends(pipeline: PipelineUnderTest) -> None:
    for number in range(10):
        receive(pipeline, mail(f"I am away, number {number}"))
        pipeline.clock.advance(timedelta(minutes=1))
    assert mail_kinds(pipeline).count("support_received") == ANSWERED_A_DAY
    assert pipeline.count(PrivacyRequest) == 10  # each still opens a request
    pipeline.clock.advance(timedelta(days=1))
    receive(pipeline, mail("a question of the day after"))
    assert mail_kinds(pipeline).count("support_received") == ANSWERED_A_DAY + 1


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
def test_message_opens_request_and_changes_nothing(pipeline: PipelineUnderTest, text: str, kind: str) -> None:
    customers = [sign_up(pipeline)]
    receive(pipeline, mail(text))
    assert requests(pipeline) == [(kind, "received", customers[0])]
    assert mail_kinds(pipeline) == (SUPPORT_MAILS if kind == "other" else PRIVACY_MAILS)
    for row in pipeline.rows(Customer):
        assert (row.wants_marketing, row.wants_service_mail, row.erase_at) == (True, True, None)
    assert "mail" not in {row.source for row in pipeline.rows(Consent)}
    with pipeline.database.reading() as session:
        for customer in customers:
            assert accounts.personal_data(session, pipeline.keyring(session), customer)["email"] == "ada@example.com"


def test_repeated_privacy_message_opens_one_request(pipeline: PipelineUnderTest) -> None:
    sign_up(pipeline)
    receive(pipeline, mail("please delete my account"))
    receive(pipeline, mail("PLEASE delete my account!"))
    assert mail_kinds(pipeline) == PRIVACY_MAILS
    [request] = pipeline.rows(PrivacyRequest)
    assert [row.request_id for row in pipeline.rows(InboundMail)] == [request.id] * 2


def test_two_questions_open_two_requests(pipeline: PipelineUnderTest) -> None:
    sign_up(pipeline)
    receive(pipeline, mail("How do I add a second user?"))
    receive(pipeline, mail("How do I add a third user?"))
    assert len({row.request_id for row in pipeline.rows(InboundMail)}) == pipeline.count(PrivacyRequest) == 2


def test_unknown_sender_gets_the_same_answer_as_customer(pipeline: PipelineUnderTest) -> None:
    sign_up(pipeline)
    receive(pipeline, mail("please delete my account", sender="ada@example.com"))
    receive(pipeline, mail("please delete my account", sender="stranger@example.com"))
    assert [kind for kind, _, _ in requests(pipeline)] == ["erase", "erase"]
    assert sorted(mail_kinds(pipeline)) == sorted(PRIVACY_MAILS * 2)
    with pipeline.database.reading() as session:
        answers = [
            pipeline.keyring(session).system_key(row.key_id).decrypt_json("mail.facts", row.facts)
            for row in session.execute(select(Mail).where(Mail.kind == "privacy_request_received")).scalars()
        ]
    for facts in answers:
        facts.pop("_to", None)
        facts.pop("request")
    assert answers[0] == answers[1]


@pytest.mark.parametrize("sender", ["ada@example.com", "stranger@example.com"])
@pytest.mark.parametrize("text", ["please unsubscribe me", "please delete my account", "a question"])
def test_repeated_messages_of_sender_get_few_answers(pipeline: PipelineUnderTest, sender: str, text: str) -> None:
    sign_up(pipeline)
    for number in range(10):
        spelling = sender if number % 2 else sender.upper()
        receive(pipeline, mail(f"{text}, number {number}", sender=spelling))
    assert count_answers(pipeline) <= ANSWERED_A_DAY
    if sender.startswith("stranger"):
        assert pipeline.count(PrivacyRequest) == 10  # each still opens a request


def test_answers_to_unknown_senders_are_limited_per_hour(pipeline: PipelineUnderTest) -> None:
    """A flood with forged senders: each message is stored, but few of these addresses get mail."""
    limit = PER_HOUR["answer_strangers"]
    sign_up(pipeline)
    for number in range(limit + 5):
        text = "please delete my account" if number % 2 else "a question"
        receive(pipeline, mail(text, sender=f"victim{number}@example.com"))
    assert count_answers(pipeline) == limit
    assert pipeline.count(InboundMail) == pipeline.count(PrivacyRequest) == limit + 5
    receive(pipeline, mail("a question"))
    assert count_answers(pipeline) == limit + 1
    pipeline.clock.advance(timedelta(hours=1))
    receive(pipeline, mail("a question", sender="later@example.com"))
    assert count_answers(pipeline) == limit + 2


def test_variants_of_a_mailbox_share_the_daily_limit(sqlite_pipeline: PipelineUnderTest) -> None:
    for number in range(6):
        sender = ("mallory+{}@example.com", "M.allory@example.com", "mal.lory@Example.com")[number % 3].format(number)
        receive(sqlite_pipeline, mail(f"question {number}", sender=sender))
        sqlite_pipeline.clock.advance(timedelta(hours=1))
    assert count_answers(sqlite_pipeline) == ANSWERED_A_DAY


def test_one_sender_does_not_use_up_the_answers_of_all(pipeline: PipelineUnderTest) -> None:
    """Spellings of one mailbox and both kinds of message count together."""
    for number in range(PER_HOUR["answer_strangers"] + 5):
        text = "please delete my account" if number % 2 else "a question"
        receive(pipeline, mail(f"{text} {number}", sender=f"M.a.llory+{number}@example.com"))
    assert count_answers(pipeline) == PER_HOUR["answer_sender"] < PER_HOUR["answer_strangers"] / 5
    receive(pipeline, mail("a question", sender="stranger@example.com"))
    assert count_answers(pipeline) == PER_HOUR["answer_sender"] + 1


@pytest.mark.parametrize(
    ("text", "kind"), [("a question", "support_received"), ("please delete my account", "privacy_request_received")]
)
def test_acknowledgement_names_the_message_that_it_answers(
    sqlite_pipeline: PipelineUnderTest, text: str, kind: str
) -> None:
    """RFC 5322 section 3.6.4 and RFC 3834 section 3.1.5."""
    more = {"Message_ID": "<own@example.com>", "References": "<first@example.com> <second@example.com>"}
    receive(sqlite_pipeline, mail(text, **more))
    [row] = [row for row in sqlite_pipeline.rows(Mail) if row.kind == kind]
    with sqlite_pipeline.database.reading() as session:
        facts = sqlite_pipeline.keyring(session).system_key(row.key_id).decrypt_json("mail.facts", row.facts) or {}
    assert facts[REFERENCES] == ["<first@example.com>", "<second@example.com>", "<own@example.com>"]


def count_answers(pipeline: PipelineUnderTest) -> int:
    return sum(kind != "request_due" for kind in mail_kinds(pipeline))


def test_privacy_message_after_questions_alerts_operator(pipeline: PipelineUnderTest) -> None:
    for number in range(ANSWERED_A_DAY + 1):
        receive(pipeline, mail(f"question {number}"))
    before = mail_kinds(pipeline).count("request_due")
    receive(pipeline, mail("please delete my account"))
    assert ("erase", "received", None) in requests(pipeline)
    assert mail_kinds(pipeline).count("request_due") == before + 1


def stored_sizes(pipeline: PipelineUnderTest) -> list[int]:
    """Return the sizes of the stored messages, in MiB, oldest first."""
    rows = sorted(pipeline.rows(InboundMail), key=lambda row: row.received_at)
    return [round(len(row.content or b"") / 2**20) for row in rows]


def test_large_messages_of_one_sender_are_truncated_above_the_daily_quota(pipeline: PipelineUnderTest) -> None:
    customer = sign_up(pipeline)
    for number in range(15):
        filed = receive(pipeline, mail(f"question {number} " + "x" * 10 * 2**20)[: 10 * 2**20])
        assert (filed.kind, filed.customer_id) == ("support", customer)
        pipeline.clock.advance(timedelta(seconds=1))
    assert stored_sizes(pipeline) == [10, 10] + [0] * 13
    with pipeline.database.transaction() as session:
        data_key = pipeline.keyring(session).system_key(customer)
        beginnings = [
            data_key.decrypt("inbound_mail.content", row.content or b"") for row in pipeline.rows(InboundMail)
        ]
    assert sorted({len(each) for each in beginnings}) == [intake.BEGINNING, 10 * 2**20]
    assert all(b"question" in each for each in beginnings)
    receive(pipeline, mail("a short question"))
    receive(pipeline, mail("y" * 10 * 2**20, sender="bob@example.com")[: 10 * 2**20])
    pipeline.clock.advance(intake.DAY)
    receive(pipeline, mail("z" * 10 * 2**20)[: 10 * 2**20])
    assert stored_sizes(pipeline)[-1] == 10
    assert sum(stored_sizes(pipeline)) == 40


def test_large_messages_of_many_senders_are_truncated_above_the_quota_of_all(
    sqlite_pipeline: PipelineUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "ALL_BYTES", 3 * 2**20)
    for number in range(6):
        receive(sqlite_pipeline, mail("x" * 2**20, sender=f"{number}@example.com"))
        sqlite_pipeline.clock.advance(timedelta(seconds=1))
    assert stored_sizes(sqlite_pipeline) == [1, 1, 0, 0, 0, 0]
