"""An erasure is carried out step by step: PayPal and the product first, then the data, then the confirmation."""

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
    Told,
    confirm,
    erase_whole,
    meet_alice,
    reasons,
    run,
    schedule,
    tell,
)
from tests.support.example_people import ALICE
from tests.support.pipeline_under_test import River
from tests.support.sample_events import sample


def test_the_running_subscription_is_cancelled_and_the_product_told_first(river: River) -> None:
    paypal, product = PayPal(), Told()
    erase_whole(river, meet_alice(river), ErasureDependencies(paypal, product))
    assert paypal.cancelled == [ALICE.subscription]
    assert product.said == [  # type: ignore[attr-defined]
        {"action": "erase", "customer": ALICE.custom_id, "email": ALICE.email}
    ]


def test_a_refusal_of_paypal_or_of_the_product_is_tried_again_and_nothing_is_erased_before(river: River) -> None:
    id = meet_alice(river)
    asked = schedule(river, id)
    river.clock.advance(workflow.WAIT)
    outside = ErasureDependencies(PayPal(refusals=1), Told(["answered 500"]))
    assert [run(river, outside), run(river, outside)] == [0, 0]
    assert river.count(Erasure) == 0
    assert "answered 500" in str(river.rows(PrivacyRequest)[-1].reason) or "answered 500" in reasons(river)
    with river.database.transaction() as session:
        assert accounts.personal_data(session, river.keyring(session), id)["email"] == ALICE.email
    assert run(river, outside) == 1
    confirm(river, asked)
    run(river, outside)
    assert river.count(Erasure) == 1


def test_the_operator_is_told_when_it_takes_long(river: River) -> None:
    asked = schedule(river, meet_alice(river))
    river.clock.advance(workflow.WAIT)
    run(river, ErasureDependencies(PayPal(refusals=9)))
    assert f"erasure_waits:{asked.id}" not in river.mails()
    river.clock.advance(workflow.TELL_AFTER)
    run(river, ErasureDependencies(PayPal(refusals=9)))
    run(river, ErasureDependencies(PayPal(refusals=9)))
    assert len([key for key in river.mails() if key == f"erasure_waits:{asked.id}"]) == 1


def test_without_credentials_the_operator_is_told_at_once_and_paypals_word_lets_it_go_on(river: River) -> None:
    asked = schedule(river, meet_alice(river))
    river.clock.advance(workflow.WAIT)
    assert run(river, ErasureDependencies()) == 0
    assert f"erasure_waits:{asked.id}" in river.mails()
    assert ALICE.subscription in reasons(river)
    tell(river, sample("BILLING.SUBSCRIPTION.CANCELLED"))
    assert run(river, ErasureDependencies()) == 1


def test_killed_between_two_steps_it_goes_on_where_it_was(river: River, monkeypatch: pytest.MonkeyPatch) -> None:
    id, paypal = meet_alice(river), PayPal()
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


def test_the_confirmation_goes_to_the_address_with_a_key_of_its_own_that_dies_with_it(river: River) -> None:
    asked = schedule(river, meet_alice(river))
    river.clock.advance(workflow.WAIT)
    run(river, ErasureDependencies(PayPal(), country="DE"))
    mail = river.mails()[f"account_deleted:{asked.id}"]
    with river.database.transaction() as session:
        facts = river.keyring(session).system_key(mail.key_id).decrypt_json("mail.facts", mail.facts)
        assert ALICE.email in facts.values()
        assert facts["kept_until"] == "2034-12-31T23:59:59Z"
    assert run(river, ErasureDependencies(PayPal())) == 0  # it is still on its way
    confirm(river, asked)
    assert run(river, ErasureDependencies(PayPal())) == 1
    mail = river.mails()[mail.idempotency_key]
    assert (mail.state, mail.facts, mail.recipient, mail.frozen, mail.relay_reply) == ("sent", None, None, None, None)
    assert [row.wrapped_key for row in river.rows(EncryptionKey) if row.key_id == mail.key_id] == [None]
    assert mail.key_id in river.rows(Erasure)[0].key_ids


def test_it_is_not_complete_while_the_key_of_the_confirmation_lives(river: River) -> None:
    asked = schedule(river, meet_alice(river))
    river.clock.advance(workflow.WAIT)
    run(river, ErasureDependencies(PayPal()))
    path = river.folder / "keys" / "master.key"
    assert rotation.rotate(river.database, path, river.now, grace_seconds=0).completed == 0
    with river.database.reading() as session:
        assert not rotation.is_pending(session)
    confirm(river, asked)
    run(river, ErasureDependencies(PayPal()))
    assert river.rows(Erasure)[0].completed_at is None
    assert rotation.rotate(river.database, path, river.now, grace_seconds=0).completed == 1


def test_an_address_is_not_kept_for_a_confirmation_that_cannot_be_sent(river: River) -> None:
    asked = schedule(river, meet_alice(river))
    river.clock.advance(workflow.WAIT)
    run(river, ErasureDependencies(PayPal()))
    river.clock.advance(workflow.GIVE_UP_MAIL)
    assert run(river, ErasureDependencies(PayPal())) == 1
    mail = river.mails()[f"account_deleted:{asked.id}"]
    assert (mail.state, mail.facts, mail.due_at) == ("withheld", None, None)
