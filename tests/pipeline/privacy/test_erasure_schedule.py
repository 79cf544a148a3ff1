"""An erasure is asked for: after a wait it begins, and until then it can be called off."""

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
from tests.pipeline.privacy.erased_customer import PAGE, PayPal, erase_whole, meet_alice, run, schedule
from tests.support.pipeline_under_test import River


def test_nothing_happens_before_the_waiting_period_is_over(river: River) -> None:
    asked = schedule(river, meet_alice(river))
    paypal = PayPal()
    river.clock.advance(workflow.WAIT - timedelta(seconds=1))
    assert run(river, ErasureDependencies(paypal)) == 0
    assert (asked.state, paypal.cancelled, river.count(Erasure)) == ("waiting", [], 0)
    assert river.rows(Customer)[0].erase_at == asked.waiting_ends_at


def test_the_mail_about_it_has_a_link_that_cancels_it(river: River) -> None:
    id = meet_alice(river)
    asked = schedule(river, id)
    mail = river.mails()[f"account_deletion_scheduled:{asked.id}"]
    with river.database.transaction() as session:
        ring = river.keyring(session)
        facts = ring.system_key(mail.key_id).decrypt_json("mail.facts", mail.facts)
        link = links.peek(session, facts["cancel"].removeprefix(PAGE), river.now)
        assert link
        assert (link.purpose, link.request_id) == ("cancel_erase", asked.id)
        workflow.cancel_erasure(session, asked.id, river.now)
    river.clock.advance(2 * workflow.WAIT)
    assert run(river, ErasureDependencies(PayPal())) == 0
    assert river.rows(Customer)[0].erase_at is None
    with river.database.transaction() as session:
        assert session.get_one(PrivacyRequest, asked.id).state == "cancelled"
        assert links.peek(session, facts["cancel"].removeprefix(PAGE), river.now - 2 * workflow.WAIT) is None


def test_asking_twice_is_asking_once(river: River) -> None:
    id = meet_alice(river)
    first = schedule(river, id)
    river.clock.advance(timedelta(hours=1))
    second = schedule(river, id)
    assert (first.id, first.waiting_ends_at) == (second.id, second.waiting_ends_at)
    assert len([mail for mail in river.rows(Mail) if mail.kind == "account_deletion_scheduled"]) == 1


def test_a_report_of_a_childs_data_is_answered_by_the_erasure(river: River) -> None:
    id = meet_alice(river)
    with river.database.transaction() as session:
        report = requests.open_request(session, river.keyring(session), "child", id, "mail", river.now).id
    erase_whole(river, id)
    with river.database.reading() as session:
        assert session.get_one(PrivacyRequest, report).state == "done"
        (other,) = session.execute(select(PrivacyRequest).where(PrivacyRequest.kind == "correct")).scalars()
        assert other.state == "received"


def test_it_is_too_late_to_cancel_once_it_has_begun(river: River) -> None:
    asked = schedule(river, meet_alice(river))
    river.clock.advance(workflow.WAIT)
    run(river, ErasureDependencies(PayPal()))
    with river.database.transaction() as session, pytest.raises(ErasureTooLateError):
        workflow.cancel_erasure(session, asked.id, river.now)


def test_an_operator_can_erase_without_a_wait(river: River) -> None:
    id = meet_alice(river)
    asked = workflow.erase_now(river.database, river.master, river.clock, ErasureDependencies(PayPal()), id, "operator")
    assert asked.state == "running"
    assert river.count(Erasure) == 1
    assert not [mail for mail in river.rows(Mail) if mail.kind == "account_deletion_scheduled"]
