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
from tests.support.pipeline_under_test import River


def test_nothing_happens_during_waiting_period(river: River) -> None:
    request = schedule(river, create_alice(river))
    paypal = PayPal()
    river.clock.advance(workflow.WAIT - timedelta(seconds=1))
    assert run(river, ErasureDependencies(paypal)) == 0
    assert (request.state, paypal.cancelled, river.count(Erasure)) == ("waiting", [], 0)
    assert river.rows(Customer)[0].erase_at == request.waiting_ends_at


def test_mail_contains_link_that_cancels_erasure(river: River) -> None:
    id = create_alice(river)
    request = schedule(river, id)
    mail = river.mails()[f"account_deletion_scheduled:{request.id}"]
    with river.database.transaction() as session:
        keyring = river.keyring(session)
        facts = keyring.system_key(mail.key_id).decrypt_json("mail.facts", mail.facts)
        link = links.peek(session, facts["cancel"].removeprefix(PAGE), river.now)
        assert link
        assert (link.purpose, link.request_id) == ("cancel_erase", request.id)
        workflow.cancel_erasure(session, request.id, river.now)
    river.clock.advance(2 * workflow.WAIT)
    assert run(river, ErasureDependencies(PayPal())) == 0
    assert river.rows(Customer)[0].erase_at is None
    with river.database.transaction() as session:
        assert session.get_one(PrivacyRequest, request.id).state == "cancelled"
        assert links.peek(session, facts["cancel"].removeprefix(PAGE), river.now - 2 * workflow.WAIT) is None


def test_second_request_changes_nothing(river: River) -> None:
    id = create_alice(river)
    first = schedule(river, id)
    river.clock.advance(timedelta(hours=1))
    second = schedule(river, id)
    assert (first.id, first.waiting_ends_at) == (second.id, second.waiting_ends_at)
    assert len([mail for mail in river.rows(Mail) if mail.kind == "account_deletion_scheduled"]) == 1


def test_erasure_closes_report_of_childs_data(river: River) -> None:
    id = create_alice(river)
    with river.database.transaction() as session:
        report = requests.open_request(session, river.keyring(session), "child", id, "mail", river.now).id
    erase_completely(river, id)
    with river.database.reading() as session:
        assert session.get_one(PrivacyRequest, report).state == "done"
        (other,) = session.execute(select(PrivacyRequest).where(PrivacyRequest.kind == "correct")).scalars()
        assert other.state == "received"


def test_running_erasure_cannot_be_cancelled(river: River) -> None:
    request = schedule(river, create_alice(river))
    river.clock.advance(workflow.WAIT)
    run(river, ErasureDependencies(PayPal()))
    with river.database.transaction() as session, pytest.raises(ErasureTooLateError):
        workflow.cancel_erasure(session, request.id, river.now)


def test_operator_can_erase_without_waiting(river: River) -> None:
    id = create_alice(river)
    request = workflow.erase_now(
        river.database, river.master, river.clock, ErasureDependencies(PayPal()), id, "operator"
    )
    assert request.state == "running"
    assert river.count(Erasure) == 1
    assert not [mail for mail in river.rows(Mail) if mail.kind == "account_deletion_scheduled"]
