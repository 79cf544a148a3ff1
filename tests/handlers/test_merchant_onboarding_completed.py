"""MERCHANT.ONBOARDING.COMPLETED is mailed to the operator once."""

import json
from pathlib import Path

from tests.support.event_feeder import EventFeeder
from tests.support.sample_events import sample

EVENT = "MERCHANT.ONBOARDING.COMPLETED"


def test_operator_is_mailed_once(feeder: EventFeeder) -> None:
    feeder.hear(sample(EVENT), sample(EVENT))
    assert feeder.states() == ["handled"]
    facts = feeder.mail("account_notice").facts
    assert (facts["type"], facts["account"], facts["at"]) == (EVENT, "QNPPVENDOR001", "2026-03-02T10:00:05Z")


def test_sample_of_paypal_names_its_account(feeder: EventFeeder, shared: Path) -> None:
    feeder.hear(json.loads((shared / "events" / f"{EVENT}.json").read_text("utf-8")))
    assert feeder.mail("account_notice").facts["account"] == "ELAMYJUN78D6G"
