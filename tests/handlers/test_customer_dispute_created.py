"""CUSTOMER.DISPUTE.CREATED stores the dispute and mails the operator the deadline."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import permutations

import pytest

from pipeline.db.models import Dispute
from tests.support.event_feeder import EventFeeder
from tests.support.example_people import ALICE
from tests.support.sample_events import GONE, sample

CREATED, UPDATED, RESOLVED = (f"CUSTOMER.DISPUTE.{each}" for each in ("CREATED", "UPDATED", "RESOLVED"))
SALE = "3AL51924877811803"


def dispute(feeder: EventFeeder) -> Dispute:
    [row] = feeder.pipeline.rows(Dispute)
    return row


def test_dispute_is_stored_and_the_operator_is_told_the_deadline(feeder: EventFeeder) -> None:
    feeder.hear(sample("PAYMENT.SALE.COMPLETED", {"id": SALE}), sample(CREATED))
    row = dispute(feeder)
    assert (row.payment_id, row.amount, row.currency, row.resolved_at) == (SALE, 2900, "EUR", None)
    assert row.due_at == datetime(2026, 3, 12, 8, tzinfo=UTC)
    mail = feeder.mail("dispute")
    assert (mail.due, mail.facts["due_at"]) == (True, "2026-03-12T08:00:00Z")
    assert mail.facts["reason"] == "merchandise or service not received"


@pytest.mark.parametrize("order", list(permutations([CREATED, UPDATED, RESOLVED])))
def test_any_order_gives_the_same_dispute(feeder: EventFeeder, order: tuple[str, ...]) -> None:
    feeder.hear(*(sample(each) for each in order))
    row = dispute(feeder)
    assert (row.status, row.outcome, row.due_at) == (
        "RESOLVED", "RESOLVED_SELLER_FAVOUR", datetime(2026, 3, 12, 8, tzinfo=UTC),
    )  # fmt: skip
    assert row.resolved_at == datetime(2026, 3, 25, 8, tzinfo=UTC)


def test_repeated_event_mails_once(feeder: EventFeeder) -> None:
    feeder.hear(sample(CREATED), sample(CREATED))
    assert len(feeder.mails()) == 1


def test_payment_that_is_not_stored_is_looked_up(feeders: Callable[..., EventFeeder]) -> None:
    """Otherwise nobody knows whose access and reminders the dispute concerns."""
    feeder = feeders({("sale", SALE): sample("PAYMENT.SALE.COMPLETED")["resource"] | {"id": SALE}})
    feeder.hear(sample(CREATED))
    assert feeder.questions() == [("sale", SALE)]
    feeder.ask(timedelta(hours=1))
    assert feeder.payments()[SALE].subscription_id == ALICE.subscription


def test_payment_that_is_stored_is_not_looked_up(feeders: Callable[..., EventFeeder]) -> None:
    feeder = feeders({})
    feeder.hear(sample("PAYMENT.SALE.COMPLETED", {"id": SALE}), sample(CREATED))
    assert ("sale", SALE) not in feeder.questions()


def test_dispute_without_id_is_parked(feeder: EventFeeder) -> None:
    feeder.hear(sample(CREATED, {"dispute_id": GONE}))
    assert feeder.reasons() == [f"{CREATED} has no dispute"]
