"""Access ends with the paid period, and during a dispute if the vendor wants that."""

import pytest

from pipeline.billing.access import access_until, disputed_since
from tests.support.event_feeder import EventFeeder, at
from tests.support.example_people import ALICE
from tests.support.pipeline_under_test import PipelineUnderTest
from tests.support.sample_events import sample

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
