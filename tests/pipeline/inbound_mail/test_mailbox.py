"""The operator reads stored messages and answers them; each message that needs a person is reported to the operator."""

from datetime import timedelta

import pytest
from sqlalchemy import select

from pipeline.customers.rate_limit import PER_HOUR
from pipeline.db.models import InboundMail, Mail, PrivacyRequest
from pipeline.errors import OperatorError, UsageError
from pipeline.inbound_mail import intake, mailbox
from pipeline.inbound_mail.mailbox import Json, MessageQuery, QueuedReply
from pipeline.inbound_mail.reading import REFERENCES, read_message
from pipeline.outbox import store as outbox
from pipeline.privacy.erasure import workflow
from pipeline.privacy.erasure.workflow import ErasureDependencies
from tests.pipeline.inbound_mail.test_intake import PAGE, receive, sign_up
from tests.pipeline.inbound_mail.test_parser import mail
from tests.support.pipeline_under_test import PipelineUnderTest

QUESTION = {
    "subject": "A second user",
    "Message_ID": "<2@example.com>",
    "References": "<0@example.com> <1@example.com>",
}


def listed(pipeline: PipelineUnderTest, query: MessageQuery | None = None) -> list[Json]:
    with pipeline.database.reading() as session:
        return list(mailbox.messages(session, pipeline.keyring(session), query or MessageQuery()))


def shown(pipeline: PipelineUnderTest, id: str) -> Json:
    with pipeline.database.reading() as session:
        found = mailbox.message(session, pipeline.keyring(session), id)
    assert found
    return found


def reply(pipeline: PipelineUnderTest, id: str, text: str = "Open the settings.") -> QueuedReply:
    with pipeline.database.transaction() as session:
        return mailbox.reply(session, pipeline.keyring(session), id, text, pipeline.now)


def facts(pipeline: PipelineUnderTest, kind: str) -> list[Json]:
    with pipeline.database.reading() as session:
        keyring = pipeline.keyring(session)
        rows = session.execute(select(Mail).where(Mail.kind == kind).order_by(Mail.created_at)).scalars()
        return [keyring.system_key(row.key_id).decrypt_json("mail.facts", row.facts) for row in rows]


def test_reply_goes_to_the_sender_and_joins_the_conversation(pipeline: PipelineUnderTest) -> None:
    customer = sign_up(pipeline)
    id = receive(pipeline, mail("How do I add a second user?", **QUESTION)).id
    assert listed(pipeline)[0]["state"] == "open"
    queued = reply(pipeline, id[:12])
    assert (queued.to, queued.open_request) == ("ada@example.com", None)
    [sent] = facts(pipeline, "inbound_reply")
    assert sent["_to"] == "ada@example.com"
    assert (sent["subject"], sent["lines"]) == ("Re: A second user", ["Open the settings."])
    assert sent[outbox.REFERENCES] == ["<0@example.com>", "<1@example.com>", "<2@example.com>"]
    assert listed(pipeline)[0]["state"] == "answered"
    assert [row.state for row in pipeline.rows(PrivacyRequest)] == ["done"]
    [row] = [row for row in pipeline.rows(Mail) if row.kind == "inbound_reply"]
    assert (row.customer_id, row.key_id) == (customer, customer)


def test_same_reply_is_queued_once(pipeline: PipelineUnderTest) -> None:
    id = receive(pipeline, mail("a question")).id
    assert reply(pipeline, id).mail
    assert reply(pipeline, id, "Open the settings.\n").mail is None
    assert reply(pipeline, id, "And close them.").mail
    assert len(facts(pipeline, "inbound_reply")) == 2


def test_reply_to_privacy_request_leaves_the_request_open(pipeline: PipelineUnderTest) -> None:
    id = receive(pipeline, mail("please delete my account")).id
    [request] = pipeline.rows(PrivacyRequest)
    assert reply(pipeline, id).open_request == request.id
    assert [row.done_at for row in pipeline.rows(PrivacyRequest)] == [None]


@pytest.mark.parametrize("text", ["", " \n", "x" * (mailbox.LONGEST_REPLY + 1)])
def test_reply_without_text_or_too_long_is_refused(pipeline: PipelineUnderTest, text: str) -> None:
    id = receive(pipeline, mail("a question")).id
    with pytest.raises(UsageError):
        reply(pipeline, id, text)
    assert facts(pipeline, "inbound_reply") == []


def test_automatic_message_is_not_answered(pipeline: PipelineUnderTest) -> None:
    id = receive(pipeline, mail("I am away", Auto_Submitted="auto-replied")).id
    assert listed(pipeline)[0]["state"] == "filed"
    with pytest.raises(UsageError, match="by a program"):
        reply(pipeline, id)


def test_erased_message_cannot_be_read_or_answered(pipeline: PipelineUnderTest) -> None:
    id = receive(pipeline, mail("a question", sender="stranger@example.com")).id
    [row] = pipeline.rows(InboundMail)
    with pipeline.database.transaction() as session:
        pipeline.keyring(session).destroy([row.key_id])
    assert (shown(pipeline, id)["erased"], shown(pipeline, id)["text"]) == (True, None)
    with pytest.raises(OperatorError, match="erased"):
        reply(pipeline, id)


def test_erasure_clears_replies_to_customer(pipeline: PipelineUnderTest) -> None:
    customer = sign_up(pipeline)
    reply(pipeline, receive(pipeline, mail("a question")).id)
    outside = ErasureDependencies()
    workflow.erase_now(pipeline.database, pipeline.master, pipeline.clock, outside, customer, "operator")
    assert [row.facts for row in pipeline.rows(Mail) if row.kind == "inbound_reply"] == [None]


def test_list_filters_by_kind_time_and_state(pipeline: PipelineUnderTest) -> None:
    old = receive(pipeline, mail("an old question")).id
    pipeline.clock.advance(timedelta(days=2))
    new = receive(pipeline, mail("please delete my account")).id
    away = receive(pipeline, mail("away", Auto_Submitted="auto-replied")).id
    reply(pipeline, old)
    ids = {
        name: {row["id"] for row in listed(pipeline, query)}
        for name, query in {
            "all": MessageQuery(),
            "kind": MessageQuery(kind="privacy"),
            "since": MessageQuery(since=pipeline.now - timedelta(days=1)),
            "open": MessageQuery(only_open=True),
        }.items()
    }
    assert ids == {"all": {old, new, away}, "kind": {new}, "since": {new, away}, "open": {new}}
    assert len(listed(pipeline, MessageQuery(limit=1))) == 1


def test_short_or_unknown_ids_are_refused(pipeline: PipelineUnderTest) -> None:
    receive(pipeline, mail("a question"))
    for id in ("", "abc", "%" * 12, "0" * 64):
        with pytest.raises(UsageError):
            reply(pipeline, id)


def test_operator_is_told_the_command_but_no_personal_data(pipeline: PipelineUnderTest) -> None:
    id = receive(pipeline, mail("a secret question")).id
    [told] = facts(pipeline, "request_due")
    assert told["message"] == id[: mailbox.SHORT_ID]
    assert "ada" not in repr(told).lower()
    assert "secret" not in repr(told)
    [row] = [row for row in pipeline.rows(Mail) if row.kind == "request_due"]
    assert row.key_id == outbox.OPERATOR


def test_operator_gets_the_text_if_configured_and_erasure_clears_it(pipeline: PipelineUnderTest) -> None:
    customer = sign_up(pipeline)
    raw = mail("a secret question")
    intake.store_mail(raw, pipeline.database, pipeline.master, pipeline.clock, PAGE, show_text=True)
    [told] = facts(pipeline, "request_due")
    assert told["text"] == ["From: Ada <ada@example.com>", "Subject: A question", "", "a secret question"]
    [row] = [row for row in pipeline.rows(Mail) if row.kind == "request_due"]
    assert (row.key_id, row.customer_id, row.subscription_id) == (customer, None, None)
    outside = ErasureDependencies()
    workflow.erase_now(pipeline.database, pipeline.master, pipeline.clock, outside, customer, "operator")
    assert [row.facts for row in pipeline.rows(Mail) if row.kind == "request_due"] == [None]


def test_operator_is_told_of_messages_that_get_no_answer(pipeline: PipelineUnderTest) -> None:
    for number in range(PER_HOUR["report_message"] + 5):
        receive(pipeline, mail(f"question {number}"))
    assert len(facts(pipeline, "request_due")) == PER_HOUR["report_message"]
    assert len(facts(pipeline, "support_received")) == intake.ANSWERED_A_DAY


def test_reader_shows_text_and_attachments_and_survives_hostile_messages() -> None:
    multipart = mail(
        "--B\r\nContent-Type: text/plain\r\n\r\nHello\r\n> quoted\r\n"
        '--B\r\nContent-Type: image/png\r\nContent-Disposition: attachment; filename="a.png"\r\n\r\nxx\r\n--B--',
        Content_Type='multipart/mixed; boundary="B"',
    )
    read = read_message(multipart)
    assert (read.text, read.attachments) == ("Hello\n> quoted", ("a.png (image/png)",))
    assert read_message(b"\xff\xfe" * 1000).sender == ""
    long = mail("x", Message_ID="<own@example.com>", References=" ".join(f"<{n}@example.com>" for n in range(100)))
    references = read_message(long).references
    assert len(references) == REFERENCES
    assert (references[0], references[-1]) == ("<0@example.com>", "<own@example.com>")
    assert read_message(mail("x", Message_ID="<a b@example.com>")).references == ()
