"""The steps of an erasure: PayPal and the product first, then the data, then the confirmation."""

from datetime import UTC, datetime

import pytest

from pipeline.crypto import rotation
from pipeline.customers import accounts
from pipeline.db.models import (
    EncryptionKey,
    Erasure,
    PrivacyRequest,
)
from pipeline.paypal.errors import PaypalUnavailableError
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
from tests.support.pipeline_under_test import PipelineUnderTest
from tests.support.sample_events import sample


def test_erasure_cancels_subscription_and_notifies_product(pipeline: PipelineUnderTest) -> None:
    paypal, product = PayPal(), RecordingProduct()
    erase_completely(pipeline, create_alice(pipeline), ErasureDependencies(paypal, product))
    assert paypal.cancelled == [ALICE.subscription]
    assert product.calls == [  # type: ignore[attr-defined]
        {"action": "erase", "customer": ALICE.custom_id, "email": ALICE.email}
    ]


def test_nothing_is_erased_before_paypal_and_product_succeed(pipeline: PipelineUnderTest) -> None:
    id = create_alice(pipeline)
    request = schedule(pipeline, id)
    pipeline.clock.advance(workflow.WAIT)
    dependencies = ErasureDependencies(PayPal(refusals=1), RecordingProduct(["answered 500"]))
    assert [run(pipeline, dependencies), run(pipeline, dependencies)] == [0, 0]
    assert pipeline.count(Erasure) == 0
    assert "answered 500" in str(pipeline.rows(PrivacyRequest)[-1].reason) or "answered 500" in reasons(pipeline)
    with pipeline.database.transaction() as session:
        assert accounts.personal_data(session, pipeline.keyring(session), id)["email"] == ALICE.email
    assert run(pipeline, dependencies) == 1
    confirm(pipeline, request)
    run(pipeline, dependencies)
    assert pipeline.count(Erasure) == 1


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PaypalUnavailableError("PayPal answered 503; try again"), "PayPal answered 503; try again"),
        (ValueError("alice@example.com"), f"internal error at {__name__}:"),
    ],
)
def test_operator_reads_what_happened_and_no_class_name(
    sqlite_pipeline: PipelineUnderTest, error: Exception, words: str
) -> None:
    class Failing(PayPal):
        def cancel_subscription(self, id: str, reason: str) -> None:
            raise error

    request = schedule(sqlite_pipeline, create_alice(sqlite_pipeline))
    sqlite_pipeline.clock.advance(workflow.WAIT)
    run(sqlite_pipeline, ErasureDependencies(Failing()))
    [reason] = [row.reason for row in sqlite_pipeline.rows(PrivacyRequest) if row.id == request.id]
    assert reason is not None
    assert reason.rstrip("0123456789") == f"PayPal has not cancelled {ALICE.subscription} yet: {words}"


def test_operator_is_alerted_after_repeated_failures(pipeline: PipelineUnderTest) -> None:
    request = schedule(pipeline, create_alice(pipeline))
    pipeline.clock.advance(workflow.WAIT)
    run(pipeline, ErasureDependencies(PayPal(refusals=9)))
    assert f"erasure_waits:{request.id}" not in pipeline.mails()
    pipeline.clock.advance(workflow.ALERT_AFTER)
    run(pipeline, ErasureDependencies(PayPal(refusals=9)))
    run(pipeline, ErasureDependencies(PayPal(refusals=9)))
    assert len([key for key in pipeline.mails() if key == f"erasure_waits:{request.id}"]) == 1


def test_operator_is_alerted_at_once_without_credentials(pipeline: PipelineUnderTest) -> None:
    request = schedule(pipeline, create_alice(pipeline))
    pipeline.clock.advance(workflow.WAIT)
    assert run(pipeline, ErasureDependencies()) == 0
    assert f"erasure_waits:{request.id}" in pipeline.mails()
    assert ALICE.subscription in reasons(pipeline)
    pipeline.clock.move_to(datetime(2026, 3, 10, 18, 23, tzinfo=UTC))
    receive(pipeline, sample("BILLING.SUBSCRIPTION.CANCELLED"))
    assert run(pipeline, ErasureDependencies()) == 1


def test_killed_erasure_continues(pipeline: PipelineUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    id, paypal = create_alice(pipeline), PayPal()
    schedule(pipeline, id)
    pipeline.clock.advance(workflow.WAIT)
    with monkeypatch.context() as patch:
        patch.setattr(workflow, "erase_rows", die)
        with pytest.raises(KeyboardInterrupt):
            run(pipeline, ErasureDependencies(paypal))
    assert (pipeline.count(Erasure), paypal.cancelled) == (0, [ALICE.subscription])
    assert run(pipeline, ErasureDependencies(paypal)) == 1
    assert pipeline.count(Erasure) == 1


def die(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_confirmation_key_is_destroyed_after_sending(pipeline: PipelineUnderTest) -> None:
    request = schedule(pipeline, create_alice(pipeline))
    pipeline.clock.advance(workflow.WAIT)
    run(pipeline, ErasureDependencies(PayPal(), country="DE"))
    mail = pipeline.mails()[f"account_deleted:{request.id}"]
    with pipeline.database.transaction() as session:
        facts = pipeline.keyring(session).system_key(mail.key_id).decrypt_json("mail.facts", mail.facts)
        assert ALICE.email in facts.values()
        assert facts["kept_until"] == "2034-12-31T23:59:59Z"
    assert run(pipeline, ErasureDependencies(PayPal())) == 0  # the confirmation is still queued
    confirm(pipeline, request)
    assert run(pipeline, ErasureDependencies(PayPal())) == 1
    mail = pipeline.mails()[mail.idempotency_key]
    assert (mail.state, mail.facts, mail.recipient, mail.frozen, mail.relay_reply) == ("sent", None, None, None, None)
    assert [row.wrapped_key for row in pipeline.rows(EncryptionKey) if row.key_id == mail.key_id] == [None]
    assert mail.key_id in pipeline.rows(Erasure)[0].key_ids


def test_erasure_is_incomplete_until_confirmation_key_is_destroyed(pipeline: PipelineUnderTest) -> None:
    request = schedule(pipeline, create_alice(pipeline))
    pipeline.clock.advance(workflow.WAIT)
    run(pipeline, ErasureDependencies(PayPal()))
    path = pipeline.folder / "keys" / "master.key"
    assert rotation.rotate(pipeline.database, path, pipeline.now, grace_seconds=0).completed == 0
    with pipeline.database.reading() as session:
        assert not rotation.is_pending(session)
    confirm(pipeline, request)
    run(pipeline, ErasureDependencies(PayPal()))
    assert pipeline.rows(Erasure)[0].completed_at is None
    assert rotation.rotate(pipeline.database, path, pipeline.now, grace_seconds=0).completed == 1


def test_unsent_confirmation_is_dropped_after_timeout(pipeline: PipelineUnderTest) -> None:
    request = schedule(pipeline, create_alice(pipeline))
    pipeline.clock.advance(workflow.WAIT)
    run(pipeline, ErasureDependencies(PayPal()))
    pipeline.clock.advance(workflow.GIVE_UP_MAIL)
    assert run(pipeline, ErasureDependencies(PayPal())) == 1
    mail = pipeline.mails()[f"account_deleted:{request.id}"]
    assert (mail.state, mail.facts, mail.due_at) == ("withheld", None, None)
