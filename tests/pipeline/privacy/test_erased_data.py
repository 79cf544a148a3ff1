"""After an erasure everything that names the person is gone, the books are as they were, and nobody comes back."""

from datetime import timedelta
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
    Told,
    assert_nobody,
    confirm,
    erase_whole,
    meet_alice,
    run,
    schedule,
    tell,
)
from tests.support.example_people import ALICE, BOB
from tests.support.pipeline_under_test import River
from tests.support.sample_events import sample

BOOKS: tuple[type[Base], ...] = (Payment, Refund, StatusHistoryEntry)


def test_everything_sealed_is_gone_and_every_key_is_destroyed(river: River) -> None:
    id = meet_alice(river)
    erase_whole(river, id)
    assert [
        row.key_id for row in river.rows(EncryptionKey) if row.wrapped_key and not row.key_id.startswith("smt:")
    ] == []
    for table in (Event, Mail, Subscription, Customer, PrivacyRequest):
        for row in river.rows(table):
            sealed = {"person", "body", "email_hash", "facts", "recipient", "frozen", "reply", "details"}
            names = sealed & {column.name for column in table.__table__.columns}
            left = {name for name in names if isinstance(getattr(row, name), bytes | str)}
            assert left == set(), f"{table.__tablename__}"
    assert (river.count(InboundMail), river.count(Link)) == (0, 0)
    with river.database.transaction() as session:
        assert accounts.personal_data(session, river.keyring(session), id) == {}
        assert accounts.find_by_email(session, river.keyring(session), ALICE.email) == []


def test_the_books_stay_as_they_were(river: River) -> None:
    id = meet_alice(river)
    before = [columns(row) for table in BOOKS for row in river.rows(table)]
    erase_whole(river, id)
    assert [columns(row) for table in BOOKS for row in river.rows(table)] == before
    assert len(before) >= 3


def test_nobody_else_is_touched(river: River) -> None:
    alice = meet_alice(river)
    bob = {
        "id": BOB.subscription, "custom_id": BOB.custom_id, "subscriber.payer_id": BOB.payer_id,
        "subscriber.email_address": BOB.email, "subscriber.name.given_name": "Bob",
    }  # fmt: skip
    tell(river, sample(BOUGHT[0], bob))
    [his] = [row.id for row in river.rows(Customer) if row.id != alice]
    erase_whole(river, alice)
    with river.database.transaction() as session:
        assert accounts.personal_data(session, river.keyring(session), his)["email"] == BOB.email


def test_mail_that_was_owed_is_withheld(river: River) -> None:
    id = meet_alice(river)
    owed = [mail.idempotency_key for mail in river.rows(Mail) if mail.state == "queued"]
    assert owed
    erase_whole(river, id)
    assert {river.mails()[key].state for key in owed} == {"withheld"}


def test_the_receipt_says_what_was_done_what_stays_why_and_until_when(river: River) -> None:
    id = meet_alice(river)
    asked = erase_whole(river, id, ErasureDependencies(PayPal(), Told(), "DE"))
    [erasure] = river.rows(Erasure)
    assert (asked.state, erasure.id, erasure.customer_id) == ("done", asked.id, id)
    assert erasure.master_key_id == river.master.id
    assert erasure.completed_at is None
    receipt = erasure.receipt
    assert receipt["cancelled at PayPal"] == [ALICE.subscription]
    assert receipt["product"] == "told"
    assert receipt["rows"]["letter"] == {"rows": 1, "action": "deleted"}
    assert receipt["rows"]["event"] == {"rows": 3, "action": "reduced"}
    payment = receipt["rows"]["payment"]
    assert (payment["rows"], payment["until"]) == (1, "2034-12-31T23:59:59Z")
    assert "AO section 147" in payment["basis"]


def test_an_event_that_was_being_stored_meanwhile_is_emptied_at_the_end(river: River) -> None:
    asked = schedule(river, meet_alice(river))
    river.clock.advance(workflow.WAIT)
    run(river, ErasureDependencies(PayPal()))
    [first, *_] = river.rows(Event)
    river.set(first, body=b"sealed by a key that was alive a moment ago")
    confirm(river, asked)
    run(river, ErasureDependencies(PayPal()))
    assert [row.body for row in river.rows(Event)] == [None, None, None]


def test_later_events_move_the_books_and_bring_nobody_back(river: River) -> None:
    id = meet_alice(river)
    erase_whole(river, id)
    again = {"id": "9XX00000000000001", "create_time": "2026-03-24T10:00:00Z", "update_time": "2026-03-24T10:00:00Z"}
    tell(river, sample(SOLD, again), sample("BILLING.SUBSCRIPTION.CANCELLED"))
    assert {row.status for row in river.rows(Subscription)} == {"CANCELLED"}
    assert "9XX00000000000001" in {row.id for row in river.rows(Payment)}
    assert_nobody(river)


def test_money_without_a_subscription_brings_an_erased_customer_not_back_either(river: River) -> None:
    id = meet_alice(river)
    erase_whole(river, id)
    alone = sample(SOLD, {"id": "9XX00000000000002", "billing_agreement_id": ""})
    assert alone["resource"]["custom"] == ALICE.custom_id
    tell(river, alone)
    assert_nobody(river)


def test_who_subscribes_anew_is_a_customer_again_of_whom_nothing_of_before_is_known(river: River) -> None:
    id = meet_alice(river)
    asked = schedule(river, id)
    river.clock.advance(workflow.WAIT)
    run(river, ErasureDependencies(PayPal()))
    river.clock.advance(timedelta(days=1))
    begun = river.now.isoformat().replace("+00:00", "Z")
    again = {"id": "I-ANEW00000001", "start_time": begun, "create_time": begun, "update_time": begun}
    tell(
        river, sample(BOUGHT[0], again | {"status_update_time": begun, "subscriber.email_address": "anew@example.com"})
    )
    confirm(river, asked)
    run(river, ErasureDependencies(PayPal()))
    with river.database.transaction() as session:
        ring = river.keyring(session)
        assert accounts.find_by_email(session, ring, "anew@example.com") == [id]
        assert accounts.find_by_email(session, ring, ALICE.email) == []
        accounts.correct_field(session, ring, id, "name", "Alice Anew", river.now)
    old = [row for row in river.rows(Subscription) if row.id == ALICE.subscription]
    assert [(row.personal_data, row.email_hash) for row in old] == [(None, None)]
    second = workflow.erase_now(
        river.database, river.master, river.clock, ErasureDependencies(PayPal()), id, "operator"
    )
    assert second.id != asked.id
    assert river.count(Erasure) == 2
    assert_nobody(river)


def columns(row: Base) -> dict[str, Any]:
    return {column.name: getattr(row, column.name) for column in row.__table__.columns}
