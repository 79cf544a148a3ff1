"""The steps of an erasure: PayPal and the product first, then the data, then the confirmation."""

import pytest

from pipeline.crypto import rotation
from pipeline.customers import accounts
from pipeline.db.models import (
    EncryptionKey,
    Erasure,
    PrivacyRequest,
)
from pipeline.privacy.erasure import workflow
from pipeline.privacy.erasure.workflow import ErasureDependencies
from tests.pipeline.privacy.erased_customer import (
    PayPal,
    RecordingProduct,
    confirm,
    create_alice,
    erase_completely,
    reasons,
    receive,
    run,
    schedule,
)
from tests.support.example_people import ALICE
from tests.support.pipeline_under_test import River
from tests.support.sample_events import sample


def test_erasure_cancels_subscription_and_notifies_product(river: River) -> None:
    paypal, product = PayPal(), RecordingProduct()
    erase_completely(river, create_alice(river), ErasureDependencies(paypal, product))
    assert paypal.cancelled == [ALICE.subscription]
    assert product.calls == [  # type: ignore[attr-defined]
        {"action": "erase", "customer": ALICE.custom_id, "email": ALICE.email}
    ]


def test_nothing_is_erased_before_paypal_and_product_succeed(river: River) -> None:
    id = create_alice(river)
    request = schedule(river, id)
    river.clock.advance(workflow.WAIT)
    dependencies = ErasureDependencies(PayPal(refusals=1), RecordingProduct(["answered 500"]))
    assert [run(river, dependencies), run(river, dependencies)] == [0, 0]
    assert river.count(Erasure) == 0
    assert "answered 500" in str(river.rows(PrivacyRequest)[-1].reason) or "answered 500" in reasons(river)
    with river.database.transaction() as session:
        assert accounts.personal_data(session, river.keyring(session), id)["email"] == ALICE.email
    assert run(river, dependencies) == 1
    confirm(river, request)
    run(river, dependencies)
    assert river.count(Erasure) == 1


def test_operator_is_alerted_after_repeated_failures(river: River) -> None:
    request = schedule(river, create_alice(river))
    river.clock.advance(workflow.WAIT)
    run(river, ErasureDependencies(PayPal(refusals=9)))
    assert f"erasure_waits:{request.id}" not in river.mails()
    river.clock.advance(workflow.ALERT_AFTER)
    run(river, ErasureDependencies(PayPal(refusals=9)))
    run(river, ErasureDependencies(PayPal(refusals=9)))
    assert len([key for key in river.mails() if key == f"erasure_waits:{request.id}"]) == 1


def test_operator_is_alerted_at_once_without_credentials(river: River) -> None:
    request = schedule(river, create_alice(river))
    river.clock.advance(workflow.WAIT)
    assert run(river, ErasureDependencies()) == 0
    assert f"erasure_waits:{request.id}" in river.mails()
    assert ALICE.subscription in reasons(river)
    receive(river, sample("BILLING.SUBSCRIPTION.CANCELLED"))
    assert run(river, ErasureDependencies()) == 1


def test_killed_erasure_continues(river: River, monkeypatch: pytest.MonkeyPatch) -> None:
    id, paypal = create_alice(river), PayPal()
    schedule(river, id)
    river.clock.advance(workflow.WAIT)
    with monkeypatch.context() as patch:
        patch.setattr(workflow, "erase_rows", die)
        with pytest.raises(KeyboardInterrupt):
            run(river, ErasureDependencies(paypal))
    assert (river.count(Erasure), paypal.cancelled) == (0, [ALICE.subscription])
    assert run(river, ErasureDependencies(paypal)) == 1
    assert river.count(Erasure) == 1


def die(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_confirmation_key_is_destroyed_after_sending(river: River) -> None:
    request = schedule(river, create_alice(river))
    river.clock.advance(workflow.WAIT)
    run(river, ErasureDependencies(PayPal(), country="DE"))
    mail = river.mails()[f"account_deleted:{request.id}"]
    with river.database.transaction() as session:
        facts = river.keyring(session).system_key(mail.key_id).decrypt_json("mail.facts", mail.facts)
        assert ALICE.email in facts.values()
        assert facts["kept_until"] == "2034-12-31T23:59:59Z"
    assert run(river, ErasureDependencies(PayPal())) == 0  # the confirmation is still queued
    confirm(river, request)
    assert run(river, ErasureDependencies(PayPal())) == 1
    mail = river.mails()[mail.idempotency_key]
    assert (mail.state, mail.facts, mail.recipient, mail.frozen, mail.relay_reply) == ("sent", None, None, None, None)
    assert [row.wrapped_key for row in river.rows(EncryptionKey) if row.key_id == mail.key_id] == [None]
    assert mail.key_id in river.rows(Erasure)[0].key_ids


def test_erasure_is_incomplete_until_confirmation_key_is_destroyed(river: River) -> None:
    request = schedule(river, create_alice(river))
    river.clock.advance(workflow.WAIT)
    run(river, ErasureDependencies(PayPal()))
    path = river.folder / "keys" / "master.key"
    assert rotation.rotate(river.database, path, river.now, grace_seconds=0).completed == 0
    with river.database.reading() as session:
        assert not rotation.is_pending(session)
    confirm(river, request)
    run(river, ErasureDependencies(PayPal()))
    assert river.rows(Erasure)[0].completed_at is None
    assert rotation.rotate(river.database, path, river.now, grace_seconds=0).completed == 1


def test_unsent_confirmation_is_dropped_after_timeout(river: River) -> None:
    request = schedule(river, create_alice(river))
    river.clock.advance(workflow.WAIT)
    run(river, ErasureDependencies(PayPal()))
    river.clock.advance(workflow.GIVE_UP_MAIL)
    assert run(river, ErasureDependencies(PayPal())) == 1
    mail = river.mails()[f"account_deleted:{request.id}"]
    assert (mail.state, mail.facts, mail.due_at) == ("withheld", None, None)
