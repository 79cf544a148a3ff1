"""The outbox: a mail is queued once, claimed by one holder, and its result is recorded by that holder."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy.orm import Session

from pipeline.db.models import EncryptionKey, Mail
from pipeline.outbox import store as outbox
from pipeline.outbox import tokens
from pipeline.outbox.mail_kinds import UnknownMailKindError
from pipeline.outbox.store import OPERATOR, NewMail
from tests.support.pipeline_under_test import PipelineUnderTest

MINUTE = timedelta(minutes=1)
RECEIPT = NewMail("receipt", "receipt:SALE1", "I-ADA", {"payment": "SALE1", "plan": "for Ada"})


def in_transaction(pipeline: PipelineUnderTest, action: Callable[[Session], Any]) -> Any:
    with pipeline.database.transaction() as session:
        return action(session)


def claim(pipeline: PipelineUnderTest, holder: str = "one", limit: int = 50) -> list[str]:
    return [
        row.idempotency_key
        for row in in_transaction(pipeline, lambda session: outbox.claim(session, holder, pipeline.now, limit))
    ]


def only(pipeline: PipelineUnderTest) -> Mail:
    [row] = pipeline.rows(Mail)
    return row


# Queueing


def test_queued_mail_stores_encrypted_facts(pipeline: PipelineUnderTest) -> None:
    [mail_id] = pipeline.owe(RECEIPT)
    row = only(pipeline)
    assert (row.id, row.idempotency_key, row.kind, row.state) == (mail_id, "receipt:SALE1", "receipt", "queued")
    assert (row.subscription_id, row.key_id) == ("I-ADA", "I-ADA")
    assert (row.created_at, row.due_at, row.attempts) == (pipeline.now, pipeline.now, 0)
    assert row.facts is not None
    assert b"Ada" not in row.facts
    with pipeline.database.transaction() as session:
        assert pipeline.keyring(session).system_key("I-ADA").decrypt_json("mail.facts", row.facts) == RECEIPT.facts


def test_first_mail_with_a_key_is_queued(pipeline: PipelineUnderTest) -> None:
    other = NewMail("receipt", "receipt:SALE1", "I-ADA", {"payment": "another"})
    assert len(pipeline.owe(RECEIPT, other)) == 1
    assert pipeline.owe(other) == []
    with pipeline.database.transaction() as session:
        facts = pipeline.keyring(session).system_key("I-ADA").decrypt_json("mail.facts", only(pipeline).facts)
    assert facts["payment"] == "SALE1"


def test_parallel_enqueue_queues_one_mail(pipeline: PipelineUnderTest) -> None:
    barrier = threading.Barrier(4, timeout=30)

    def enqueue(_: int) -> list[str]:
        barrier.wait()
        return pipeline.owe(RECEIPT)

    with ThreadPoolExecutor(4) as pool:
        assert sum(len(ids) for ids in pool.map(enqueue, range(4))) == 1
    assert pipeline.count(Mail) == 1


def test_failed_transaction_queues_no_mail(pipeline: PipelineUnderTest) -> None:
    def fail(session: Session) -> None:
        outbox.enqueue(session, pipeline.keyring(session), [RECEIPT], pipeline.now)
        raise ValueError("the handler failed")

    with pytest.raises(ValueError, match="the handler failed"):
        in_transaction(pipeline, fail)
    assert pipeline.count(Mail) == 0


def test_mail_id_is_an_unforgeable_token(pipeline: PipelineUnderTest) -> None:
    [mail_id] = pipeline.owe(RECEIPT)
    assert len(mail_id) == 26
    assert mail_id.isalnum()
    assert mail_id.islower()
    with pipeline.database.transaction() as session:
        keyring = pipeline.keyring(session)
        assert tokens.mail_token(keyring, "receipt:SALE1") == mail_id
        assert tokens.mail_token(keyring, "receipt:SALE2") != mail_id


def test_withheld_mail_has_reason_and_is_never_due(pipeline: PipelineUnderTest) -> None:
    assert pipeline.owe(NewMail("receipt", "receipt:SALE1", "I-ADA", {}, withheld="superseded")) == []
    assert (only(pipeline).state, only(pipeline).reason, only(pipeline).due_at) == ("withheld", "superseded", None)
    pipeline.clock.advance(timedelta(days=365))
    assert claim(pipeline) == []


def test_mail_without_address_is_not_due(pipeline: PipelineUnderTest) -> None:
    assert pipeline.owe(NewMail("receipt", "receipt:SALE1", "I-ADA", {}, has_address=False)) == []
    assert (only(pipeline).state, only(pipeline).due_at) == ("queued", None)
    assert claim(pipeline) == []


def test_no_mail_is_queued_for_erased_customer(pipeline: PipelineUnderTest) -> None:
    pipeline.owe(RECEIPT)
    pipeline.set(
        next(row for row in pipeline.rows(EncryptionKey) if row.key_id == "I-ADA"),
        wrapped_key=None,
        erased_at=pipeline.now,
    )
    [mail_id] = pipeline.owe(
        NewMail("receipt", "receipt:SALE2", "I-ADA", {}), NewMail("receipt", "receipt:SALE3", "I-BEA", {})
    )
    assert mail_id == pipeline.mails()["receipt:SALE3"].id
    assert set(pipeline.mails()) == {"receipt:SALE1", "receipt:SALE3"}


def test_operator_mail_has_no_subscription(pipeline: PipelineUnderTest) -> None:
    pipeline.owe(NewMail("event_parked", "event_parked:1", None, {"count": 1}))
    assert (only(pipeline).key_id, only(pipeline).subscription_id) == (OPERATOR, None)


# Claims


def test_claim_takes_oldest_due_mails_up_to_limit(pipeline: PipelineUnderTest) -> None:
    for number in (2, 1, 3):
        pipeline.owe(NewMail("receipt", f"receipt:SALE{number}", "I-ADA", {}))
        pipeline.clock.advance(MINUTE)
    assert claim(pipeline, limit=2) == ["receipt:SALE2", "receipt:SALE1"]
    assert claim(pipeline, "two") == ["receipt:SALE3"]
    assert claim(pipeline) == []
    row = pipeline.mails()["receipt:SALE2"]
    assert (row.state, row.claimed_by, row.attempts) == ("sending", "one", 1)
    assert row.claimed_at == pipeline.now


def test_parallel_claims_never_take_the_same_mail(pipeline: PipelineUnderTest) -> None:
    pipeline.owe(*[NewMail("receipt", f"receipt:SALE{number}", "I-ADA", {}) for number in range(40)])
    barrier = threading.Barrier(4, timeout=30)

    def take(number: int) -> list[str]:
        barrier.wait()
        return [key for _ in range(5) for key in claim(pipeline, f"mailer-{number}", 5)]

    with ThreadPoolExecutor(4) as pool:
        claimed = [key for keys in pool.map(take, range(4)) for key in keys]
    assert sorted(claimed) == sorted(pipeline.mails())
    assert len(set(claimed)) == 40


def test_claim_skips_mails_locked_by_another_claim(postgresql_pipeline: PipelineUnderTest) -> None:
    postgresql_pipeline.owe(*[NewMail("receipt", f"receipt:SALE{number}", "I-ADA", {}) for number in range(6)])
    with postgresql_pipeline.database.transaction() as one, postgresql_pipeline.database.transaction() as two:
        first, second = (
            outbox.claim(one, "one", postgresql_pipeline.now, 4),
            outbox.claim(two, "two", postgresql_pipeline.now, 4),
        )
        assert (len(first), len(second)) == (4, 2)


# Results


def test_only_holder_records_result(pipeline: PipelineUnderTest) -> None:
    [mail_id] = pipeline.owe(RECEIPT)
    claim(pipeline, "one")
    sent = {"state": "sent", "sent_at": pipeline.now}
    assert not in_transaction(pipeline, lambda session: outbox.record_results(session, [(mail_id, "two", sent)]))
    assert only(pipeline).state == "sending"
    assert in_transaction(pipeline, lambda session: outbox.record_results(session, [(mail_id, "one", sent)]))
    assert only(pipeline).state == "sent"
    assert not in_transaction(
        pipeline, lambda session: outbox.record_results(session, [(mail_id, "one", {"state": "failed"})])
    )
    assert only(pipeline).state == "sent"


def test_holder_may_record_result_of_doubtful_mail(pipeline: PipelineUnderTest) -> None:
    [mail_id] = pipeline.owe(RECEIPT)
    claim(pipeline, "one")
    assert in_transaction(pipeline, lambda session: outbox.mark_in_doubt(session, "one", "it died")) == 1
    assert (only(pipeline).state, only(pipeline).reason) == ("doubt", "it died")
    sent = {"state": "sent", "sent_at": pipeline.now, "reason": None}
    assert in_transaction(pipeline, lambda session: outbox.record_results(session, [(mail_id, "one", sent)]))
    assert (only(pipeline).state, only(pipeline).reason) == ("sent", None)


def test_mail_in_doubt_is_never_claimed_again(pipeline: PipelineUnderTest) -> None:
    pipeline.owe(RECEIPT)
    claim(pipeline)
    in_transaction(pipeline, lambda session: outbox.mark_in_doubt(session, "one", "it died"))
    pipeline.clock.advance(timedelta(days=365))
    assert claim(pipeline, "two") == []
    assert pipeline.owe(RECEIPT) == []


def test_claim_holders_lists_current_holders(pipeline: PipelineUnderTest) -> None:
    def holders() -> list[str]:
        with pipeline.database.reading() as session:
            return sorted(outbox.claim_holders(session))

    assert holders() == []
    pipeline.owe(*[NewMail("receipt", f"receipt:SALE{number}", "I-ADA", {}) for number in range(3)])
    claim(pipeline, "one", 2)
    claim(pipeline, "two", 1)
    assert holders() == ["one", "two"]
    in_transaction(pipeline, lambda session: outbox.mark_in_doubt(session, "one", "it died"))
    assert holders() == ["two"]


def test_released_claim_is_queued_again(pipeline: PipelineUnderTest) -> None:
    pipeline.owe(*[NewMail("receipt", f"receipt:SALE{number}", "I-ADA", {}) for number in range(2)])
    claimed = claim(pipeline, "one", 1)
    claim(pipeline, "two", 1)
    in_transaction(pipeline, lambda session: outbox.release_claims(session, "one"))
    assert claim(pipeline, "three") == claimed


@pytest.mark.parametrize("sent", [True, False])
def test_operator_resolves_doubt(pipeline: PipelineUnderTest, sent: bool) -> None:
    [mail_id] = pipeline.owe(RECEIPT)

    def resolve() -> bool:
        return bool(
            in_transaction(pipeline, lambda session: outbox.resolve_doubt(session, mail_id, pipeline.now, sent=sent))
        )

    assert not resolve(), "a queued mail is not in doubt"
    claim(pipeline)
    assert not resolve(), "a mail that is being sent is not in doubt"
    in_transaction(pipeline, lambda session: outbox.mark_in_doubt(session, "one", "it died"))
    assert resolve()
    assert claim(pipeline, "two") == ([] if sent else ["receipt:SALE1"])
    assert only(pipeline).state == ("sent" if sent else "sending")
    late_result = {"state": "failed"}
    assert not in_transaction(
        pipeline, lambda session: outbox.record_results(session, [(mail_id, "one", late_result)])
    ), "the former holder must not record a result"


def test_retry_delays_are_as_documented(clock: Any) -> None:
    now: datetime = clock.now()
    waits = [outbox.next_try(attempts, now) for attempts in range(1, 9)]
    assert [wait and wait - now for wait in waits] == [
        MINUTE,
        5 * MINUTE,
        15 * MINUTE,
        timedelta(hours=1),
        timedelta(hours=4),
        timedelta(hours=12),
        timedelta(hours=24),
        None,
    ]


# Unsubscribe links


def test_unsubscribe_token_is_unforgeable(pipeline: PipelineUnderTest) -> None:
    [mail] = pipeline.owe(RECEIPT)
    with pipeline.database.transaction() as session:
        keyring = pipeline.keyring(session)
        link = tokens.unsubscribe_token(keyring, mail)
        assert tokens.read_unsubscribe_token(keyring, link) == mail
        other = link[:-1] + ("a" if link[-1] != "a" else "b")
        for forged in ("", mail, link[:-1], other, link + "a", "é" * len(link), mail + mail):
            assert tokens.read_unsubscribe_token(keyring, forged) is None


def test_unknown_mail_kind_cannot_be_queued(pipeline: PipelineUnderTest) -> None:
    with pytest.raises(UnknownMailKindError, match="surprise"):
        pipeline.owe(NewMail("surprise", "surprise:1", None, {}))
    assert pipeline.rows(Mail) == []
