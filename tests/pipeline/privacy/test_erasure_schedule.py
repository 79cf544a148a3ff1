"""Scheduling an erasure: it starts after the waiting period and can be cancelled until then."""

from datetime import timedelta

import pytest
from sqlalchemy import select

from pipeline.customers import links
from pipeline.db.models import (
    Customer,
    Erasure,
    Mail,
    PrivacyRequest,
)
from pipeline.privacy import requests
from pipeline.privacy.erasure import workflow
from pipeline.privacy.erasure.workflow import ErasureDependencies, ErasureTooLateError
from tests.pipeline.privacy.erased_customer import PAGE, PayPal, create_alice, erase_completely, run, schedule
from tests.support.pipeline_under_test import PipelineUnderTest


def test_nothing_happens_during_waiting_period(pipeline: PipelineUnderTest) -> None:
    request = schedule(pipeline, create_alice(pipeline))
    paypal = PayPal()
    pipeline.clock.advance(workflow.WAIT - timedelta(seconds=1))
    assert run(pipeline, ErasureDependencies(paypal)) == 0
    assert (request.state, paypal.cancelled, pipeline.count(Erasure)) == ("waiting", [], 0)
    assert pipeline.rows(Customer)[0].erase_at == request.waiting_ends_at


def test_mail_contains_link_that_cancels_erasure(pipeline: PipelineUnderTest) -> None:
    id = create_alice(pipeline)
    request = schedule(pipeline, id)
    mail = pipeline.mails()[f"account_deletion_scheduled:{request.id}"]
    with pipeline.database.transaction() as session:
        keyring = pipeline.keyring(session)
        facts = keyring.system_key(mail.key_id).decrypt_json("mail.facts", mail.facts)
        link = links.peek(session, facts["cancel"].removeprefix(PAGE), pipeline.now)
        assert link
        assert (link.purpose, link.request_id) == ("cancel_erase", request.id)
        workflow.cancel_erasure(session, request.id, pipeline.now)
    pipeline.clock.advance(2 * workflow.WAIT)
    assert run(pipeline, ErasureDependencies(PayPal())) == 0
    assert pipeline.rows(Customer)[0].erase_at is None
    with pipeline.database.transaction() as session:
        assert session.get_one(PrivacyRequest, request.id).state == "cancelled"
        assert links.peek(session, facts["cancel"].removeprefix(PAGE), pipeline.now - 2 * workflow.WAIT) is None


def test_second_request_changes_nothing(pipeline: PipelineUnderTest) -> None:
    id = create_alice(pipeline)
    first = schedule(pipeline, id)
    pipeline.clock.advance(timedelta(hours=1))
    second = schedule(pipeline, id)
    assert (first.id, first.waiting_ends_at) == (second.id, second.waiting_ends_at)
    assert len([mail for mail in pipeline.rows(Mail) if mail.kind == "account_deletion_scheduled"]) == 1


def test_erasure_closes_report_of_childs_data(pipeline: PipelineUnderTest) -> None:
    id = create_alice(pipeline)
    with pipeline.database.transaction() as session:
        report = requests.open_request(session, pipeline.keyring(session), "child", id, "mail", pipeline.now).id
    erase_completely(pipeline, id)
    with pipeline.database.reading() as session:
        assert session.get_one(PrivacyRequest, report).state == "done"
        (other,) = session.execute(select(PrivacyRequest).where(PrivacyRequest.kind == "correct")).scalars()
        assert other.state == "received"


def test_running_erasure_cannot_be_cancelled(pipeline: PipelineUnderTest) -> None:
    request = schedule(pipeline, create_alice(pipeline))
    pipeline.clock.advance(workflow.WAIT)
    run(pipeline, ErasureDependencies(PayPal()))
    with pipeline.database.transaction() as session, pytest.raises(ErasureTooLateError):
        workflow.cancel_erasure(session, request.id, pipeline.now)


def test_operator_can_erase_without_waiting(pipeline: PipelineUnderTest) -> None:
    id = create_alice(pipeline)
    request = workflow.erase_now(
        pipeline.database, pipeline.master, pipeline.clock, ErasureDependencies(PayPal()), id, "operator"
    )
    assert request.state == "running"
    assert pipeline.count(Erasure) == 1
    assert not [mail for mail in pipeline.rows(Mail) if mail.kind == "account_deletion_scheduled"]
