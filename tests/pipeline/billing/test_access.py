"""Access ends with the paid period, and during a dispute if the vendor wants that."""

from itertools import permutations
from typing import Any

import pytest

from pipeline.billing.access import access_until, disputed_since
from pipeline.queries import subscriptions
from pipeline.queries.listing import ListQuery
from tests.support.event_feeder import EventFeeder, at
from tests.support.example_people import ALICE
from tests.support.pipeline_under_test import PipelineUnderTest
from tests.support.sample_events import sample

CREATED, UPDATED, RESOLVED = (f"CUSTOMER.DISPUTE.{each}" for each in ("CREATED", "UPDATED", "RESOLVED"))
NOW = at("2026-03-20T00:00:00Z")  # within the period that the sample sale pays
PAID, DISPUTED = at("2026-04-01T00:00:00Z"), at("2026-03-02T08:00:00Z")


@pytest.mark.parametrize(
    ("paid_through", "disputed", "pauses", "until"),
    [
        (PAID, None, True, PAID),
        (PAID, DISPUTED, False, PAID),
        (PAID, DISPUTED, True, DISPUTED),
        (DISPUTED, PAID, True, DISPUTED),
        (None, DISPUTED, True, None),
    ],
)
def test_open_dispute_ends_access_only_if_the_vendor_wants_it(
    paid_through: object, disputed: object, pauses: bool, until: object
) -> None:
    assert access_until(paid_through, disputed, pauses=pauses) == until  # type: ignore[arg-type]


def test_dispute_counts_until_it_is_resolved(sqlite_pipeline: PipelineUnderTest) -> None:
    feeder = EventFeeder(sqlite_pipeline)
    sale = sample("CUSTOMER.DISPUTE.CREATED")["resource"]["disputed_transactions"][0]["seller_transaction_id"]
    feeder.hear(sample("BILLING.SUBSCRIPTION.ACTIVATED"), sample("PAYMENT.SALE.COMPLETED", {"id": sale}))

    def since() -> object:
        with sqlite_pipeline.database.reading() as session:
            return disputed_since(session, [ALICE.subscription, "I-NONE"])

    assert since() == {}
    feeder.hear(sample("CUSTOMER.DISPUTE.CREATED"))
    assert since() == {ALICE.subscription: DISPUTED}
    feeder.hear(sample("CUSTOMER.DISPUTE.RESOLVED"))
    assert since() == {}


def access(feeder: EventFeeder, *, pauses: bool) -> tuple[Any, ...]:
    """Return whether the subscription gives access now, until when, and until when it is paid, as the commands show it on NOW."""
    with feeder.pipeline.database.reading() as session:
        [row] = subscriptions.subscriptions(session, ListQuery({}), NOW, pauses_access=pauses)
    return row["entitled"], row["access_until"], row["paid_through"]


def paying(pipeline: PipelineUnderTest) -> tuple[EventFeeder, str]:
    """Return a feeder after the disputed sale was paid, and the sale's id."""
    feeder = EventFeeder(pipeline)
    sale = sample(CREATED)["resource"]["disputed_transactions"][0]["seller_transaction_id"]
    feeder.hear(
        sample("READ.PLAN"), sample("BILLING.SUBSCRIPTION.ACTIVATED"), sample("PAYMENT.SALE.COMPLETED", {"id": sale})
    )
    return feeder, sale


@pytest.mark.parametrize("order", list(permutations([CREATED, UPDATED, RESOLVED])))
def test_won_dispute_restores_access_in_every_order(sqlite_pipeline: PipelineUnderTest, order: tuple[str, ...]) -> None:
    feeder, _ = paying(sqlite_pipeline)
    has_access, _, paid_through = access(feeder, pauses=True)
    assert has_access
    feeder.hear(*(sample(each) for each in order[:-1]))
    is_open = RESOLVED not in order[:-1]
    paused_since = "2026-03-02T08:00:00Z"
    assert access(feeder, pauses=True) == (not is_open, paused_since if is_open else paid_through, paid_through)
    assert access(feeder, pauses=False) == (True, paid_through, paid_through)
    feeder.hear(sample(order[-1]))
    assert access(feeder, pauses=True) == (True, paid_through, paid_through)


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_lost_dispute_takes_the_paid_period_with_the_money_in_every_order(
    sqlite_pipeline: PipelineUnderTest, order: tuple[int, ...]
) -> None:
    feeder, sale = paying(sqlite_pipeline)
    money = {"amount.total": "-29.00", "amount.currency": "EUR"}
    events = [
        sample(CREATED),
        sample(RESOLVED, {"dispute_outcome.outcome_code": "RESOLVED_BUYER_FAVOUR"}),
        sample("PAYMENT.SALE.REVERSED", {"id": "6CL88213640927754", "sale_id": sale, **money}),
    ]
    feeder.hear(*[events[number] for number in order])
    for pauses in (True, False):
        has_access, until, paid_through = access(feeder, pauses=pauses)
        assert (has_access, until) == (False, paid_through)


def test_dispute_that_arrives_before_its_payment_pauses_access_too(sqlite_pipeline: PipelineUnderTest) -> None:
    feeder = EventFeeder(sqlite_pipeline)
    feeder.hear(sample(CREATED))
    feeder, _ = paying(sqlite_pipeline)
    assert access(feeder, pauses=True)[:2] == (False, "2026-03-02T08:00:00Z")
