"""READ.DISPUTE stores a dispute whose events are lost, and mails the operator."""

from tests.support.event_feeder import EventFeeder
from tests.support.sample_events import sample

READ = "READ.DISPUTE"


def test_lost_outcome_is_stored_and_mailed(feeder: EventFeeder) -> None:
    feeder.hear(sample("CUSTOMER.DISPUTE.CREATED"))
    assert feeder.mail("dispute").facts["outcome"] is None
    ended = {"status": "RESOLVED", "dispute_outcome": {"outcome_code": "RESOLVED_BUYER_FAVOUR"}}
    feeder.hear(sample(READ, ended | {"update_time": "2026-03-20T08:00:00.000Z"}))
    outcomes = [mail.facts["outcome"] for mail in feeder.mails().values()]
    assert sorted(outcomes, key=str) == [None, "resolved buyer favour"]


def test_answer_that_reports_nothing_new_is_not_mailed_again(feeder: EventFeeder) -> None:
    feeder.hear(sample("CUSTOMER.DISPUTE.CREATED"), sample(READ))
    assert len(feeder.mails()) == 1
