"""Identity: a subscription belongs to the PayPal account that pays for it, and only a proved address counts."""

from collections.abc import Mapping
from datetime import timedelta
from itertools import permutations
from typing import Any, ClassVar

import pytest

from pipeline.crypto.keyring import Keyring
from pipeline.customers import accounts, addresses, sign_in
from pipeline.customers.accounts import CustomerNotFoundError, SignUpData
from pipeline.customers.product_hook import Action, ProductHook
from pipeline.db.models import Consent, Customer, InboundMail, Mail, PrivacyRequest, Subscription
from pipeline.outbox import store as outbox
from pipeline.privacy.erasure import workflow
from pipeline.privacy.erasure.workflow import ErasureDependencies
from pipeline.privacy.retention import sweep as retention
from tests.support.event_feeder import EventFeeder
from tests.support.example_people import ALICE, BOB, Person
from tests.support.page_client import facts
from tests.support.pipeline_under_test import PipelineUnderTest, delivery, happened
from tests.support.sample_events import renamed, sample

CREATED, ACTIVATED, UPDATED = (f"BILLING.SUBSCRIPTION.{name}" for name in ("CREATED", "ACTIVATED", "UPDATED"))
CANCELLED, COMPLETED = "BILLING.SUBSCRIPTION.CANCELLED", "PAYMENT.SALE.COMPLETED"
PAGES = "https://billing.example.com"
ATTACKER = {
    "id": BOB.subscription,
    "subscriber.payer_id": BOB.payer_id,
    "subscriber.email_address": "mallory@example.net",
}
LATER = {"update_time": "2027-06-01T00:00:00Z", "create_time": "2027-06-01T00:00:00Z"}


class RecordingProduct(ProductHook):
    """A product that records which customers it was asked to erase."""

    erased: ClassVar[list[dict[str, str]]] = []

    def call(self, action: Action, customer: Mapping[str, str]) -> bytes:
        self.erased.append(dict(customer))
        return b""


@pytest.fixture
def feeder(pipeline: PipelineUnderTest) -> EventFeeder:
    return EventFeeder(pipeline)


def event(name: str, changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return a sample with another event id, so that several samples of one kind can be received."""
    return renamed(sample(name, changes or {}))


def find(pipeline: PipelineUnderTest, email: str) -> list[str]:
    with pipeline.database.transaction() as session:
        return accounts.find_by_email(session, pipeline.keyring(session), email)


def person(pipeline: PipelineUnderTest, id: str | None) -> dict[str, str]:
    with pipeline.database.transaction() as session:
        return accounts.personal_data(session, pipeline.keyring(session), id or "")


def owner(feeder: EventFeeder, of: Person) -> str:
    return str(feeder.subscription(of).customer_id)


def sign_up(pipeline: PipelineUnderTest, email: str, custom: str) -> str:
    """Sign up, as the order page does, and return the customer's id."""
    with pipeline.database.transaction() as session:
        keyring, data = pipeline.keyring(session), SignUpData("Ada Example", email)
        id = accounts.create_account(
            session, keyring, data, adult_text="1", news=False, now=pipeline.now, source="sign-up", custom=custom
        )
        addresses.request_confirmation(session, keyring, id, email, pipeline.now, PAGES, minutes=10080, waits=True)
        return id


def follow(pipeline: PipelineUnderTest, link: str) -> object:
    """Use the link of a mail as its page does."""
    secret = link.rpartition("/")[2]
    with pipeline.database.transaction() as session:
        keyring, now = Keyring(pipeline.master, session, pipeline.now), pipeline.now
        if "/approve/" in link:
            return addresses.approve(session, keyring, secret, now)
        if "/reject/" in link:
            return addresses.reject(session, keyring, secret, now)
        return addresses.confirm(session, keyring, secret, now, PAGES)


def request_change(pipeline: PipelineUnderTest, id: str, email: str) -> str:
    """Request another address, and return the link in the mail to it."""
    pipeline.clock.advance(timedelta(seconds=1))
    with pipeline.database.transaction() as session:
        addresses.request_confirmation(session, pipeline.keyring(session), id, email, pipeline.now, PAGES)
    return str(facts(pipeline, "account_link")[-1]["page"])


# A custom_id


def test_pending_subscription_names_nobody(feeder: EventFeeder) -> None:
    feeder.hear(event(ACTIVATED), event(CREATED, ATTACKER | {"status": "APPROVAL_PENDING"}))
    assert feeder.subscription(BOB).customer_id is None
    assert feeder.known(BOB) == {}
    assert find(feeder.pipeline, "mallory@example.net") == []
    assert person(feeder.pipeline, owner(feeder, ALICE))["email"] == ALICE.email


def test_cancelled_subscription_that_was_never_active_names_nobody(feeder: EventFeeder) -> None:
    unpaid = {"billing_info.last_payment": {}, "status": "CANCELLED"}
    feeder.hear(event(ACTIVATED), event(CREATED, ATTACKER), event(CANCELLED, ATTACKER | unpaid))
    assert feeder.subscription(BOB).customer_id is None
    assert find(feeder.pipeline, "mallory@example.net") == []


def test_second_payer_under_a_custom_id_is_another_customer(feeder: EventFeeder) -> None:
    feeder.hear(event(ACTIVATED), event(ACTIVATED, ATTACKER))
    alice, mallory = owner(feeder, ALICE), owner(feeder, BOB)
    assert alice != mallory
    assert (find(feeder.pipeline, ALICE.email), find(feeder.pipeline, "mallory@example.net")) == ([alice], [mallory])
    assert person(feeder.pipeline, alice)["email"] == ALICE.email
    assert facts(feeder.pipeline, "custom_id_shared") == [
        {"subscription": BOB.subscription, "owner": alice, "customer": mallory}
    ]


def test_first_payer_keeps_the_custom_id_after_cancelling(feeder: EventFeeder) -> None:
    feeder.hear(event(ACTIVATED), event(CANCELLED), event(ACTIVATED, ATTACKER))
    assert owner(feeder, ALICE) != owner(feeder, BOB)


def test_same_payer_has_one_account_for_all_subscriptions(feeder: EventFeeder) -> None:
    feeder.hear(event(ACTIVATED), event(ACTIVATED, {"id": BOB.subscription}))
    assert owner(feeder, ALICE) == owner(feeder, BOB)
    assert facts(feeder.pipeline, "custom_id_shared") == []


@pytest.mark.parametrize("batch", [1, 100])
def test_owner_does_not_depend_on_the_order_of_a_subscriptions_events(
    sqlite_pipeline: PipelineUnderTest, batch: int
) -> None:
    events = [event(CREATED), event(COMPLETED), event(ACTIVATED)]
    found = set()
    for order in permutations(events):
        sqlite_pipeline.empty()
        feeder = EventFeeder(sqlite_pipeline)
        feeder.tell(*order)
        feeder.work(batch)
        row = feeder.subscription(ALICE)
        found.add((str(row.customer_id)[0], row.is_established, row.email_hash is not None))
    assert found == {("c", True, True)}


def test_erasing_one_payer_leaves_the_other_payers_data(feeder: EventFeeder) -> None:
    pipeline = feeder.pipeline
    feeder.hear(event(ACTIVATED), event(ACTIVATED, ATTACKER), event(CANCELLED, ATTACKER))
    mallory = owner(feeder, BOB)
    workflow.erase_now(pipeline.database, pipeline.master, pipeline.clock, ErasureDependencies(), mallory, "operator")
    assert [row.id for row in pipeline.rows(Customer) if row.erased_at] == [mallory]
    assert person(pipeline, owner(feeder, ALICE))["email"] == ALICE.email
    assert feeder.known(ALICE)["email"] == ALICE.email


def test_erasing_the_owner_leaves_events_of_another_payer(feeder: EventFeeder) -> None:
    pipeline = feeder.pipeline
    feeder.hear(event(ACTIVATED), event(ACTIVATED, ATTACKER), event(CANCELLED))
    order = {"payer": {"payer_id": BOB.payer_id}, "purchase_units": [{"custom_id": ALICE.custom_id}]}
    pipeline.store(delivery(happened("WH-ORDER", "CHECKOUT.ORDER.APPROVED", resource=order)))
    alice, mallory = owner(feeder, ALICE), owner(feeder, BOB)
    with pipeline.database.reading() as session:
        assert "event:WH-ORDER" in accounts.key_ids_of(session, mallory)
        assert "event:WH-ORDER" not in accounts.key_ids_of(session, alice)
    workflow.erase_now(pipeline.database, pipeline.master, pipeline.clock, ErasureDependencies(), alice, "operator")
    assert pipeline.event("WH-ORDER").body is not None


# An address from sign-up


def test_address_from_sign_up_does_not_count(sqlite_pipeline: PipelineUnderTest) -> None:
    sign_up(sqlite_pipeline, "victim@example.net", "ours-17")
    assert find(sqlite_pipeline, "victim@example.net") == []
    with sqlite_pipeline.database.transaction() as session:
        sign_in.send_links(session, sqlite_pipeline.keyring(session), "victim@example.net", sqlite_pipeline.now, PAGES)
    assert [row for row in sqlite_pipeline.rows(Mail) if row.due_at] == [], "nobody is mailed before the first payment"


def test_address_from_sign_up_counts_if_paypal_reports_it(feeder: EventFeeder) -> None:
    id = sign_up(feeder.pipeline, ALICE.email.upper(), ALICE.custom_id)
    feeder.hear(event(ACTIVATED))
    assert find(feeder.pipeline, ALICE.email) == [id] == [owner(feeder, ALICE)]
    [asks] = [row for row in feeder.pipeline.rows(Mail) if row.kind == "account_link"]
    assert (asks.state, asks.reason) == ("withheld", "PayPal reported the same address")


def test_other_address_from_sign_up_counts_after_its_link(feeder: EventFeeder) -> None:
    id = sign_up(feeder.pipeline, "ada@example.net", ALICE.custom_id)
    feeder.hear(event(ACTIVATED))
    assert (find(feeder.pipeline, "ada@example.net"), find(feeder.pipeline, ALICE.email)) == ([], [id])
    [asks] = [row for row in feeder.pipeline.rows(Mail) if row.kind == "account_link"]
    assert asks.due_at is not None
    assert follow(feeder.pipeline, facts(feeder.pipeline, "account_link")[0]["page"]) == "changed"
    assert (find(feeder.pipeline, "ada@example.net"), find(feeder.pipeline, ALICE.email)) == ([id], [])


# A change


def test_change_waits_for_the_previous_address(feeder: EventFeeder) -> None:
    feeder.hear(event(ACTIVATED))
    pipeline, id = feeder.pipeline, owner(feeder, ALICE)
    assert follow(pipeline, request_change(pipeline, id, "new@example.net")) == "waiting"
    assert person(pipeline, id)["email"] == ALICE.email
    [asked] = facts(pipeline, "email_change_requested")
    assert asked[outbox.ADDRESS_OVERRIDE] == ALICE.email
    assert follow(pipeline, asked["approve"])
    assert (find(pipeline, "new@example.net"), find(pipeline, ALICE.email)) == ([id], [])


def test_change_takes_effect_after_the_wait(feeder: EventFeeder) -> None:
    feeder.hear(event(ACTIVATED))
    pipeline, id = feeder.pipeline, owner(feeder, ALICE)
    follow(pipeline, request_change(pipeline, id, "new@example.net"))
    pipeline.clock.advance(addresses.WAIT - timedelta(seconds=1))
    assert addresses.apply_due_changes(pipeline.database, pipeline.master, pipeline.clock) == 0
    pipeline.clock.advance(timedelta(seconds=1))
    assert addresses.apply_due_changes(pipeline.database, pipeline.master, pipeline.clock) == 1
    assert person(pipeline, id)["email"] == "new@example.net"
    assert addresses.apply_due_changes(pipeline.database, pipeline.master, pipeline.clock) == 0


def test_previous_address_can_reject_the_change(feeder: EventFeeder) -> None:
    feeder.hear(event(ACTIVATED))
    pipeline, id = feeder.pipeline, owner(feeder, ALICE)
    follow(pipeline, request_change(pipeline, id, "new@example.net"))
    [asked] = facts(pipeline, "email_change_requested")
    assert follow(pipeline, asked["reject"])
    assert not follow(pipeline, asked["approve"])
    pipeline.clock.advance(addresses.WAIT * 2)
    assert addresses.apply_due_changes(pipeline.database, pipeline.master, pipeline.clock) == 0
    assert find(pipeline, ALICE.email) == [id]


@pytest.mark.parametrize("confirmed", [False, True])
def test_previous_address_is_told_of_a_change_at_paypal(feeder: EventFeeder, confirmed: bool) -> None:
    feeder.hear(event(ACTIVATED))
    pipeline, id = feeder.pipeline, owner(feeder, ALICE)
    if confirmed:
        with pipeline.database.transaction() as session:
            accounts.correct_field(session, pipeline.keyring(session), id, "email", ALICE.email, pipeline.now)
    feeder.hear(event(UPDATED, LATER | {"subscriber.email_address": "other@example.net"}))
    told = [each[outbox.ADDRESS_OVERRIDE] for each in facts(pipeline, "email_changed")]
    assert told == ([] if confirmed else [ALICE.email]), "an address that the customer confirmed stays"


def test_previous_address_is_told_of_another_one_in_a_new_subscription(feeder: EventFeeder) -> None:
    feeder.hear(event(ACTIVATED))
    feeder.hear(event(ACTIVATED, LATER | {"id": BOB.subscription, "subscriber.email_address": "other@example.net"}))
    assert owner(feeder, ALICE) == owner(feeder, BOB)
    assert [each[outbox.ADDRESS_OVERRIDE] for each in facts(feeder.pipeline, "email_changed")] == [ALICE.email]


@pytest.mark.parametrize("variants", [["a{}@example.net"], ["ada+{}@example.net"], ["a.d.a+{}@example.net"]])
def test_address_changes_are_limited_per_customer_and_mailbox(
    sqlite_pipeline: PipelineUnderTest, variants: list[str]
) -> None:
    emails = [variant.format(number) for number in range(10) for variant in variants]
    with sqlite_pipeline.database.transaction() as session:
        keyring, now = sqlite_pipeline.keyring(session), sqlite_pipeline.now
        allowed = [addresses.may_request_change(session, keyring, "c1", email, now) for email in emails]
    assert sum(allowed) == (3 if "+" in variants[0] else 5)


def test_address_changes_of_all_customers_are_limited(sqlite_pipeline: PipelineUnderTest) -> None:
    with sqlite_pipeline.database.transaction() as session:
        keyring, now = sqlite_pipeline.keyring(session), sqlite_pipeline.now
        allowed = [
            addresses.may_request_change(session, keyring, f"c{number}", f"a{number}@example.net", now)
            for number in range(60)
        ]
    assert sum(allowed) == 50


# One person with two accounts


def test_two_sign_ups_with_one_confirmed_address_are_one_customer(feeder: EventFeeder) -> None:
    pipeline = feeder.pipeline
    first = sign_up(pipeline, "ada@example.net", ALICE.custom_id)
    feeder.hear(event(ACTIVATED))
    follow(pipeline, facts(pipeline, "account_link")[0]["page"])
    pipeline.clock.advance(timedelta(days=1))
    second = sign_up(pipeline, "ada@example.net", BOB.custom_id)
    feeder.hear(event(ACTIVATED, ATTACKER | {"custom_id": BOB.custom_id}))
    assert owner(feeder, BOB) == second, "another PayPal account proves nothing"
    follow(pipeline, facts(pipeline, "account_link")[-1]["page"])
    assert owner(feeder, ALICE) == owner(feeder, BOB) == first
    assert find(pipeline, "ada@example.net") == [first]
    feeder.hear(event(UPDATED, LATER | ATTACKER | {"custom_id": BOB.custom_id}))
    assert owner(feeder, BOB) == first, "later events find the remaining account"


def test_two_sign_ups_of_one_paypal_account_and_address_are_one_customer(feeder: EventFeeder) -> None:
    first = sign_up(feeder.pipeline, ALICE.email, ALICE.custom_id)
    feeder.hear(event(ACTIVATED))
    feeder.pipeline.clock.advance(timedelta(days=1))
    sign_up(feeder.pipeline, ALICE.email, BOB.custom_id)
    feeder.hear(event(ACTIVATED, {"id": BOB.subscription, "custom_id": BOB.custom_id}))
    assert owner(feeder, ALICE) == owner(feeder, BOB) == first


def test_erasure_reaches_merged_accounts(feeder: EventFeeder) -> None:
    pipeline = feeder.pipeline
    test_two_sign_ups_of_one_paypal_account_and_address_are_one_customer(feeder)
    id = owner(feeder, ALICE)
    feeder.hear(event(CANCELLED), event(CANCELLED, {"id": BOB.subscription, "custom_id": BOB.custom_id}))
    workflow.erase_now(pipeline.database, pipeline.master, pipeline.clock, ErasureDependencies(), id, "operator")
    assert [row.id for row in pipeline.rows(Customer) if row.personal_data or not row.erased_at] == []
    assert [row.id for row in pipeline.rows(Subscription) if row.personal_data or row.email_hash] == []


def merged_pair(feeder: EventFeeder) -> tuple[str, str]:
    """Merge two accounts of one PayPal account and address. Return the remaining id and the merged one."""
    first = sign_up(feeder.pipeline, ALICE.email, ALICE.custom_id)
    feeder.hear(event(ACTIVATED))
    feeder.pipeline.clock.advance(timedelta(days=1))
    second = sign_up(feeder.pipeline, ALICE.email, BOB.custom_id)
    feeder.hear(event(ACTIVATED, {"id": BOB.subscription, "custom_id": BOB.custom_id}))
    return first, second


def test_nothing_belongs_to_a_merged_account(feeder: EventFeeder) -> None:
    kept, merged = merged_pair(feeder)
    pipeline = feeder.pipeline
    tables: tuple[Any, ...] = (Subscription, Mail, Consent, PrivacyRequest, InboundMail)
    for table in tables:
        assert merged not in {row.customer_id for row in pipeline.rows(table)}, table.__tablename__
    with pipeline.database.transaction() as session:
        keyring = pipeline.keyring(session)
        assert accounts.custom_ids(session, keyring, kept) == [ALICE.custom_id, BOB.custom_id]
        assert set(accounts.self_reported(keyring, session.get_one(Customer, merged))) == {"custom"}
        with pytest.raises(CustomerNotFoundError, match=f"was merged into {kept}"):
            accounts.require_customer(session, merged)
        pipeline.clock.advance(timedelta(days=800))
        assert retention.due_counts(session, pipeline.now, "")["accounts"] == 0


def test_product_erases_every_account_of_the_person(feeder: EventFeeder) -> None:
    kept, _ = merged_pair(feeder)
    feeder.hear(event(CANCELLED), event(CANCELLED, {"id": BOB.subscription, "custom_id": BOB.custom_id}))
    pipeline, product = feeder.pipeline, RecordingProduct(command="unused")
    product.erased.clear()
    workflow.erase_now(
        pipeline.database, pipeline.master, pipeline.clock, ErasureDependencies(product=product), kept, "operator"
    )
    assert [each["customer"] for each in product.erased] == [ALICE.custom_id, BOB.custom_id]


def test_chain_of_merges_ends_at_the_remaining_account(feeder: EventFeeder) -> None:
    pipeline, customs = feeder.pipeline, ("ours-1", "ours-2", "ours-3")
    ids = []
    for custom in customs:
        ids.append(sign_up(pipeline, ALICE.email, custom))
        pipeline.clock.advance(timedelta(days=1))
    for number in (1, 2, 0):  # the earliest account is established last
        feeder.hear(event(ACTIVATED, {"id": f"I-CHAIN{number}", "custom_id": customs[number]}))
    feeder.hear(event(UPDATED, LATER | {"id": "I-CHAIN2", "custom_id": customs[2]}))
    assert {row.customer_id for row in pipeline.rows(Subscription)} == {ids[0]}
    assert {row.merged_into for row in pipeline.rows(Customer)} == {None, ids[0]}


def test_merge_in_one_batch_moves_all_subscriptions(feeder: EventFeeder) -> None:
    first = sign_up(feeder.pipeline, ALICE.email, BOB.custom_id)
    feeder.pipeline.clock.advance(timedelta(days=1))
    sign_up(feeder.pipeline, ALICE.email, ALICE.custom_id)
    feeder.tell(event(ACTIVATED), event(ACTIVATED, {"id": BOB.subscription, "custom_id": BOB.custom_id}))
    feeder.work()
    assert owner(feeder, ALICE) == owner(feeder, BOB) == first


def test_merge_keeps_entered_data_and_the_newest_choice(feeder: EventFeeder) -> None:
    pipeline = feeder.pipeline
    first = sign_up(pipeline, ALICE.email, ALICE.custom_id)
    feeder.hear(event(ACTIVATED))
    choose(pipeline, first, given=True)
    pipeline.clock.advance(timedelta(days=1))
    second = sign_up(pipeline, ALICE.email, BOB.custom_id)
    with pipeline.database.transaction() as session:
        accounts.correct_field(session, pipeline.keyring(session), second, "company", "Second Works", pipeline.now)
    choose(pipeline, second, given=False)
    feeder.hear(event(ACTIVATED, {"id": BOB.subscription, "custom_id": BOB.custom_id}))
    [kept] = [row for row in pipeline.rows(Customer) if row.merged_into is None]
    assert (kept.id, kept.wants_marketing, kept.wants_service_mail) == (first, False, False)
    assert (person(pipeline, first)["company"], kept.email_hash is not None) == ("Second Works", True)


def choose(pipeline: PipelineUnderTest, id: str, *, given: bool) -> None:
    with pipeline.database.transaction() as session:
        for kind in ("marketing", "service"):
            accounts.record_consent(
                session, id, kind, given=given, source="account page", text_version="1", now=pipeline.now
            )


def test_accounts_are_not_merged_while_one_is_erased(feeder: EventFeeder) -> None:
    pipeline = feeder.pipeline
    first = sign_up(pipeline, ALICE.email, ALICE.custom_id)
    feeder.hear(event(ACTIVATED))
    workflow.erase_now(pipeline.database, pipeline.master, pipeline.clock, ErasureDependencies(), first, "operator")
    sign_up(pipeline, ALICE.email, BOB.custom_id)
    feeder.hear(event(ACTIVATED, {"id": BOB.subscription, "custom_id": BOB.custom_id}))
    assert owner(feeder, BOB) != first
    assert [row.merged_into for row in pipeline.rows(Customer)] == [None, None]


def test_similar_letters_are_not_the_same_mailbox(feeder: EventFeeder) -> None:
    kelvin = "\u212aate@example.com"  # its lower case is the ASCII letter k
    with feeder.pipeline.database.transaction() as session:
        keyring = feeder.pipeline.keyring(session)
        assert keyring.email_hash(kelvin) != keyring.email_hash("kate@example.com")
        assert keyring.email_hash(" Kate@Example.com ") == keyring.email_hash("kate@example.com")


# A change that somebody else requested


def test_approval_is_valid_only_for_the_address_that_its_mail_names(feeder: EventFeeder) -> None:
    feeder.hear(event(ACTIVATED))
    pipeline, id = feeder.pipeline, owner(feeder, ALICE)
    follow(pipeline, request_change(pipeline, id, "alice.new@example.com"))
    [first] = facts(pipeline, "email_change_requested")
    assert first["new_address"] == "alice.new@example.com"
    follow(pipeline, request_change(pipeline, id, "mallory@example.net"))
    assert not follow(pipeline, first["approve"])
    assert person(pipeline, id)["email"] == ALICE.email


def test_sign_out_everywhere_drops_a_requested_address(feeder: EventFeeder) -> None:
    feeder.hear(event(ACTIVATED))
    pipeline, id = feeder.pipeline, owner(feeder, ALICE)
    follow(pipeline, request_change(pipeline, id, "mallory@example.net"))
    with pipeline.database.transaction() as session:
        addresses.sign_out_everywhere(session, pipeline.keyring(session), id, pipeline.now)
    pipeline.clock.advance(addresses.WAIT * 2)
    assert addresses.apply_due_changes(pipeline.database, pipeline.master, pipeline.clock) == 0
    assert find(pipeline, ALICE.email) == [id]


def test_other_spelling_of_the_same_address_ends_a_requested_change(feeder: EventFeeder) -> None:
    feeder.hear(event(ACTIVATED))
    pipeline, id = feeder.pipeline, owner(feeder, ALICE)
    follow(pipeline, request_change(pipeline, id, "new@example.net"))
    assert follow(pipeline, request_change(pipeline, id, ALICE.email.upper())) == "changed"
    [row] = pipeline.rows(Customer)
    assert row.email_change_at is None
    assert "new_email" not in person(pipeline, id)
