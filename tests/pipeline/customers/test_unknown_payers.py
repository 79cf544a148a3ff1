"""Customers whose PayPal account is unknown are never taken for one another: an unknown account equals no other."""

import pytest

from pipeline.customers import accounts, merging
from pipeline.db.models import Customer, Event
from pipeline.privacy.erasure import workflow
from pipeline.privacy.erasure.workflow import ErasureDependencies
from tests.pipeline.customers.test_identity import ACTIVATED, CANCELLED, event, find, owner, sign_up
from tests.support.event_feeder import EventFeeder
from tests.support.example_people import ALICE, BOB
from tests.support.pipeline_under_test import PipelineUnderTest, delivery, happened
from tests.support.sample_events import GONE

NO_PAYER = {"subscriber.payer_id": GONE}
OF_BOB = NO_PAYER | {
    "id": BOB.subscription,
    "custom_id": BOB.custom_id,
    "subscriber.email_address": BOB.email,
}


@pytest.fixture
def feeder(pipeline: PipelineUnderTest) -> EventFeeder:
    return EventFeeder(pipeline)


def two_customers(feeder: EventFeeder) -> tuple[str, str]:
    """Establish the subscriptions of two sign-ups, and store an event without a subscription that names each."""
    ids = sign_up(feeder.pipeline, ALICE.email, ALICE.custom_id), sign_up(feeder.pipeline, BOB.email, BOB.custom_id)
    feeder.hear(event(ACTIVATED, NO_PAYER), event(ACTIVATED, OF_BOB))
    for person in (ALICE, BOB):
        resource = {"purchase_units": [{"custom_id": person.custom_id}]}
        feeder.pipeline.store(
            delivery(happened(f"WH-{person.given_name}", "CHECKOUT.ORDER.APPROVED", resource=resource))
        )
    assert (owner(feeder, ALICE), owner(feeder, BOB)) == ids
    assert {row.payer_ref for row in feeder.pipeline.rows(Customer)} == {None}
    return ids


def test_each_owns_only_what_names_them(feeder: EventFeeder) -> None:
    alice, bob = two_customers(feeder)
    with feeder.pipeline.database.reading() as session:
        of_alice, of_bob = (set(accounts.key_ids_of(session, id)) for id in (alice, bob))
    assert of_alice.isdisjoint(of_bob)
    assert {"event:WH-Alice", ALICE.subscription} <= of_alice
    assert {"event:WH-Bob", BOB.subscription} <= of_bob


def test_event_that_names_nobody_belongs_to_neither(feeder: EventFeeder) -> None:
    alice, bob = two_customers(feeder)
    feeder.pipeline.store(delivery(happened("WH-NOBODY", "CHECKOUT.ORDER.APPROVED")))
    with feeder.pipeline.database.reading() as session:
        for id in (alice, bob):
            assert "event:WH-NOBODY" not in accounts.key_ids_of(session, id)


def test_event_under_an_id_of_the_vendor_without_a_payer_belongs_to_its_owner_only(feeder: EventFeeder) -> None:
    """Neither customer signed up here, and both pay with unknown accounts: PayPal's ids decide, and nothing is shared."""
    feeder.hear(event(ACTIVATED, NO_PAYER), event(ACTIVATED, OF_BOB))
    rows = [feeder.subscription(ALICE), feeder.subscription(BOB)]
    assert [row.customer_id for row in rows] == [None, None], "nobody owns a subscription of an unknown account"
    assert find(feeder.pipeline, ALICE.email) == find(feeder.pipeline, BOB.email) == []


def test_same_address_does_not_merge_them(feeder: EventFeeder) -> None:
    pipeline, (alice, bob) = feeder.pipeline, two_customers(feeder)
    with pipeline.database.transaction() as session:
        keyring = pipeline.keyring(session)
        for id in (alice, bob):
            session.get_one(Customer, id).email_hash = keyring.email_hash(ALICE.email)
        session.flush()
        assert merging.merge_by_payer(session, keyring, bob, ALICE.email, pipeline.now) == bob
    assert {row.merged_into for row in pipeline.rows(Customer)} == {None}


def test_erasing_one_leaves_the_other(feeder: EventFeeder) -> None:
    pipeline, (alice, bob) = feeder.pipeline, two_customers(feeder)
    feeder.hear(event(CANCELLED, NO_PAYER))
    workflow.erase_now(pipeline.database, pipeline.master, pipeline.clock, ErasureDependencies(), alice, "operator")
    assert [row.id for row in pipeline.rows(Customer) if row.erased_at] == [alice]
    readable = {row.id for row in pipeline.rows(Event) if row.body is not None}
    assert ("WH-Bob" in readable, "WH-Alice" in readable) == (True, False)
    assert feeder.known(BOB)["email"] == BOB.email
    assert find(pipeline, BOB.email) == [bob]
