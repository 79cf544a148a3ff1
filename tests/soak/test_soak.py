"""A short, deterministic soak run, and single faults one by one. `make soak` runs more scenarios and longer ones."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from pipeline.simulator.timeline import Delivery
from tests.soak.database_faults import KINDS, Kind
from tests.soak.fake_peers import FATES, Fate
from tests.soak.state_machine import PAUSES, Role, ScenarioMachine, Trouble
from tests.support.sample_events import renamed

SHORT = settings(
    max_examples=3,
    stateful_step_count=15,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
AFTERWARDS = ("tick", "wait and lose the log", "wait", "nothing")


def test_invariants_hold_under_random_faults() -> None:
    before = ScenarioMachine.rested
    run_state_machine_as_test(ScenarioMachine, settings=SHORT)
    assert ScenarioMachine.rested - before >= SHORT.max_examples


@contextmanager
def new_scenario() -> Iterator[ScenarioMachine]:
    """Yield a scenario that the test controls. The final invariants are checked at the end of the block."""
    scenario = ScenarioMachine()
    scenario.first_subscription(seed=3)
    scenario.subscription(seed=1)
    scenario.subscription(seed=2)
    yield scenario
    scenario.invariants_hold()
    scenario.teardown()


@pytest.mark.parametrize("fate", FATES)
def test_invariants_hold_for_each_mail_fate(fate: Fate) -> None:
    with new_scenario() as scenario:
        for then in AFTERWARDS:
            scenario.mail(PAUSES[1], [fate], None, then)
            scenario.invariants_hold()
            scenario.wait(timedelta(seconds=6), rotates=1)
            scenario.invariants_hold()


@pytest.mark.parametrize("role", [None, Role.work, Role.mail], ids=["receive", "work", "mail"])
@pytest.mark.parametrize("kind", KINDS)
def test_invariants_hold_for_each_database_fault(kind: Kind, role: Role | None) -> None:
    """The fault is armed before the work of that role. None means before the receiver's work."""
    with new_scenario() as scenario:
        for after in range(3):
            if role is None:
                scenario.database_fault(kind, after)
            assert scenario.to_post
            scenario.post(which=[0, 1], keep=False, works=role is Role.mail)
            if role is not None:
                scenario.database_fault(kind, after)
                scenario.roles([role])
            scenario.invariants_hold()
            scenario.wait(PAUSES[1], rotates=1)
            scenario.roles([Role.tick])
            scenario.invariants_hold()


def test_crash_after_commit_leaves_no_partial_effect() -> None:
    with new_scenario() as scenario:
        while scenario.to_post:
            scenario.post(which=list(range(4)), keep=False, works=False)
            scenario.database_fault("dies after a commit", 0)
            scenario.roles([Role.work])
            scenario.invariants_hold()


def test_redelivered_handled_events_change_nothing() -> None:
    with new_scenario() as scenario:
        scenario.post(which=list(range(24)), keep=False, works=True)
        scenario.invariants_hold()
        scenario.wait(PAUSES[1], rotates=1)
        scenario.host.broker.publish("events", sorted(scenario.accepted))
        scenario.roles([Role.work])
        scenario.invariants_hold()


def test_activation_after_cancellation_changes_nothing() -> None:
    with new_scenario() as scenario:
        while scenario.to_post:
            cancelled = [item for item in scenario.to_post if item.type.endswith(".CANCELLED")]
            scenario.post(which=list(range(24)), keep=False, works=True)
            for item in cancelled:
                scenario.to_post.append(_activated_later(item))
        assert any(event["summary"] == "late" for event in scenario.events.values())


def _activated_later(cancelled: Delivery) -> Delivery:
    """Return a contradictory event: the cancelled subscription is active a day later."""
    later = (cancelled.at + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    active = {"status": "ACTIVE", "update_time": later, "status_update_time": later}
    resource = {**cancelled.event["resource"], **active}
    type = "BILLING.SUBSCRIPTION.ACTIVATED"
    event = renamed({**cancelled.event, "event_type": type, "summary": "late", "resource": resource})
    return replace(cancelled, event=event, kept=())


@pytest.mark.parametrize("trouble", Trouble)
def test_invariants_hold_for_each_peer_fault(trouble: Trouble) -> None:
    with new_scenario() as scenario:
        for which in range(3):
            if scenario.to_post:
                scenario.post(which=[0, 1, 2], keep=which == 0, works=False)
            scenario.peer_fault(trouble, which)
            scenario.roles([Role.work, Role.read])
            scenario.invariants_hold()
            scenario.die(forgets=which == 1)
            scenario.roles([Role.tick, Role.work, Role.mail])
            scenario.invariants_hold()
