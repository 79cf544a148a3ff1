"""Reports about a mail belong to the person that the mail was sent to, so an erasure of that person deletes them."""

import pytest

from pipeline.db.models import InboundMail, Mail
from pipeline.inbound_mail.intake import FiledMail
from pipeline.outbox.store import NewMail
from pipeline.privacy.erasure import workflow
from pipeline.privacy.erasure.workflow import ErasureDependencies
from tests.pipeline.inbound_mail.test_intake import receive, sign_up
from tests.support.outbox_fixtures import meet, receipt
from tests.support.pipeline_under_test import PipelineUnderTest

BOUNCED = """\
Return-Path: <>
Delivered-To: {to}
From: MAILER-DAEMON@mail.example.net (Mail Delivery System)
To: {to}
Subject: Undelivered Mail Returned to Sender
Auto-Submitted: auto-replied
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary="B"

--B
Content-Type: text/plain

<{recipient}>: user unknown
--B
Content-Type: message/delivery-status

Reporting-MTA: dns; mail.example.net
{envelope}
Final-Recipient: rfc822; {recipient}
Action: failed
Status: 5.1.1
--B--
"""
COMPLAINT = """\
From: feedback@mail.example.net
To: info@example.com
Subject: Complaint
MIME-Version: 1.0
Content-Type: multipart/report; report-type=feedback-report; boundary="B"

--B
Content-Type: message/feedback-report

Feedback-Type: abuse
Original-Mail-From: <b+{id}@example.com>
Original-Rcpt-To: <{recipient}>
--B--
"""
AWAY = """\
From: Ada <ada@private.example.net>
To: info@example.com
Subject: Out of office
Auto-Submitted: auto-replied
In-Reply-To: <account_setup.{id}@example.com>

I am away. Ada, +1 555 0100
"""
HEADERS_ONLY = BOUNCED.replace("{envelope}", "")
ENVELOPE_ONLY = BOUNCED.replace("{to}", "postmaster@example.com").replace("{envelope}", "Original-Envelope-Id: {id}")


def mail_to(pipeline: PipelineUnderTest, mail: NewMail) -> str:
    [id] = pipeline.owe(mail)
    return id


def erase(pipeline: PipelineUnderTest, customer: str) -> None:
    outside = ErasureDependencies()
    workflow.erase_now(pipeline.database, pipeline.master, pipeline.clock, outside, customer, "operator")


def report(template: str, id: str, recipient: str = "ada@example.com") -> bytes:
    text = template.format(id=id, to=f"b+{id}@example.com", recipient=recipient, envelope="")
    return text.replace("\n", "\r\n").encode()


def key_of(pipeline: PipelineUnderTest, filed: FiledMail) -> str:
    return next(row.key_id for row in pipeline.rows(InboundMail) if row.id == filed.id)


@pytest.mark.parametrize("template", [HEADERS_ONLY, ENVELOPE_ONLY, COMPLAINT, AWAY])
def test_erasure_deletes_reports_about_mails_to_customer(pipeline: PipelineUnderTest, template: str) -> None:
    customer = sign_up(pipeline)
    id = mail_to(pipeline, NewMail("account_setup", "key:1", None, {}, customer_id=customer))
    bounced = report(template, id, recipient="former@example.net")  # found by the mail's id, not by the address
    filed = receive(pipeline, bounced)
    assert (filed.kind, filed.customer_id, key_of(pipeline, filed)) == ("automatic", customer, customer)
    erase(pipeline, customer)
    assert pipeline.rows(InboundMail) == []
    assert receive(pipeline, bounced).customer_id == customer
    assert [row.content for row in pipeline.rows(InboundMail)] == [None]  # a report after the erasure keeps no content


def test_report_about_subscription_without_customer_has_its_key(pipeline: PipelineUnderTest) -> None:
    meet(pipeline)
    id = mail_to(pipeline, receipt())
    filed = receive(pipeline, report(HEADERS_ONLY, id))
    [row] = [row for row in pipeline.rows(Mail) if row.id == id]
    assert key_of(pipeline, filed) == (row.customer_id or row.subscription_id) == (filed.customer_id or "I-ADA")


def test_report_about_deleted_mail_is_found_by_recipient(pipeline: PipelineUnderTest) -> None:
    customer = sign_up(pipeline)
    assert receive(pipeline, report(HEADERS_ONLY, "a" * 26)).customer_id == customer


def test_report_about_unknown_mail_and_recipient_has_no_customer(pipeline: PipelineUnderTest) -> None:
    sign_up(pipeline)
    filed = receive(pipeline, report(HEADERS_ONLY, "a" * 26, recipient="nobody@example.net"))
    assert filed.customer_id is None
    assert key_of(pipeline, filed).startswith("letter:")


def test_report_about_operators_mail_belongs_to_nobody(pipeline: PipelineUnderTest) -> None:
    id = mail_to(pipeline, NewMail("event_parked", "key:1", None, {"count": 1, "events": []}))
    filed = receive(pipeline, report(HEADERS_ONLY, id, recipient="operator@example.net"))
    assert filed.customer_id is None
    assert key_of(pipeline, filed).startswith("letter:")


@pytest.mark.parametrize(("template", "belongs"), [(BOUNCED, True), (AWAY, False), (COMPLAINT, False)])
def test_answer_from_an_address_of_the_mail_itself_belongs_to_no_customer(
    pipeline: PipelineUnderTest, template: str, belongs: bool
) -> None:
    """Another person may read that address, and their words must not be in the customer's export."""
    customer = sign_up(pipeline)
    mail = NewMail("account_link", "link:1", None, {}, customer_id=customer, to="victim@example.net")
    filed = receive(pipeline, report(template, mail_to(pipeline, mail), "victim@example.net"))
    assert filed.customer_id == (customer if belongs else None)


def test_message_of_a_person_belongs_to_its_sender(pipeline: PipelineUnderTest) -> None:
    customer = sign_up(pipeline)
    id = mail_to(pipeline, NewMail("account_setup", "key:1", None, {}, customer_id=customer))
    forwarded = AWAY.replace("Auto-Submitted: auto-replied\n", "").replace("Out of office", "Is this for me?")
    assert receive(pipeline, report(forwarded, id)).customer_id is None
