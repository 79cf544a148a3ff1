"""After an erasure no personal data is left, billing records are unchanged, and later events restore nothing."""

from datetime import UTC, datetime, timedelta
from typing import Any

from pipeline.customers import accounts
from pipeline.db.models import (
    Base,
    Customer,
    EncryptionKey,
    Erasure,
    Event,
    InboundMail,
    Link,
    Mail,
    Payment,
    PrivacyRequest,
    Refund,
    StatusHistoryEntry,
    Subscription,
)
from pipeline.privacy.erasure import workflow
from pipeline.privacy.erasure.workflow import ErasureDependencies
from tests.pipeline.privacy.erased_customer import (
    BOUGHT,
    SOLD,
    PayPal,
    RecordingProduct,
    assert_erased,
    confirm,
    create_alice,
    erase_completely,
    receive,
    run,
    schedule,
)
from tests.support.example_people import ALICE, BOB
from tests.support.pipeline_under_test import PipelineUnderTest
from tests.support.sample_events import sample

BILLING_TABLES: tuple[type[Base], ...] = (Payment, Refund, StatusHistoryEntry)


def test_encrypted_data_and_keys_are_gone(pipeline: PipelineUnderTest) -> None:
    id = create_alice(pipeline)
    erase_completely(pipeline, id)
    assert [
        row.key_id for row in pipeline.rows(EncryptionKey) if row.wrapped_key and not row.key_id.startswith("smt:")
    ] == []
    for table in (Event, Mail, Subscription, Customer, PrivacyRequest):
        for row in pipeline.rows(table):
            personal = {"personal_data", "body", "email_hash", "facts", "recipient", "frozen", "relay_reply", "details"}
            names = personal & {column.name for column in table.__table__.columns}
            left = {name for name in names if isinstance(getattr(row, name), bytes | str)}
            assert left == set(), f"{table.__tablename__}"
    assert (pipeline.count(InboundMail), pipeline.count(Link)) == (0, 0)
    with pipeline.database.transaction() as session:
        assert accounts.personal_data(session, pipeline.keyring(session), id) == {}
        assert accounts.find_by_email(session, pipeline.keyring(session), ALICE.email) == []


def test_billing_records_are_unchanged(pipeline: PipelineUnderTest) -> None:
    id = create_alice(pipeline)
    before = [columns(row) for table in BILLING_TABLES for row in pipeline.rows(table)]
    erase_completely(pipeline, id)
    assert [columns(row) for table in BILLING_TABLES for row in pipeline.rows(table)] == before
    assert len(before) >= 3


def test_other_customers_are_unchanged(pipeline: PipelineUnderTest) -> None:
    alice = create_alice(pipeline)
    bob = {
        "id": BOB.subscription, "custom_id": BOB.custom_id, "subscriber.payer_id": BOB.payer_id,
        "subscriber.email_address": BOB.email, "subscriber.name.given_name": "Bob",
    }  # fmt: skip
    receive(pipeline, sample(BOUGHT[0], bob))
    [bob_id] = [row.id for row in pipeline.rows(Customer) if row.id != alice]
    erase_completely(pipeline, alice)
    with pipeline.database.transaction() as session:
        assert accounts.personal_data(session, pipeline.keyring(session), bob_id)["email"] == BOB.email


def test_queued_mail_is_withheld(pipeline: PipelineUnderTest) -> None:
    id = create_alice(pipeline)
    queued = [mail.idempotency_key for mail in pipeline.rows(Mail) if mail.state == "queued"]
    assert queued
    erase_completely(pipeline, id)
    assert {pipeline.mails()[key].state for key in queued} == {"withheld"}


def test_receipt_states_actions_and_kept_rows(pipeline: PipelineUnderTest) -> None:
    id = create_alice(pipeline)
    request = erase_completely(pipeline, id, ErasureDependencies(PayPal(), RecordingProduct(), "DE"))
    [erasure] = pipeline.rows(Erasure)
    assert (request.state, erasure.id, erasure.customer_id) == ("done", request.id, id)
    assert erasure.master_key_id == pipeline.master.id
    assert erasure.completed_at is None
    receipt = erasure.receipt
    assert receipt["cancelled at PayPal"] == [ALICE.subscription]
    assert receipt["product"] == "notified"
    assert receipt["rows"]["inbound_mail"] == {"rows": 1, "action": "deleted"}
    assert receipt["rows"]["event"] == {"rows": 3, "action": "reduced"}
    payment = receipt["rows"]["payment"]
    assert (payment["rows"], payment["until"]) == (1, "2034-12-31T23:59:59Z")
    assert "AO section 147" in payment["basis"]


def test_event_stored_during_erasure_is_emptied(pipeline: PipelineUnderTest) -> None:
    request = schedule(pipeline, create_alice(pipeline))
    pipeline.clock.advance(workflow.WAIT)
    run(pipeline, ErasureDependencies(PayPal()))
    [first, *_] = pipeline.rows(Event)
    pipeline.set(first, body=b"encrypted with a key that was destroyed afterwards")
    confirm(pipeline, request)
    run(pipeline, ErasureDependencies(PayPal()))
    assert [row.body for row in pipeline.rows(Event)] == [None, None, None]


def test_later_events_update_billing_without_personal_data(pipeline: PipelineUnderTest) -> None:
    id = create_alice(pipeline)
    erase_completely(pipeline, id)
    again = {"id": "9XX00000000000001", "create_time": "2026-03-24T10:00:00Z", "update_time": "2026-03-24T10:00:00Z"}
    pipeline.clock.move_to(datetime(2026, 3, 24, 10, 1, tzinfo=UTC))
    receive(pipeline, sample(SOLD, again), sample("BILLING.SUBSCRIPTION.CANCELLED"))
    assert {row.status for row in pipeline.rows(Subscription)} == {"CANCELLED"}
    assert "9XX00000000000001" in {row.id for row in pipeline.rows(Payment)}
    assert_erased(pipeline)


def test_later_payment_without_subscription_restores_nothing(pipeline: PipelineUnderTest) -> None:
    id = create_alice(pipeline)
    erase_completely(pipeline, id)
    alone = sample(SOLD, {"id": "9XX00000000000002", "billing_agreement_id": ""})
    assert alone["resource"]["custom"] == ALICE.custom_id
    receive(pipeline, alone)
    assert_erased(pipeline)


def test_new_subscription_after_erasure_has_no_earlier_data(pipeline: PipelineUnderTest) -> None:
    id = create_alice(pipeline)
    request = schedule(pipeline, id)
    pipeline.clock.advance(workflow.WAIT)
    run(pipeline, ErasureDependencies(PayPal()))
    pipeline.clock.advance(timedelta(days=1))
    begun = pipeline.now.isoformat().replace("+00:00", "Z")
    again = {"id": "I-AGAIN0000001", "start_time": begun, "create_time": begun, "update_time": begun}
    receive(
        pipeline,
        sample(BOUGHT[0], again | {"status_update_time": begun, "subscriber.email_address": "again@example.com"}),
    )
    confirm(pipeline, request)
    run(pipeline, ErasureDependencies(PayPal()))
    with pipeline.database.transaction() as session:
        keyring = pipeline.keyring(session)
        assert accounts.find_by_email(session, keyring, "again@example.com") == [id]
        assert accounts.find_by_email(session, keyring, ALICE.email) == []
        accounts.correct_field(session, keyring, id, "name", "Alice Again", pipeline.now)
    old = [row for row in pipeline.rows(Subscription) if row.id == ALICE.subscription]
    assert [(row.personal_data, row.email_hash) for row in old] == [(None, None)]
    second = workflow.erase_now(
        pipeline.database, pipeline.master, pipeline.clock, ErasureDependencies(PayPal()), id, "operator"
    )
    assert second.id != request.id
    assert pipeline.count(Erasure) == 2
    assert_erased(pipeline)


def columns(row: Base) -> dict[str, Any]:
    return {column.name: getattr(row, column.name) for column in row.__table__.columns}
