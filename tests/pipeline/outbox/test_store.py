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
from tests.support.pipeline_under_test import River

MINUTE = timedelta(minutes=1)
RECEIPT = NewMail("receipt", "receipt:SALE1", "I-ADA", {"payment": "SALE1", "plan": "for Ada"})


def in_transaction(river: River, action: Callable[[Session], Any]) -> Any:
    with river.database.transaction() as session:
        return action(session)


def claim(river: River, holder: str = "one", limit: int = 50) -> list[str]:
    return [
        row.idempotency_key
        for row in in_transaction(river, lambda session: outbox.claim(session, holder, river.now, limit))
    ]


def only(river: River) -> Mail:
    [row] = river.rows(Mail)
    return row


# Queueing


def test_queued_mail_stores_encrypted_facts(river: River) -> None:
    [mail_id] = river.owe(RECEIPT)
    row = only(river)
    assert (row.id, row.idempotency_key, row.kind, row.state) == (mail_id, "receipt:SALE1", "receipt", "queued")
    assert (row.subscription_id, row.key_id) == ("I-ADA", "I-ADA")
    assert (row.created_at, row.due_at, row.attempts) == (river.now, river.now, 0)
    assert row.facts is not None
    assert b"Ada" not in row.facts
    with river.database.transaction() as session:
        assert river.keyring(session).system_key("I-ADA").decrypt_json("mail.facts", row.facts) == RECEIPT.facts


def test_first_mail_with_a_key_is_queued(river: River) -> None:
    other = NewMail("receipt", "receipt:SALE1", "I-ADA", {"payment": "another"})
    assert len(river.owe(RECEIPT, other)) == 1
    assert river.owe(other) == []
    with river.database.transaction() as session:
        facts = river.keyring(session).system_key("I-ADA").decrypt_json("mail.facts", only(river).facts)
    assert facts["payment"] == "SALE1"


def test_parallel_enqueue_queues_one_mail(river: River) -> None:
    barrier = threading.Barrier(4, timeout=30)

    def enqueue(_: int) -> list[str]:
        barrier.wait()
        return river.owe(RECEIPT)

    with ThreadPoolExecutor(4) as pool:
        assert sum(len(ids) for ids in pool.map(enqueue, range(4))) == 1
    assert river.count(Mail) == 1


def test_failed_transaction_queues_no_mail(river: River) -> None:
    def fail(session: Session) -> None:
        outbox.enqueue(session, river.keyring(session), [RECEIPT], river.now)
        raise ValueError("the handler failed")

    with pytest.raises(ValueError, match="the handler failed"):
        in_transaction(river, fail)
    assert river.count(Mail) == 0


def test_mail_id_is_an_unforgeable_token(river: River) -> None:
    [mail_id] = river.owe(RECEIPT)
    assert len(mail_id) == 26
    assert mail_id.isalnum()
    assert mail_id.islower()
    with river.database.transaction() as session:
        keyring = river.keyring(session)
        assert tokens.mail_token(keyring, "receipt:SALE1") == mail_id
        assert tokens.mail_token(keyring, "receipt:SALE2") != mail_id


def test_withheld_mail_has_reason_and_is_never_due(river: River) -> None:
    assert river.owe(NewMail("receipt", "receipt:SALE1", "I-ADA", {}, withheld="superseded")) == []
    assert (only(river).state, only(river).reason, only(river).due_at) == ("withheld", "superseded", None)
    river.clock.advance(timedelta(days=365))
    assert claim(river) == []


def test_mail_without_address_is_not_due(river: River) -> None:
    assert river.owe(NewMail("receipt", "receipt:SALE1", "I-ADA", {}, has_address=False)) == []
    assert (only(river).state, only(river).due_at) == ("queued", None)
    assert claim(river) == []


def test_no_mail_is_queued_for_erased_customer(river: River) -> None:
    river.owe(RECEIPT)
    river.set(
        next(row for row in river.rows(EncryptionKey) if row.key_id == "I-ADA"), wrapped_key=None, erased_at=river.now
    )
    [mail_id] = river.owe(
        NewMail("receipt", "receipt:SALE2", "I-ADA", {}), NewMail("receipt", "receipt:SALE3", "I-BEA", {})
    )
    assert mail_id == river.mails()["receipt:SALE3"].id
    assert set(river.mails()) == {"receipt:SALE1", "receipt:SALE3"}


def test_operator_mail_has_no_subscription(river: River) -> None:
    river.owe(NewMail("event_parked", "event_parked:1", None, {"count": 1}))
    assert (only(river).key_id, only(river).subscription_id) == (OPERATOR, None)


# Claims


def test_claim_takes_oldest_due_mails_up_to_limit(river: River) -> None:
    for number in (2, 1, 3):
        river.owe(NewMail("receipt", f"receipt:SALE{number}", "I-ADA", {}))
        river.clock.advance(MINUTE)
    assert claim(river, limit=2) == ["receipt:SALE2", "receipt:SALE1"]
    assert claim(river, "two") == ["receipt:SALE3"]
    assert claim(river) == []
    row = river.mails()["receipt:SALE2"]
    assert (row.state, row.claimed_by, row.attempts) == ("sending", "one", 1)
    assert row.claimed_at == river.now


def test_parallel_claims_never_take_the_same_mail(river: River) -> None:
    river.owe(*[NewMail("receipt", f"receipt:SALE{number}", "I-ADA", {}) for number in range(40)])
    barrier = threading.Barrier(4, timeout=30)

    def take(number: int) -> list[str]:
        barrier.wait()
        return [key for _ in range(5) for key in claim(river, f"mailer-{number}", 5)]

    with ThreadPoolExecutor(4) as pool:
        claimed = [key for keys in pool.map(take, range(4)) for key in keys]
    assert sorted(claimed) == sorted(river.mails())
    assert len(set(claimed)) == 40


def test_claim_skips_mails_locked_by_another_claim(stream: River) -> None:
    stream.owe(*[NewMail("receipt", f"receipt:SALE{number}", "I-ADA", {}) for number in range(6)])
    with stream.database.transaction() as one, stream.database.transaction() as two:
        first, second = outbox.claim(one, "one", stream.now, 4), outbox.claim(two, "two", stream.now, 4)
        assert (len(first), len(second)) == (4, 2)


# Results


def test_only_holder_records_result(river: River) -> None:
    [mail_id] = river.owe(RECEIPT)
    claim(river, "one")
    sent = {"state": "sent", "sent_at": river.now}
    assert not in_transaction(river, lambda session: outbox.record_results(session, [(mail_id, "two", sent)]))
    assert only(river).state == "sending"
    assert in_transaction(river, lambda session: outbox.record_results(session, [(mail_id, "one", sent)]))
    assert only(river).state == "sent"
    assert not in_transaction(
        river, lambda session: outbox.record_results(session, [(mail_id, "one", {"state": "failed"})])
    )
    assert only(river).state == "sent"


def test_holder_may_record_result_of_doubtful_mail(river: River) -> None:
    [mail_id] = river.owe(RECEIPT)
    claim(river, "one")
    assert in_transaction(river, lambda session: outbox.mark_in_doubt(session, "one", "it died")) == 1
    assert (only(river).state, only(river).reason) == ("doubt", "it died")
    sent = {"state": "sent", "sent_at": river.now, "reason": None}
    assert in_transaction(river, lambda session: outbox.record_results(session, [(mail_id, "one", sent)]))
    assert (only(river).state, only(river).reason) == ("sent", None)


def test_mail_in_doubt_is_never_claimed_again(river: River) -> None:
    river.owe(RECEIPT)
    claim(river)
    in_transaction(river, lambda session: outbox.mark_in_doubt(session, "one", "it died"))
    river.clock.advance(timedelta(days=365))
    assert claim(river, "two") == []
    assert river.owe(RECEIPT) == []


def test_claim_holders_lists_current_holders(river: River) -> None:
    def holders() -> list[str]:
        with river.database.reading() as session:
            return sorted(outbox.claim_holders(session))

    assert holders() == []
    river.owe(*[NewMail("receipt", f"receipt:SALE{number}", "I-ADA", {}) for number in range(3)])
    claim(river, "one", 2)
    claim(river, "two", 1)
    assert holders() == ["one", "two"]
    in_transaction(river, lambda session: outbox.mark_in_doubt(session, "one", "it died"))
    assert holders() == ["two"]


def test_released_claim_is_queued_again(river: River) -> None:
    river.owe(*[NewMail("receipt", f"receipt:SALE{number}", "I-ADA", {}) for number in range(2)])
    claimed = claim(river, "one", 1)
    claim(river, "two", 1)
    in_transaction(river, lambda session: outbox.release_claims(session, "one"))
    assert claim(river, "three") == claimed


@pytest.mark.parametrize("sent", [True, False])
def test_operator_resolves_doubt(river: River, sent: bool) -> None:
    [mail_id] = river.owe(RECEIPT)

    def resolve() -> bool:
        return bool(in_transaction(river, lambda session: outbox.resolve_doubt(session, mail_id, river.now, sent=sent)))

    assert not resolve(), "a queued mail is not in doubt"
    claim(river)
    assert not resolve(), "a mail that is being sent is not in doubt"
    in_transaction(river, lambda session: outbox.mark_in_doubt(session, "one", "it died"))
    assert resolve()
    assert claim(river, "two") == ([] if sent else ["receipt:SALE1"])
    assert only(river).state == ("sent" if sent else "sending")
    late_result = {"state": "failed"}
    assert not in_transaction(river, lambda session: outbox.record_results(session, [(mail_id, "one", late_result)])), (
        "the former holder must not record a result"
    )


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


def test_oldest_unsent_ignores_mail_without_address(river: River) -> None:
    def oldest() -> datetime | None:
        with river.database.reading() as session:
            return outbox.oldest_unsent(session, river.now)

    assert oldest() is None
    began = river.now
    river.owe(NewMail("receipt", "receipt:SALE0", "I-ADA", {}, has_address=False))
    assert oldest() is None, "a mail without an address cannot be sent"
    river.owe(RECEIPT)
    river.clock.advance(MINUTE)
    river.owe(NewMail("receipt", "receipt:SALE2", "I-ADA", {}))
    assert oldest() == began
    claim(river, limit=1)
    assert oldest() == began + MINUTE


# Unsubscribe links


def test_unsubscribe_token_is_unforgeable(river: River) -> None:
    [mail] = river.owe(RECEIPT)
    with river.database.transaction() as session:
        keyring = river.keyring(session)
        link = tokens.unsubscribe_token(keyring, mail)
        assert tokens.read_unsubscribe_token(keyring, link) == mail
        other = link[:-1] + ("a" if link[-1] != "a" else "b")
        for forged in ("", mail, link[:-1], other, link + "a", "é" * len(link), mail + mail):
            assert tokens.read_unsubscribe_token(keyring, forged) is None


def test_unknown_mail_kind_cannot_be_queued(river: River) -> None:
    with pytest.raises(UnknownMailKindError, match="surprise"):
        river.owe(NewMail("surprise", "surprise:1", None, {}))
    assert river.rows(Mail) == []
