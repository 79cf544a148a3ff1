"""A person is erased: after a wait, everywhere, for good; the books stay right, and nobody comes back."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from handlers import HANDLERS
from pipeline.crypto import rotation
from pipeline.crypto.keyring import Keyring
from pipeline.customers import accounts, links
from pipeline.customers.product_hook import Product, ProductDown
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
from pipeline.privacy import requests
from pipeline.privacy.erasure import workflow as erase
from pipeline.privacy.erasure.workflow import Outside, TooLate
from tests.support.example_people import ALICE, BOB
from tests.support.pipeline_under_test import River, delivery
from tests.support.sample_events import sample

PAGE = "https://billing.example.com/keep/"
SOLD, REFUNDED = "PAYMENT.SALE.COMPLETED", "PAYMENT.SALE.REFUNDED"
BOUGHT = ("BILLING.SUBSCRIPTION.ACTIVATED", SOLD)
BOOKS: tuple[type[Base], ...] = (Payment, Refund, StatusHistoryEntry)


class PayPal:
    """What PayPal was asked to end; refuses as often as it is told to."""

    def __init__(self, refusals: int = 0) -> None:
        self.cancelled: list[str] = []
        self.refusals = refusals

    def cancel_subscription(self, id: str, reason: str) -> None:
        if self.refusals:
            self.refusals -= 1
            raise ConnectionError("away")
        self.cancelled.append(id)


class Told(Product):
    """A product in memory: what it was told; refuses as often as `refusals` has words."""

    there = True

    def __init__(self, refusals: Sequence[str] = ()) -> None:
        super().__init__()
        object.__setattr__(self, "said", [])
        object.__setattr__(self, "left", list(refusals))

    def tell(self, action: str, customer: Any) -> bytes:
        if self.left:  # type: ignore[attr-defined]
            raise ProductDown(self.left.pop())  # type: ignore[attr-defined]
        self.said.append({"action": action, **customer})  # type: ignore[attr-defined]
        return b""


def tell(river: River, *events: dict[str, Any]) -> None:
    ids = [item.event_id for item in river.store(*[delivery(event) for event in events])]
    river.worker(HANDLERS).handle(ids)


def meet_alice(river: River) -> str:
    """Alice has bought, been refunded, been written to and written; her customer id."""
    tell(river, *[sample(kind) for kind in BOUGHT], sample(REFUNDED))
    [row] = river.rows(Customer)
    with river.database.transaction() as session:
        ring = river.keyring(session)
        accounts.correct(session, ring, row.id, "name", "Alice Newname", river.now)
        letter = ring.own(row.id).seal("inbound_mail.content", b"From: alice@example.com\r\n\r\nHello")
        session.add(
            InboundMail(
                id="L1", customer_id=row.id, key_id=row.id, kind="support", content=letter, received_at=river.now
            )
        )
        links.make(session, ring, row.id, "account", river.now, details={"email": ALICE.email})
        requests.open_(session, ring, "correct", row.id, "page", river.now, details={"name": "Alice Newname"})
    return row.id


def schedule(river: River, id: str, **more: Any) -> PrivacyRequest:
    with river.database.transaction() as session:
        return erase.schedule(session, river.keyring(session), id, river.now, "page", page=PAGE, **more)


def run(river: River, outside: Outside) -> int:
    return erase.run_due(river.database, river.master, river.clock, outside)


def erase_whole(river: River, id: str, outside: Outside | None = None) -> PrivacyRequest:
    """Wait, erase, send the confirmation, finish."""
    outside = outside or Outside(PayPal())
    asked = schedule(river, id)
    river.clock.advance(erase.WAIT)
    assert run(river, outside) == 1
    confirm(river, asked)
    assert run(river, outside) == 1
    with river.database.reading() as session:
        return session.get_one(PrivacyRequest, asked.id)


def confirm(river: River, asked: PrivacyRequest) -> None:
    """The relay takes the confirmation."""
    mail = river.mails()[f"account_deleted:{asked.id}"]
    river.set(mail, state="sent", sent_at=river.now, due_at=None, relay_reply=f"250 2.1.5 <{ALICE.email}> ok")


def test_nothing_happens_before_the_waiting_period_is_over(river: River) -> None:
    asked = schedule(river, meet_alice(river))
    paypal = PayPal()
    river.clock.advance(erase.WAIT - timedelta(seconds=1))
    assert run(river, Outside(paypal)) == 0
    assert (asked.state, paypal.cancelled, river.count(Erasure)) == ("waiting", [], 0)
    assert river.rows(Customer)[0].erase_at == asked.waiting_ends_at


def test_the_mail_about_it_has_a_link_that_cancels_it(river: River) -> None:
    id = meet_alice(river)
    asked = schedule(river, id)
    mail = river.mails()[f"account_deletion_scheduled:{asked.id}"]
    with river.database.transaction() as session:
        ring = river.keyring(session)
        facts = ring.own(mail.key_id).open_json("mail.facts", mail.facts)
        link = links.look(session, facts["cancel"].removeprefix(PAGE), river.now)
        assert link
        assert (link.purpose, link.request_id) == ("cancel_erase", asked.id)
        erase.cancel(session, ring, asked.id, river.now)
    river.clock.advance(2 * erase.WAIT)
    assert run(river, Outside(PayPal())) == 0
    assert river.rows(Customer)[0].erase_at is None
    with river.database.transaction() as session:
        assert session.get_one(PrivacyRequest, asked.id).state == "cancelled"
        assert links.look(session, facts["cancel"].removeprefix(PAGE), river.now - 2 * erase.WAIT) is None


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
        report = requests.open_(session, river.keyring(session), "child", id, "mail", river.now).id
    erase_whole(river, id)
    with river.database.reading() as session:
        assert session.get_one(PrivacyRequest, report).state == "done"
        (other,) = session.execute(select(PrivacyRequest).where(PrivacyRequest.kind == "correct")).scalars()
        assert other.state == "received"


def test_it_is_too_late_to_cancel_once_it_has_begun(river: River) -> None:
    asked = schedule(river, meet_alice(river))
    river.clock.advance(erase.WAIT)
    run(river, Outside(PayPal()))
    with river.database.transaction() as session, pytest.raises(TooLate):
        erase.cancel(session, river.keyring(session), asked.id, river.now)


def test_everything_sealed_is_gone_and_every_key_is_destroyed(river: River) -> None:
    id = meet_alice(river)
    erase_whole(river, id)
    assert [
        row.key_id for row in river.rows(EncryptionKey) if row.wrapped_key and not row.key_id.startswith("smt:")
    ] == []
    for table in (Event, Mail, Subscription, Customer, PrivacyRequest):
        for row in river.rows(table):
            sealed = {"personal_data", "body", "email_hash", "facts", "recipient", "frozen", "relay_reply", "details"}
            names = sealed & {column.name for column in table.__table__.columns}
            left = {name for name in names if isinstance(getattr(row, name), bytes | str)}
            assert left == set(), f"{table.__tablename__}"
    assert (river.count(InboundMail), river.count(Link)) == (0, 0)
    with river.database.transaction() as session:
        assert accounts.person(session, river.keyring(session), id) == {}
        assert accounts.find(session, river.keyring(session), ALICE.email) == []


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
        assert accounts.person(session, river.keyring(session), his)["email"] == BOB.email


def test_the_running_subscription_is_cancelled_and_the_product_told_first(river: River) -> None:
    paypal, product = PayPal(), Told()
    erase_whole(river, meet_alice(river), Outside(paypal, product))
    assert paypal.cancelled == [ALICE.subscription]
    assert product.said == [  # type: ignore[attr-defined]
        {"action": "erase", "customer": ALICE.custom_id, "email": ALICE.email}
    ]


def test_a_refusal_of_paypal_or_of_the_product_is_tried_again_and_nothing_is_erased_before(river: River) -> None:
    id = meet_alice(river)
    asked = schedule(river, id)
    river.clock.advance(erase.WAIT)
    outside = Outside(PayPal(refusals=1), Told(["answered 500"]))
    assert [run(river, outside), run(river, outside)] == [0, 0]
    assert river.count(Erasure) == 0
    assert "answered 500" in str(river.rows(PrivacyRequest)[-1].reason) or "answered 500" in reasons(river)
    with river.database.transaction() as session:
        assert accounts.person(session, river.keyring(session), id)["email"] == ALICE.email
    assert run(river, outside) == 1
    confirm(river, asked)
    run(river, outside)
    assert river.count(Erasure) == 1


def test_the_operator_is_told_when_it_takes_long(river: River) -> None:
    asked = schedule(river, meet_alice(river))
    river.clock.advance(erase.WAIT)
    run(river, Outside(PayPal(refusals=9)))
    assert f"erasure_waits:{asked.id}" not in river.mails()
    river.clock.advance(erase.TELL_AFTER)
    run(river, Outside(PayPal(refusals=9)))
    run(river, Outside(PayPal(refusals=9)))
    assert len([key for key in river.mails() if key == f"erasure_waits:{asked.id}"]) == 1


def test_without_credentials_the_operator_is_told_at_once_and_paypals_word_lets_it_go_on(river: River) -> None:
    asked = schedule(river, meet_alice(river))
    river.clock.advance(erase.WAIT)
    assert run(river, Outside()) == 0
    assert f"erasure_waits:{asked.id}" in river.mails()
    assert ALICE.subscription in reasons(river)
    tell(river, sample("BILLING.SUBSCRIPTION.CANCELLED"))
    assert run(river, Outside()) == 1


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


def test_mail_that_was_owed_is_withheld(river: River) -> None:
    id = meet_alice(river)
    owed = [mail.idempotency_key for mail in river.rows(Mail) if mail.state == "queued"]
    assert owed
    erase_whole(river, id)
    assert {river.mails()[key].state for key in owed} == {"withheld"}


def test_the_confirmation_goes_to_the_address_with_a_key_of_its_own_that_dies_with_it(river: River) -> None:
    asked = schedule(river, meet_alice(river))
    river.clock.advance(erase.WAIT)
    run(river, Outside(PayPal(), country="DE"))
    mail = river.mails()[f"account_deleted:{asked.id}"]
    with river.database.transaction() as session:
        facts = river.keyring(session).own(mail.key_id).open_json("mail.facts", mail.facts)
        assert ALICE.email in facts.values()
        assert facts["kept_until"] == "2034-12-31T23:59:59Z"
    assert run(river, Outside(PayPal())) == 0  # it is still on its way
    confirm(river, asked)
    assert run(river, Outside(PayPal())) == 1
    mail = river.mails()[mail.idempotency_key]
    assert (mail.state, mail.facts, mail.recipient, mail.frozen, mail.relay_reply) == ("sent", None, None, None, None)
    assert [row.wrapped_key for row in river.rows(EncryptionKey) if row.key_id == mail.key_id] == [None]
    assert mail.key_id in river.rows(Erasure)[0].key_ids


def test_it_is_not_complete_while_the_key_of_the_confirmation_lives(river: River) -> None:
    asked = schedule(river, meet_alice(river))
    river.clock.advance(erase.WAIT)
    run(river, Outside(PayPal()))
    path = river.folder / "keys" / "master.key"
    assert rotation.rotate(river.database, path, river.now, grace_seconds=0).completed == 0
    with river.database.reading() as session:
        assert not rotation.is_owed(session)
    confirm(river, asked)
    run(river, Outside(PayPal()))
    assert river.rows(Erasure)[0].completed_at is None
    assert rotation.rotate(river.database, path, river.now, grace_seconds=0).completed == 1


def test_an_address_is_not_kept_for_a_confirmation_that_cannot_be_sent(river: River) -> None:
    asked = schedule(river, meet_alice(river))
    river.clock.advance(erase.WAIT)
    run(river, Outside(PayPal()))
    river.clock.advance(erase.GIVE_UP_MAIL)
    assert run(river, Outside(PayPal())) == 1
    mail = river.mails()[f"account_deleted:{asked.id}"]
    assert (mail.state, mail.facts, mail.due_at) == ("withheld", None, None)


def test_the_receipt_says_what_was_done_what_stays_why_and_until_when(river: River) -> None:
    id = meet_alice(river)
    asked = erase_whole(river, id, Outside(PayPal(), Told(), "DE"))
    [erasure] = river.rows(Erasure)
    assert (asked.state, erasure.id, erasure.customer_id) == ("done", asked.id, id)
    assert erasure.master_key_id == river.master.id
    assert erasure.completed_at is None
    receipt = erasure.receipt
    assert receipt["cancelled at PayPal"] == [ALICE.subscription]
    assert receipt["product"] == "told"
    assert receipt["rows"]["inbound_mail"] == {"rows": 1, "action": "deleted"}
    assert receipt["rows"]["event"] == {"rows": 3, "action": "reduced"}
    payment = receipt["rows"]["payment"]
    assert (payment["rows"], payment["until"]) == (1, "2034-12-31T23:59:59Z")
    assert "AO section 147" in payment["basis"]


def test_an_operator_can_erase_without_a_wait(river: River) -> None:
    id = meet_alice(river)
    asked = erase.now(river.database, river.master, river.clock, Outside(PayPal()), id, "operator")
    assert asked.state == "running"
    assert river.count(Erasure) == 1
    assert not [mail for mail in river.rows(Mail) if mail.kind == "account_deletion_scheduled"]


def test_an_event_that_was_being_stored_meanwhile_is_emptied_at_the_end(river: River) -> None:
    asked = schedule(river, meet_alice(river))
    river.clock.advance(erase.WAIT)
    run(river, Outside(PayPal()))
    [first, *_] = river.rows(Event)
    river.set(first, body=b"sealed by a key that was alive a moment ago")
    confirm(river, asked)
    run(river, Outside(PayPal()))
    assert [row.body for row in river.rows(Event)] == [None, None, None]


def test_killed_between_two_steps_it_goes_on_where_it_was(river: River, monkeypatch: pytest.MonkeyPatch) -> None:
    id, paypal = meet_alice(river), PayPal()
    schedule(river, id)
    river.clock.advance(erase.WAIT)
    with monkeypatch.context() as patch:
        patch.setattr(erase, "shred", die)
        with pytest.raises(KeyboardInterrupt):
            run(river, Outside(paypal))
    assert (river.count(Erasure), paypal.cancelled) == (0, [ALICE.subscription])
    assert run(river, Outside(paypal)) == 1
    assert river.count(Erasure) == 1


def test_who_subscribes_anew_is_a_customer_again_of_whom_nothing_of_before_is_known(river: River) -> None:
    id = meet_alice(river)
    asked = schedule(river, id)
    river.clock.advance(erase.WAIT)
    run(river, Outside(PayPal()))
    river.clock.advance(timedelta(days=1))
    begun = river.now.isoformat().replace("+00:00", "Z")
    again = {"id": "I-ANEW00000001", "start_time": begun, "create_time": begun, "update_time": begun}
    tell(
        river, sample(BOUGHT[0], again | {"status_update_time": begun, "subscriber.email_address": "anew@example.com"})
    )
    confirm(river, asked)
    run(river, Outside(PayPal()))
    with river.database.transaction() as session:
        ring = river.keyring(session)
        assert accounts.find(session, ring, "anew@example.com") == [id]
        assert accounts.find(session, ring, ALICE.email) == []
        accounts.correct(session, ring, id, "name", "Alice Anew", river.now)
    old = [row for row in river.rows(Subscription) if row.id == ALICE.subscription]
    assert [(row.personal_data, row.email_hash) for row in old] == [(None, None)]
    second = erase.now(river.database, river.master, river.clock, Outside(PayPal()), id, "operator")
    assert second.id != asked.id
    assert river.count(Erasure) == 2
    assert_nobody(river)


def die(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def reasons(river: River) -> str:
    return " ".join(row.reason or "" for row in river.rows(PrivacyRequest))


def assert_nobody(river: River) -> None:
    assert [row.id for row in river.rows(Event) if row.personal_data or row.body] == []
    assert [row.id for row in river.rows(Subscription) if row.personal_data or row.email_hash] == []
    assert [row.id for row in river.rows(Customer) if row.personal_data or row.email_hash or not row.erased_at] == []
    alive = [row.key_id for row in river.rows(EncryptionKey) if row.wrapped_key and not row.key_id.startswith("smt:")]
    with river.database.transaction() as session:
        held = set(session.execute(select(Event.key_id).where(Event.body.is_not(None))).scalars())
        assert not held & set(alive)
        assert Keyring(river.master, session, river.now).is_erased(ALICE.subscription)


def columns(row: Base) -> dict[str, Any]:
    return {column.name: getattr(row, column.name) for column in row.__table__.columns}
