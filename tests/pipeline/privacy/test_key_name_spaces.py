"""An id from outside never names the key of another kind, so no erasure destroys a key of the system or of another person."""

from typing import Any

import pytest

from pipeline.crypto.key_ids import RESERVED, ProtectedKeyError
from pipeline.crypto.keyring import INDEX
from pipeline.customers import accounts
from pipeline.db.models import Base, Customer, EncryptionKey, Subscription
from pipeline.inbox.parsing import UNREADABLE, parse_webhook
from pipeline.privacy.erasure.shredding import replay_erasures
from pipeline.privacy.retention import rules
from tests.pipeline.privacy.erased_customer import create_alice, erase_completely, receive
from tests.support.example_people import ALICE
from tests.support.pipeline_under_test import PipelineUnderTest, delivery, happened
from tests.support.sample_events import sample

MALLORY = "mallory-1"
SALE = "PAYMENT.SALE.COMPLETED"
AMOUNT = {"amount": {"total": "1.00", "currency": "EUR"}}


def sign_up(pipeline: PipelineUnderTest, custom: str) -> str:
    person = accounts.SignUpData("Mallory", "mallory@example.net")
    with pipeline.database.transaction() as session:
        keyring = pipeline.keyring(session)
        id = accounts.create_account(
            session, keyring, person, adult_text="1", news=False, now=pipeline.now, source="test", custom=custom
        )
        accounts.confirm_entered_address(session, keyring, id, pipeline.now)
        return id


def event_id_of_subscription(_: str) -> dict[str, Any]:
    return happened(ALICE.subscription, resource={"custom_id": MALLORY})


def sale_id_of_subscription(_: str) -> dict[str, Any]:
    return happened("WH-M", SALE, resource={"id": ALICE.subscription, "custom": MALLORY, **AMOUNT})


def event_id_of_customer(customer: str) -> dict[str, Any]:
    return happened(customer, resource={"custom_id": MALLORY})


def sale_id_of_customer(customer: str) -> dict[str, Any]:
    return happened("WH-M", SALE, resource={"id": customer, "custom": MALLORY, **AMOUNT})


def subscription_id_of_customer(customer: str) -> dict[str, Any]:
    resource = {"id": customer, "custom_id": MALLORY, "status": "ACTIVE"}
    return happened("WH-M", "BILLING.SUBSCRIPTION.ACTIVATED", resource=resource)


def refund_of_another_persons_sale(_: str) -> dict[str, Any]:
    resource = {"id": "9RF51924877811803", "sale_id": sample(SALE)["resource"]["id"], "custom": MALLORY, **AMOUNT}
    return happened("WH-M", "PAYMENT.SALE.REFUNDED", resource=resource)


@pytest.mark.parametrize("collision", [
    event_id_of_subscription, sale_id_of_subscription, event_id_of_customer, sale_id_of_customer,
    subscription_id_of_customer, refund_of_another_persons_sale,
])  # fmt: skip
def test_erasure_destroys_no_key_of_another_person(pipeline: PipelineUnderTest, collision: Any) -> None:
    alice, mallory = create_alice(pipeline), sign_up(pipeline, MALLORY)
    receive(pipeline, collision(alice))
    erase_completely(pipeline, mallory)
    with pipeline.database.transaction() as session:
        keyring = pipeline.keyring(session)
        assert not keyring.is_erased(alice)
        assert not keyring.is_erased(ALICE.subscription)
        assert not keyring.is_erased(f"sale:{sample(SALE)['resource']['id']}")
        assert accounts.personal_data(session, keyring, alice)["email"] == ALICE.email
        assert session.get_one(Customer, mallory).erased_at
        assert session.get_one(Subscription, ALICE.subscription).personal_data


@pytest.mark.parametrize("prefix", RESERVED)
def test_event_with_reserved_id_is_unreadable(prefix: str) -> None:
    found = parse_webhook(b'{"id": "%sindex", "event_type": "X.Y", "resource": {}}' % prefix.encode())
    assert found.type == UNREADABLE
    assert found.problem is not None
    assert prefix in found.problem
    assert found.key_id == f"event:{found.id}"


def test_webhook_with_id_of_system_key_is_parked_and_harmless(pipeline: PipelineUnderTest) -> None:
    mallory = sign_up(pipeline, MALLORY)
    [stored] = pipeline.store(delivery(happened(INDEX, resource={"custom_id": MALLORY})))
    assert pipeline.event(stored.event_id).state == "parked"
    erase_completely(pipeline, mallory)
    with pipeline.database.transaction() as session:
        assert not pipeline.keyring(session).is_erased(INDEX)


@pytest.mark.parametrize("end", [
    lambda session, now: rules._tombstone_keys(session, [INDEX], now),
    lambda session, _: rules._delete_keys(session, [INDEX]),
])  # fmt: skip
def test_retention_destroys_no_system_key(sqlite_pipeline: PipelineUnderTest, end: Any) -> None:
    with sqlite_pipeline.database.transaction() as session:
        sqlite_pipeline.keyring(session).system_key(INDEX)
        with pytest.raises(ProtectedKeyError):
            end(session, sqlite_pipeline.now)
    assert [row.wrapped_key is None for row in sqlite_pipeline.rows(EncryptionKey)] == [False]


def test_repeated_erasure_destroys_no_system_key(sqlite_pipeline: PipelineUnderTest) -> None:
    row = {"id": "E", "customer_id": "c", "labels": [INDEX], "at": "2026-03-01T00:00:00Z", "receipt": {}}
    with sqlite_pipeline.database.transaction() as session, pytest.raises(ProtectedKeyError):
        replay_erasures(session, sqlite_pipeline.keyring(session), [row])


def test_every_column_with_a_key_id_holds_the_longest_one() -> None:
    """An event id has up to 80 characters, and the name space comes before it."""
    columns = [table.columns["key_id"] for table in Base.metadata.sorted_tables if "key_id" in table.columns]
    assert len(columns) >= 5
    assert min(column.type.length for column in columns) >= 80 + max(map(len, RESERVED))  # type: ignore[attr-defined]
