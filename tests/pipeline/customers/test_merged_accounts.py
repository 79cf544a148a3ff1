"""A merge loses no choice and no data, and gives no one the data of another person."""

from datetime import timedelta
from typing import Any

import pytest

from pipeline.customers import accounts, unsubscribe
from pipeline.db.models import Customer, InboundMail, Link, Policy, Subscription
from pipeline.outbox.store import NewMail
from pipeline.outbox.tokens import unsubscribe_token
from pipeline.policy import versions
from pipeline.privacy.erasure import workflow
from pipeline.privacy.erasure.workflow import ErasureDependencies
from pipeline.privacy.export.gather import gather
from tests.pipeline.customers.test_identity import (
    ACTIVATED,
    CANCELLED,
    COMPLETED,
    choose,
    event,
    merged_pair,
    sign_up,
)
from tests.pipeline.inbound_mail.test_intake import receive
from tests.pipeline.inbound_mail.test_report_owner import AWAY, report
from tests.pipeline.privacy.test_retention import run_retention
from tests.support.event_feeder import EventFeeder
from tests.support.example_people import ALICE, BOB
from tests.support.pipeline_under_test import PipelineUnderTest, delivery, happened

SECOND = {"id": BOB.subscription, "custom_id": BOB.custom_id}


@pytest.fixture
def feeder(pipeline: PipelineUnderTest) -> EventFeeder:
    return EventFeeder(pipeline)


def unsubscribe_by_link(pipeline: PipelineUnderTest, mail_id: str) -> None:
    with pipeline.database.transaction() as session:
        keyring = pipeline.keyring(session)
        assert unsubscribe.opt_out(session, keyring, unsubscribe_token(keyring, mail_id), pipeline.now, "one-click")


def announcement(pipeline: PipelineUnderTest, customer: str) -> str:
    [id] = pipeline.owe(NewMail("product_news", f"news:{customer}", None, {}, customer_id=customer))
    return id


def customer(pipeline: PipelineUnderTest, id: str) -> Customer:
    return next(row for row in pipeline.rows(Customer) if row.id == id)


def two_accounts(feeder: EventFeeder) -> tuple[str, str]:
    """Sign up twice with one address. Only the first account is established yet, so nothing is merged."""
    first = sign_up(feeder.pipeline, ALICE.email, ALICE.custom_id)
    feeder.hear(event(ACTIVATED))
    feeder.pipeline.clock.advance(timedelta(days=1))
    return first, sign_up(feeder.pipeline, ALICE.email, BOB.custom_id)


@pytest.mark.parametrize("by", [0, 1], ids=["earlier account", "later account"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_opt_out_of_either_account_counts_after_the_merge(feeder: EventFeeder, by: int, moment: str) -> None:
    pipeline, ids = feeder.pipeline, two_accounts(feeder)
    for id in ids:
        choose(pipeline, id, given=True)
    pipeline.clock.advance(timedelta(hours=1))
    mail = announcement(pipeline, ids[by])
    if moment == "before":
        unsubscribe_by_link(pipeline, mail)
    feeder.hear(event(ACTIVATED, SECOND))
    if moment == "after":
        unsubscribe_by_link(pipeline, mail)
    assert customer(pipeline, ids[1]).merged_into == ids[0]
    assert customer(pipeline, ids[0]).wants_marketing is False


def test_export_of_the_remaining_account_contains_everything_of_the_merged_one(feeder: EventFeeder) -> None:
    pipeline, (kept, merged) = feeder.pipeline, two_accounts(feeder)
    mail = announcement(pipeline, merged)
    with pipeline.database.transaction() as session:
        encrypted = (
            pipeline.keyring(session).system_key(merged).encrypt("inbound_mail.content", b"Hello from the second")
        )
        row = {"kind": "support", "content": encrypted, "received_at": pipeline.now}
        session.add(InboundMail(id="OF-MERGED", customer_id=merged, key_id=merged, **row))
    order = {"purchase_units": [{"custom_id": BOB.custom_id}], "payer": {"payer_id": ALICE.payer_id}}
    pipeline.store(delivery(happened("WH-ORDER", "CHECKOUT.ORDER.APPROVED", resource=order)))
    feeder.hear(event(ACTIVATED, SECOND))
    files: dict[str, bytes] = {}
    with pipeline.database.reading() as session:
        data = gather(session, pipeline.keyring(session), kept, files.__setitem__)
    assert mail in {row["id"] for row in data["mails"]}
    assert files["letters/OF-MERGED.eml"] == b"Hello from the second"
    assert "WH-ORDER" in {row["id"] for row in data["events"]}
    assert {row["id"] for row in data["subscriptions"]} == {ALICE.subscription, BOB.subscription}
    consents = [row["kind"] for row in data["consents"]]
    assert consents.count("adult") == 2
    assert {row["customer_id"] for row in data["links"]} == {kept, merged}
    assert {row["details"]["email"] for row in data["links"] if row["purpose"] == "confirm_email"} == {ALICE.email}
    with pipeline.database.reading() as session, pytest.raises(accounts.CustomerNotFoundError, match="merged into"):
        gather(session, pipeline.keyring(session), merged, files.__setitem__)


def test_notice_of_a_new_policy_goes_to_the_remaining_account_only(feeder: EventFeeder) -> None:
    pipeline, (kept, merged) = feeder.pipeline, merged_pair(feeder)
    row = Policy(id="2031-01-01", proposed_at=pipeline.now)
    with pipeline.database.reading() as session:
        concerned = list(session.execute(versions._unnotified(row)).scalars())
    assert kept in concerned
    assert merged not in concerned


def test_out_of_office_reply_to_a_mail_of_the_merged_account_stays_with_that_person(feeder: EventFeeder) -> None:
    pipeline, (kept, merged) = feeder.pipeline, two_accounts(feeder)
    mail = announcement(pipeline, merged)
    feeder.hear(event(ACTIVATED, SECOND))
    stranger = {"id": "I-STRANGER0001", "custom_id": "customer-0099", "subscriber.payer_id": "STRANGERPAYER"}
    feeder.hear(event(ACTIVATED, stranger | {"subscriber.email_address": "ada@private.example.net"}))
    filed = receive(pipeline, report(AWAY, mail))
    assert filed.customer_id == kept
    other = next(row.customer_id for row in pipeline.rows(Subscription) if row.id == "I-STRANGER0001")
    with pipeline.database.reading() as session:
        data = gather(session, pipeline.keyring(session), str(other), lambda *_: None)
    assert data["letters"] == []


def test_retention_keeps_the_account_of_a_customer_who_pays_by_the_merged_one(feeder: EventFeeder) -> None:
    pipeline, (kept, _) = feeder.pipeline, merged_pair(feeder)
    feeder.hear(event(CANCELLED), event(CANCELLED, SECOND))
    pipeline.clock.advance(timedelta(days=900))
    feeder.hear(event(COMPLETED, _sale(pipeline.now.isoformat())))
    run_retention(pipeline)
    assert customer(pipeline, kept).erased_at is None
    assert accounts_of(pipeline) == {kept}


def _sale(at: str) -> dict[str, Any]:
    times = {"create_time": at, "update_time": at}
    return {"id": "SALE9000000000009", "billing_agreement_id": BOB.subscription, "custom": BOB.custom_id} | times


def accounts_of(pipeline: PipelineUnderTest) -> set[str]:
    return {str(row.customer_id) for row in pipeline.rows(Subscription)}


def test_erasure_deletes_the_links_of_the_merged_account(feeder: EventFeeder) -> None:
    pipeline, (kept, merged) = feeder.pipeline, merged_pair(feeder)
    assert merged in {row.customer_id for row in pipeline.rows(Link)}
    feeder.hear(event(CANCELLED), event(CANCELLED, SECOND))
    workflow.erase_now(pipeline.database, pipeline.master, pipeline.clock, ErasureDependencies(), kept, "operator")
    assert [row.customer_id for row in pipeline.rows(Link)] == []
