"""A small vendor with lost webhooks, and a small import that is killed. `make paypal-runs` runs the large ones."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pipeline.clock import MovableClock
from tests.paypal_runs import killed_import, lost_events
from tests.support.pipeline_under_test import PipelineUnderTest

SMALL = lost_events.Plan(customers=8, months=2, lost=0.15, step=timedelta(hours=6), http_lookups=False, seed=4)


@pytest.fixture
def pipeline(tmp_path: Path) -> Iterator[PipelineUnderTest]:
    made = PipelineUnderTest(f"sqlite:///{tmp_path / 'run.db'}", tmp_path, MovableClock(lost_events.START))
    yield made
    made.database.close()


def test_lost_webhooks_are_found_within_a_day(pipeline: PipelineUnderTest) -> None:
    report = lost_events.LostEventsRun(pipeline, SMALL).run()
    assert lost_events.is_right(report), report
    assert report["lost"] > 5
    assert report["never_found_by_type"] == {}
    assert report["missed_for_days"]["max"] <= 1.1
    assert report["mails_checked"]["receipt"] > 5


@pytest.mark.parametrize("wrong", ["differences", "wrong_mails", "open_exceptions", "parked"])
def test_report_with_a_problem_is_not_right(wrong: str) -> None:
    report: dict[str, Any] = {"differences": [], "wrong_mails": [], "open_exceptions": [], "parked": []}
    report |= {"customers": 1, "customers_equal_to_the_truth": 1}
    assert lost_events.is_right(report)
    assert not lost_events.is_right(report | {wrong: ["one"]})
    assert not lost_events.is_right(report | {"customers_equal_to_the_truth": 0})


def test_killed_import_stores_everything_once(tmp_path: Path) -> None:
    run = killed_import.KilledImport(killed_import.Plan(subscriptions=40, kills=2))
    report = run.run(tmp_path, unkilled=False)
    assert killed_import.is_right(report), report
    assert report["killed"]["subscriptions"] == 40
    assert report["killed"]["subscriptions_asked_for"] >= 40
