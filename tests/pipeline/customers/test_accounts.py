"""Customers as people: what they told outranks PayPal, all that is theirs is found, and what they declined is not sent."""

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
from tests.support.pipeline_under_test import River, delivery, happened
from tests.support.sample_events import GONE, renamed, sample

ADA = SignUpData("Ada Example", "ada@example.com", "Example Works", "+1 555 0100")
ACTIVATED, COMPLETED = "BILLING.SUBSCRIPTION.ACTIVATED", "PAYMENT.SALE.COMPLETED"


def sign_up(river: River, person: SignUpData = ADA, *, custom: str | None = None, news: bool = False) -> str:
    with river.database.transaction() as session:
        return accounts.create_account(
            session, river.keyring(session), person,
            adult_text="2026-01", news=news, now=river.now, source="sign-up", custom=custom,
        )  # fmt: skip


def tell(river: River, *events: dict[str, Any]) -> None:
    """PayPal's events, taken in and handled."""
    stored = river.store(*[delivery(event) for event in events])
    river.worker(HANDLERS).handle([each.event_id for each in stored])


def person(river: River, id: str) -> dict[str, str]:
    with river.database.transaction() as session:
        return accounts.personal_data(session, river.keyring(session), id)


def labels(river: River, id: str) -> list[str]:
    with river.database.reading() as session:
        return accounts.key_ids_of(session, id)


def find(river: River, email: str) -> list[str]:
    with river.database.transaction() as session:
        return accounts.find_by_email(session, river.keyring(session), email)


def correct(river: River, id: str, field: accounts.Field, value: str) -> str | None:
    with river.database.transaction() as session:
        return accounts.correct_field(session, river.keyring(session), id, field, value, river.now)


def owner(river: River, of: str = ALICE.subscription) -> str:
    """The customer of a subscription that PayPal told of."""
    [id] = [row.customer_id for row in river.rows(Subscription) if row.id == of]
    assert id
    return id


# Who they are


def test_what_sign_up_takes_is_sealed_and_found_again(river: River) -> None:
    id = sign_up(river)
    known = person(river, id)
    assert known.pop("custom")
    assert known == {"name": ADA.name, "email": ADA.email, "company": ADA.company, "phone": ADA.phone}
    assert find(river, " ADA@example.com ") == [id]
    [row] = river.rows(Customer)
    assert (row.adult_confirmed_at, row.adult_text_version, row.signed_up_at) == (river.now, "2026-01", river.now)
    assert b"Ada" not in (row.personal_data or b"")
    assert {(each.kind, each.given, each.source) for each in river.rows(Consent)} == {
        ("adult", True, "sign-up"), ("marketing", False, "sign-up"),
    }  # fmt: skip


def test_a_tick_at_sign_up_is_noted_and_is_no_consent_yet(river: River) -> None:
    sign_up(river, news=True)
    assert not river.rows(Customer)[0].wants_marketing
    assert {(each.kind, each.given) for each in river.rows(Consent)} == {("adult", True), ("marketing_asked", True)}


def test_the_same_sign_up_makes_one_account(river: River) -> None:
    assert sign_up(river, custom="ours-17") == sign_up(river, custom="ours-17")
    assert sign_up(river, custom="ours-18") != sign_up(river, custom="ours-17")
    assert len(river.rows(Customer)) == 2


def test_who_signed_up_is_who_paypal_names_by_our_custom_id(river: River) -> None:
    id = sign_up(river, custom=ALICE.custom_id)
    tell(river, sample(ACTIVATED))
    assert owner(river) == id
    known = person(river, id)
    assert (known["name"], known["email"], known["payer"]) == (ADA.name, ADA.email, ALICE.payer_id)
    assert find(river, ALICE.email) == find(river, ADA.email) == [id], "both addresses are theirs"


def test_who_never_signed_up_is_known_by_paypals_word(river: River) -> None:
    tell(river, sample(ACTIVATED))
    known = person(river, owner(river))
    assert (known["name"], known["email"]) == ("Alice Andersson", ALICE.email)
    assert find(river, ALICE.email) == [owner(river)]
    assert find(river, "nobody@example.com") == []


def test_nobody_is_known_by_an_id_that_is_not_there(river: River) -> None:
    assert person(river, "c1") == {}
    with pytest.raises(CustomerNotFoundError):
        correct(river, "c1", "name", "Ada")


@pytest.mark.parametrize(
    ("field", "value"),
    [("email", "not an address"), ("email", ""), ("name", " "), ("name", "x" * 101), ("phone", "call me")],
)
def test_what_cannot_be_kept_is_refused_without_being_repeated(brook: River, field: accounts.Field, value: str) -> None:
    with pytest.raises(InvalidFieldError) as refused:
        correct(brook, sign_up(brook), field, value)
    assert refused.value.field == field
    assert not value.strip() or value not in str(refused.value)


# Corrected


def test_a_correction_outranks_what_paypal_tells_later(river: River) -> None:
    tell(river, sample(ACTIVATED))
    id = owner(river)
    assert correct(river, id, "email", "new@example.com") == ALICE.email
    river.clock.advance(timedelta(days=1))
    later = {"subscriber.email_address": "old@example.com", "update_time": "2027-01-01T00:00:00Z"}
    tell(river, sample(ACTIVATED, later))
    assert person(river, id)["email"] == "new@example.com"
    assert find(river, "new@example.com") == [id]
    assert find(river, ALICE.email) == find(river, "old@example.com") == [], "it may be somebody else's"


def test_what_is_confirmed_as_right_stays_when_paypal_changes_its_mind(river: River) -> None:
    tell(river, sample(ACTIVATED))
    assert correct(river, owner(river), "email", ALICE.email) == ALICE.email
    tell(river, sample(ACTIVATED, {"subscriber.email_address": "b@example.com", "update_time": "2027-01-01T00:00:00Z"}))
    assert person(river, owner(river))["email"] == ALICE.email
    assert "email_changed" not in {row.kind for row in river.rows(Mail)}, "it did not change"


def test_a_new_address_is_told_to_the_old_one_and_the_new_one(river: River) -> None:
    id = sign_up(river)
    assert correct(river, id, "email", "new@example.com") == ADA.email
    told = [row for row in river.rows(Mail) if row.kind == "email_changed"]
    with river.database.transaction() as session:
        seal = river.keyring(session).system_key(id)
        facts = [seal.decrypt_json("mail.facts", row.facts) for row in told]
    assert {(each[outbox.ADDRESS_OVERRIDE], each["is_old"]) for each in facts} == {
        (ADA.email, True),
        ("new@example.com", False),
    }
    assert all(row.customer_id == row.key_id == id for row in told)


def test_a_name_or_a_number_is_corrected_without_a_mail(river: River) -> None:
    id = sign_up(river)
    assert correct(river, id, "name", "Ada Lovelace") == ADA.name
    assert correct(river, id, "phone", "") == ADA.phone
    assert (person(river, id)["name"], person(river, id)["phone"]) == ("Ada Lovelace", "")
    assert river.rows(Mail) == []


def test_mail_that_waited_for_an_address_goes_once_it_is_corrected(river: River) -> None:
    tell(river, sample(ACTIVATED, {"subscriber.email_address": GONE}))
    assert [(row.state, row.due_at) for row in river.rows(Mail)] == [("queued", None)]
    correct(river, owner(river), "email", "new@example.com")
    assert {row.due_at for row in river.rows(Mail)} == {river.now}


def test_mail_does_not_wait_for_an_address_that_the_customer_told(river: River) -> None:
    sign_up(river, custom=ALICE.custom_id)
    tell(river, sample(ACTIVATED, {"subscriber.email_address": GONE}))
    assert [(row.state, row.due_at) for row in river.rows(Mail)] == [("queued", river.now)]


# What is theirs


def test_a_person_owns_their_subscription_and_its_sales(river: River) -> None:
    tell(river, sample(ACTIVATED), sample(COMPLETED))
    sale = sample(COMPLETED)["resource"]["id"]
    assert labels(river, owner(river)) == [owner(river), ALICE.subscription, sale]


def test_a_refund_that_names_no_sale_is_theirs_too(river: River) -> None:
    tell(river, sample(ACTIVATED), sample(COMPLETED))
    sale, refund = sample(COMPLETED)["resource"]["id"], "9RF51924877811803"
    tell(river, sample("PAYMENT.SALE.REFUNDED", {"id": refund, "sale_id": sale}))
    unnamed = sample("PAYMENT.SALE.REVERSED", {"id": refund})
    river.store(delivery(unnamed))
    assert unnamed["id"] in labels(river, owner(river))


def test_events_of_no_subscription_belong_to_who_they_name(river: River) -> None:
    tell(river, sample(ACTIVATED))
    order = {"payer": {"payer_id": ALICE.payer_id}, "purchase_units": [{"custom_id": "ORDER-1001"}]}
    river.store(delivery(happened("WH-ORDER", "CHECKOUT.ORDER.APPROVED", resource=order)))
    river.store(delivery(happened("WH-OTHER", "CHECKOUT.ORDER.APPROVED", resource={"payer": {"payer_id": "OTHER77"}})))
    assert "WH-ORDER" in labels(river, owner(river)), "by the PayPal account that pays for the subscription"
    assert "WH-OTHER" not in labels(river, owner(river))


def test_an_order_of_another_customer_is_not_theirs_though_one_account_paid(river: River) -> None:
    tell(river, sample(ACTIVATED))
    other = sign_up(river, custom="ours-18")
    order = {"payer": {"payer_id": ALICE.payer_id}, "purchase_units": [{"custom_id": "ours-18"}]}
    river.store(delivery(happened("WH-ORDER", "CHECKOUT.ORDER.APPROVED", resource=order)))
    assert "WH-ORDER" in labels(river, other)
    assert "WH-ORDER" not in labels(river, owner(river))


def test_who_has_no_custom_id_owns_by_their_paypal_account(river: River) -> None:
    activated = renamed(sample(ACTIVATED, {
        "id": CHARLIE.subscription, "custom_id": GONE, "subscriber.payer_id": CHARLIE.payer_id,
    }))  # fmt: skip
    tell(river, activated)
    river.store(delivery(happened("WH-ORDER", resource={"payer": {"payer_id": CHARLIE.payer_id}})))
    id = owner(river, CHARLIE.subscription)
    assert id.startswith("p")
    assert labels(river, id) == [id, CHARLIE.subscription, "WH-ORDER"]
    assert {row.customer_id for row in river.rows(Event)} == {None, id}


# What they want


@pytest.mark.parametrize("kind", ["marketing", "service"])
def test_a_choice_counts_at_once_and_is_kept_as_proof(river: River, kind: accounts.ConsentKind) -> None:
    id = sign_up(river)
    with river.database.transaction() as session:
        accounts.record_consent(
            session, id, kind, given=True, source="account page", text_version="2026-01", now=river.now
        )
    assert getattr(river.rows(Customer)[0], accounts.CHOICES[kind].key) is True
    river.clock.advance(timedelta(days=1))
    with river.database.transaction() as session:
        accounts.record_consent(
            session, id, kind, given=False, source="account page", text_version="2026-01", now=river.now
        )
    [row] = river.rows(Customer)
    assert getattr(row, accounts.CHOICES[kind].key) is False
    last = river.rows(Consent)[-1]
    assert (last.kind, last.given, last.at, last.source) == (kind, False, river.now, "account page")


@pytest.mark.parametrize("kind", ["receipt", "privacy_request_received"])
@pytest.mark.parametrize("wants", [True, False])
def test_what_is_owed_by_contract_or_law_cannot_be_declined(kind: str, wants: bool) -> None:
    assert mail_kinds.suppression_reason(kind, marketing=wants, service=wants) is None
    assert not mail_kinds.is_optional(kind)


def test_marketing_goes_only_to_who_asked_for_it() -> None:
    assert mail_kinds.suppression_reason("product_news", marketing=True, service=False) is None
    assert "not opted in" in str(mail_kinds.suppression_reason("product_news", marketing=False, service=True))


def test_every_mail_serves_a_purpose_of_the_register() -> None:
    assert {use.purpose for use in mail_kinds.MAILS.values()} <= mail_kinds.PURPOSES.keys()


# At the door


def test_the_hash_of_sign_up_is_the_hash_of_the_door(river: River) -> None:
    id = sign_up(river, custom="ours-17")
    river.store(delivery(happened("WH-1", resource={"custom_id": "ours-17"})))
    assert river.event("WH-1").customer_id == id


def test_who_signs_up_with_anothers_address_does_not_come_before_them(river: River) -> None:
    tell(river, sample(ACTIVATED))
    alice = owner(river)
    river.clock.advance(timedelta(days=1))
    others = [sign_up(river, SignUpData("Mallory Example", ALICE.email)) for _ in range(3)]
    found = find(river, ALICE.email)
    assert found[0] == alice
    assert sorted(found[1:]) == sorted(others)
