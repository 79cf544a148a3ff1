"""Records of when a dependency last answered, and since when it has not."""

from datetime import UTC, datetime, timedelta

from pipeline.clock import MovableClock
from pipeline.dependencies import JOB, DependencyRecorder

NOON, MINUTE = datetime(2026, 3, 1, 12, tzinfo=UTC), timedelta(minutes=1)


def test_first_failure_counts_until_the_next_answer() -> None:
    clock = MovableClock(NOON)
    recorder = DependencyRecorder(clock)
    recorder.observe("relay", answered=True)
    for _ in range(3):
        clock.advance(MINUTE)
        recorder.observe("relay", answered=False)
    found = recorder.records["relay"]
    assert (found.answered_at, found.failing_since, found.observed_at) == (NOON, NOON + MINUTE, NOON + 3 * MINUTE)
    clock.advance(MINUTE)
    recorder.observe("relay", answered=True)
    assert recorder.records["relay"].failing_since is None


def test_restart_does_not_change_since_when_a_dependency_fails() -> None:
    clock = MovableClock(NOON)
    before, after = DependencyRecorder(clock), DependencyRecorder(clock)
    before.observe("relay", answered=False)
    before.observe(JOB + "a removed job", answered=False)
    clock.advance(MINUTE)
    after.restore(before.records, before.counts)
    after.observe("relay", answered=False)
    assert {name: each.failing_since for name, each in after.records.items()} == {"relay": NOON}


def test_count_keeps_the_time_at_which_it_stopped_being_zero() -> None:
    clock = MovableClock(NOON)
    recorder = DependencyRecorder(clock)
    recorder.count("dead_letters", 1)
    clock.advance(MINUTE)
    recorder.count("dead_letters", 2)
    assert recorder.counts["dead_letters"].since == NOON
    recorder.count("dead_letters", 0)
    assert recorder.counts["dead_letters"].since is None
