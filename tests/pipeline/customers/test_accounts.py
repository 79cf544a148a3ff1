"""Accounts: entered data overrides PayPal's data, key ids are complete, and consent decides which mail is sent."""

from datetime import timedelta
from typing import Any

import pytest

from handlers import HANDLERS
from pipeline.customers import accounts
from pipeline.customers.accounts import CustomerNotFoundError, InvalidFieldError, SignUpData
from pipeline.db.models import Consent, Customer, Event, Mail, Subscription
from pipeline.outbox import mail_kinds
from pipeline.outbox import store as outbox
from tests.support.example_people import ALICE, CHARLIE
from tests.support.pipeline_under_test import PipelineUnderTest, delivery, happened
from tests.support.sample_events import GONE, renamed, sample

ADA = SignUpData("Ada Example", "ada@example.com", "Example Works", "+1 555 0100")
ACTIVATED, COMPLETED = "BILLING.SUBSCRIPTION.ACTIVATED", "PAYMENT.SALE.COMPLETED"


def sign_up(
    pipeline: PipelineUnderTest, person: SignUpData = ADA, *, custom: str | None = None, news: bool = False
) -> str:
    with pipeline.database.transaction() as session:
        return accounts.create_account(
            session, pipeline.keyring(session), person,
            adult_text="2026-01", news=news, now=pipeline.now, source="sign-up", custom=custom,
        )  # fmt: skip


def confirm(pipeline: PipelineUnderTest, id: str) -> None:
    """Confirm the address that was entered at sign-up."""
    with pipeline.database.transaction() as session:
        accounts.confirm_entered_address(session, pipeline.keyring(session), id, pipeline.now)


def receive(pipeline: PipelineUnderTest, *events: dict[str, Any]) -> None:
    """Store and handle events from PayPal."""
    stored = pipeline.store(*[delivery(event) for event in events])
    pipeline.worker(HANDLERS).handle([each.event_id for each in stored])


def person(pipeline: PipelineUnderTest, id: str) -> dict[str, str]:
    with pipeline.database.transaction() as session:
        return accounts.personal_data(session, pipeline.keyring(session), id)


def key_ids(pipeline: PipelineUnderTest, id: str) -> list[str]:
    with pipeline.database.reading() as session:
        return accounts.key_ids_of(session, id)


def find(pipeline: PipelineUnderTest, email: str) -> list[str]:
    with pipeline.database.transaction() as session:
        return accounts.find_by_email(session, pipeline.keyring(session), email)


def correct(pipeline: PipelineUnderTest, id: str, field: accounts.Field, value: str) -> str | None:
    with pipeline.database.transaction() as session:
        return accounts.correct_field(session, pipeline.keyring(session), id, field, value, pipeline.now)


def owner(pipeline: PipelineUnderTest, of: str = ALICE.subscription) -> str:
    """Return the customer of a subscription that PayPal reported."""
    [id] = [row.customer_id for row in pipeline.rows(Subscription) if row.id == of]
    assert id
    return id


# Identity


def test_sign_up_encrypts_data_and_customer_is_found(pipeline: PipelineUnderTest) -> None:
    id = sign_up(pipeline)
    known = person(pipeline, id)
    assert known.pop("custom")
    assert known == {"name": ADA.name, "entered_email": ADA.email, "company": ADA.company, "phone": ADA.phone}
    assert find(pipeline, ADA.email) == [], "nobody has confirmed the address"
    confirm(pipeline, id)
    assert find(pipeline, " ADA@example.com ") == [id]
    [row] = pipeline.rows(Customer)
    assert (row.adult_confirmed_at, row.adult_text_version, row.signed_up_at) == (pipeline.now, "2026-01", pipeline.now)
    assert b"Ada" not in (row.personal_data or b"")
    assert {(each.kind, each.given, each.source) for each in pipeline.rows(Consent)} == {
        ("adult", True, "sign-up"), ("marketing", False, "sign-up"),
    }  # fmt: skip


def test_ticked_box_is_stored_but_is_no_consent(pipeline: PipelineUnderTest) -> None:
    sign_up(pipeline, news=True)
    assert not pipeline.rows(Customer)[0].wants_marketing
    assert {(each.kind, each.given) for each in pipeline.rows(Consent)} == {("adult", True), ("marketing_asked", True)}


def test_same_custom_id_creates_one_account(pipeline: PipelineUnderTest) -> None:
    assert sign_up(pipeline, custom="ours-17") == sign_up(pipeline, custom="ours-17")
    assert sign_up(pipeline, custom="ours-18") != sign_up(pipeline, custom="ours-17")
    assert len(pipeline.rows(Customer)) == 2


def test_custom_id_links_sign_up_to_subscription(pipeline: PipelineUnderTest) -> None:
    id = sign_up(pipeline, custom=ALICE.custom_id)
    receive(pipeline, sample(ACTIVATED))
    assert owner(pipeline) == id
    known = person(pipeline, id)
    assert (known["name"], known["email"], known["payer"]) == (ADA.name, ALICE.email, ALICE.payer_id)
    assert (find(pipeline, ALICE.email), find(pipeline, ADA.email)) == ([id], [])
    confirm(pipeline, id)
    assert person(pipeline, id)["email"] == ADA.email
    assert (find(pipeline, ALICE.email), find(pipeline, ADA.email)) == ([], [id]), "the confirmed address counts"


def test_customer_without_sign_up_has_paypal_data(pipeline: PipelineUnderTest) -> None:
    receive(pipeline, sample(ACTIVATED))
    known = person(pipeline, owner(pipeline))
    assert (known["name"], known["email"]) == ("Alice Andersson", ALICE.email)
    assert find(pipeline, ALICE.email) == [owner(pipeline)]
    assert find(pipeline, "unknown@example.com") == []


def test_unknown_id_has_no_personal_data(pipeline: PipelineUnderTest) -> None:
    assert person(pipeline, "c1") == {}
    with pytest.raises(CustomerNotFoundError):
        correct(pipeline, "c1", "name", "Ada")


@pytest.mark.parametrize(
    ("field", "value"),
    [("email", "not an address"), ("email", ""), ("name", " "), ("name", "x" * 101), ("phone", "call me")],
)
def test_error_about_invalid_field_does_not_quote_value(
    sqlite_pipeline: PipelineUnderTest, field: accounts.Field, value: str
) -> None:
    with pytest.raises(InvalidFieldError) as refused:
        correct(sqlite_pipeline, sign_up(sqlite_pipeline), field, value)
    assert refused.value.field == field
    assert not value.strip() or value not in str(refused.value)


# Corrections


def test_correction_overrides_later_paypal_data(pipeline: PipelineUnderTest) -> None:
    receive(pipeline, sample(ACTIVATED))
    id = owner(pipeline)
    assert correct(pipeline, id, "email", "new@example.com") == ALICE.email
    pipeline.clock.advance(timedelta(days=1))
    later = {"subscriber.email_address": "old@example.com", "update_time": "2027-01-01T00:00:00Z"}
    receive(pipeline, sample(ACTIVATED, later))
    assert person(pipeline, id)["email"] == "new@example.com"
    assert find(pipeline, "new@example.com") == [id]
    assert find(pipeline, ALICE.email) == find(pipeline, "old@example.com") == [], (
        "the address may belong to another person"
    )


def test_confirmed_value_overrides_later_paypal_data(pipeline: PipelineUnderTest) -> None:
    receive(pipeline, sample(ACTIVATED))
    assert correct(pipeline, owner(pipeline), "email", ALICE.email) == ALICE.email
    receive(
        pipeline,
        sample(ACTIVATED, {"subscriber.email_address": "b@example.com", "update_time": "2027-01-01T00:00:00Z"}),
    )
    assert person(pipeline, owner(pipeline))["email"] == ALICE.email
    assert "email_changed" not in {row.kind for row in pipeline.rows(Mail)}, "the address did not change"


def test_address_change_sends_mail_to_both_addresses(pipeline: PipelineUnderTest) -> None:
    id = sign_up(pipeline)
    confirm(pipeline, id)
    assert correct(pipeline, id, "email", "new@example.com") == ADA.email
    changed = [row for row in pipeline.rows(Mail) if row.kind == "email_changed"]
    with pipeline.database.transaction() as session:
        data_key = pipeline.keyring(session).system_key(id)
        facts = [data_key.decrypt_json("mail.facts", row.facts) for row in changed]
    assert {(each[outbox.ADDRESS_OVERRIDE], each["is_old"]) for each in facts} == {
        (ADA.email, True),
        ("new@example.com", False),
    }
    assert all(row.customer_id == row.key_id == id for row in changed)


def test_corrected_name_or_phone_sends_no_mail(pipeline: PipelineUnderTest) -> None:
    id = sign_up(pipeline)
    assert correct(pipeline, id, "name", "Ada Lovelace") == ADA.name
    assert correct(pipeline, id, "phone", "") == ADA.phone
    assert (person(pipeline, id)["name"], person(pipeline, id)["phone"]) == ("Ada Lovelace", "")
    assert pipeline.rows(Mail) == []


def test_mail_without_address_is_due_after_correction(pipeline: PipelineUnderTest) -> None:
    receive(pipeline, sample(ACTIVATED, {"subscriber.email_address": GONE}))
    assert [(row.state, row.due_at) for row in pipeline.rows(Mail)] == [("queued", None)]
    correct(pipeline, owner(pipeline), "email", "new@example.com")
    assert {row.due_at for row in pipeline.rows(Mail)} == {pipeline.now}


@pytest.mark.parametrize("is_confirmed", [True, False])
def test_mail_waits_until_the_address_from_sign_up_is_confirmed(
    pipeline: PipelineUnderTest, is_confirmed: bool
) -> None:
    id = sign_up(pipeline, custom=ALICE.custom_id)
    if is_confirmed:
        confirm(pipeline, id)
    receive(pipeline, sample(ACTIVATED, {"subscriber.email_address": GONE}))
    due = pipeline.now if is_confirmed else None
    assert [(row.state, row.due_at) for row in pipeline.rows(Mail)] == [("queued", due)]


# Key ids


def test_customer_owns_subscription_and_its_sales(pipeline: PipelineUnderTest) -> None:
    receive(pipeline, sample(ACTIVATED), sample(COMPLETED))
    sale = sample(COMPLETED)["resource"]["id"]
    assert key_ids(pipeline, owner(pipeline)) == [owner(pipeline), ALICE.subscription, f"sale:{sale}"]


def test_customer_owns_refund_event_without_sale(pipeline: PipelineUnderTest) -> None:
    receive(pipeline, sample(ACTIVATED), sample(COMPLETED))
    sale, refund = sample(COMPLETED)["resource"]["id"], "9RF51924877811803"
    receive(pipeline, sample("PAYMENT.SALE.REFUNDED", {"id": refund, "sale_id": sale}))
    without_sale = sample("PAYMENT.SALE.REVERSED", {"id": refund})
    pipeline.store(delivery(without_sale))
    assert f"event:{without_sale['id']}" in key_ids(pipeline, owner(pipeline))


def test_event_without_subscription_belongs_to_named_customer(pipeline: PipelineUnderTest) -> None:
    receive(pipeline, sample(ACTIVATED))
    order = {"payer": {"payer_id": ALICE.payer_id}, "purchase_units": [{"custom_id": "ORDER-1001"}]}
    pipeline.store(delivery(happened("WH-ORDER", "CHECKOUT.ORDER.APPROVED", resource=order)))
    pipeline.store(
        delivery(happened("WH-OTHER", "CHECKOUT.ORDER.APPROVED", resource={"payer": {"payer_id": "OTHER77"}}))
    )
    assert "event:WH-ORDER" in key_ids(pipeline, owner(pipeline)), (
        "found by the PayPal account that pays for the subscription"
    )
    assert "event:WH-OTHER" not in key_ids(pipeline, owner(pipeline))


def test_order_belongs_to_its_custom_id_not_its_payer(pipeline: PipelineUnderTest) -> None:
    receive(pipeline, sample(ACTIVATED))
    other = sign_up(pipeline, custom="ours-18")
    order = {"payer": {"payer_id": ALICE.payer_id}, "purchase_units": [{"custom_id": "ours-18"}]}
    pipeline.store(delivery(happened("WH-ORDER", "CHECKOUT.ORDER.APPROVED", resource=order)))
    assert "event:WH-ORDER" in key_ids(pipeline, other)
    assert "event:WH-ORDER" not in key_ids(pipeline, owner(pipeline))


def test_customer_without_custom_id_owns_events_by_payer(pipeline: PipelineUnderTest) -> None:
    activated = renamed(sample(ACTIVATED, {
        "id": CHARLIE.subscription, "custom_id": GONE, "subscriber.payer_id": CHARLIE.payer_id,
    }))  # fmt: skip
    receive(pipeline, activated)
    pipeline.store(delivery(happened("WH-ORDER", resource={"payer": {"payer_id": CHARLIE.payer_id}})))
    id = owner(pipeline, CHARLIE.subscription)
    assert id.startswith("p")
    assert key_ids(pipeline, id) == [id, CHARLIE.subscription, "event:WH-ORDER"]
    assert {row.customer_id for row in pipeline.rows(Event)} == {None, id}


# Consent


@pytest.mark.parametrize("kind", ["marketing", "service"])
def test_consent_takes_effect_immediately_and_is_stored(
    pipeline: PipelineUnderTest, kind: accounts.ConsentKind
) -> None:
    id = sign_up(pipeline)
    with pipeline.database.transaction() as session:
        accounts.record_consent(
            session, id, kind, given=True, source="account page", text_version="2026-01", now=pipeline.now
        )
    assert getattr(pipeline.rows(Customer)[0], accounts.CHOICES[kind].key) is True
    pipeline.clock.advance(timedelta(days=1))
    with pipeline.database.transaction() as session:
        accounts.record_consent(
            session, id, kind, given=False, source="account page", text_version="2026-01", now=pipeline.now
        )
    [row] = pipeline.rows(Customer)
    assert getattr(row, accounts.CHOICES[kind].key) is False
    last = pipeline.rows(Consent)[-1]
    assert (last.kind, last.given, last.at, last.source) == (kind, False, pipeline.now, "account page")


@pytest.mark.parametrize("kind", ["receipt", "privacy_request_received"])
@pytest.mark.parametrize("wants", [True, False])
def test_required_mail_cannot_be_declined(kind: str, wants: bool) -> None:
    assert mail_kinds.suppression_reason(kind, marketing=wants, service=wants) is None
    assert not mail_kinds.is_optional(kind)


def test_marketing_mail_needs_consent() -> None:
    assert mail_kinds.suppression_reason("product_news", marketing=True, service=False) is None
    assert "not opted in" in str(mail_kinds.suppression_reason("product_news", marketing=False, service=True))


def test_every_mail_has_a_registered_purpose() -> None:
    assert {use.purpose for use in mail_kinds.MAILS.values()} <= mail_kinds.PURPOSES.keys()


# Incoming events


def test_sign_up_and_event_compute_the_same_customer_id(pipeline: PipelineUnderTest) -> None:
    id = sign_up(pipeline, custom="ours-17")
    pipeline.store(delivery(happened("WH-1", resource={"custom_id": "ours-17"})))
    assert pipeline.event("WH-1").customer_id == id


def test_sign_up_with_address_of_another_person_is_not_found(pipeline: PipelineUnderTest) -> None:
    receive(pipeline, sample(ACTIVATED))
    for _ in range(3):
        sign_up(pipeline, SignUpData("Mallory Example", ALICE.email))
    assert find(pipeline, ALICE.email) == [owner(pipeline)]
