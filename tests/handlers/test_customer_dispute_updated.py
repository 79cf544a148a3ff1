"""CUSTOMER.DISPUTE.UPDATED mails the operator a new deadline."""

from tests.support.event_feeder import EventFeeder
from tests.support.sample_events import sample


def test_new_deadline_is_mailed(feeder: EventFeeder) -> None:
    feeder.hear(sample("CUSTOMER.DISPUTE.CREATED"), sample("CUSTOMER.DISPUTE.UPDATED"))
    assert sorted(mail.facts["due_at"] for mail in feeder.mails().values()) == [
        "2026-03-12T08:00:00Z",
        "2026-03-20T08:00:00Z",
    ]
