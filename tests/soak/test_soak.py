"""A short run of the lives, always the same ones; `make soak` runs others, and longer."""

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


def test_whatever_happens_to_it_a_river_keeps_its_promises() -> None:
    before = ScenarioMachine.rested
    run_state_machine_as_test(ScenarioMachine, settings=SHORT)
    assert ScenarioMachine.rested - before >= SHORT.max_examples


@contextmanager
def life() -> Iterator[ScenarioMachine]:
    """A life by hand: its promises are looked at when it is at rest, at the end."""
    made = ScenarioMachine()
    made.first_life(seed=3)
    made.life(seed=1)
    made.life(seed=2)
    yield made
    made.promises_hold()
    made.teardown()


@pytest.mark.parametrize("fate", FATES)
def test_each_fate_of_a_mail_by_itself_is_survived(fate: Fate) -> None:
    with life() as lives:
        for then in AFTERWARDS:
            lives.mail(PAUSES[1], [fate], None, then)
            lives.promises_hold()
            lives.wait(timedelta(seconds=6), rotates=1)
            lives.promises_hold()


@pytest.mark.parametrize("role", [None, Role.work, Role.mail], ids=["tell", "work", "mail"])
@pytest.mark.parametrize("kind", KINDS)
def test_each_misfortune_of_the_store_at_each_moment_is_survived(kind: Kind, role: Role | None) -> None:
    """Before the work of that role; None is the door's."""
    with life() as lives:
        for after in range(3):
            if role is None:
                lives.store(kind, after)
            assert lives.to_tell
            lives.tell(which=[0, 1], keep=False, works=role is Role.mail)
            if role is not None:
                lives.store(kind, after)
                lives.roles([role])
            lives.promises_hold()
            lives.wait(PAUSES[1], rotates=1)
            lives.roles([Role.tick])
            lives.promises_hold()


def test_who_dies_after_a_commit_leaves_no_effect_whose_event_is_still_to_be_handled() -> None:
    with life() as lives:
        while lives.to_tell:
            lives.tell(which=list(range(4)), keep=False, works=False)
            lives.store("dies after a commit", 0)
            lives.roles([Role.work])
            lives.promises_hold()


def test_what_the_broker_brings_again_once_it_was_handled_is_left_alone() -> None:
    with life() as lives:
        lives.tell(which=list(range(24)), keep=False, works=True)
        lives.promises_hold()
        lives.wait(PAUSES[1], rotates=1)
        lives.harbour.broker.publish("events", sorted(lives.accepted))
        lives.roles([Role.work])
        lives.promises_hold()


def test_an_activation_told_after_the_end_and_dated_after_it_wakes_nobody() -> None:
    with life() as lives:
        while lives.to_tell:
            cancelled = [told for told in lives.to_tell if told.type.endswith(".CANCELLED")]
            lives.tell(which=list(range(24)), keep=False, works=True)
            for told in cancelled:
                lives.to_tell.append(_woken(told))
        assert any(event["summary"] == "late" for event in lives.told.values())


def _woken(cancelled: Delivery) -> Delivery:
    """News of PayPal's that contradicts itself: the same subscription is active a day later."""
    later = (cancelled.at + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    active = {"status": "ACTIVE", "update_time": later, "status_update_time": later}
    resource = {**cancelled.event["resource"], **active}
    type = "BILLING.SUBSCRIPTION.ACTIVATED"
    event = renamed({**cancelled.event, "event_type": type, "summary": "late", "resource": resource})
    return replace(cancelled, event=event, kept=())


@pytest.mark.parametrize("trouble", Trouble)
def test_each_trouble_around_us_by_itself_is_survived(trouble: Trouble) -> None:
    with life() as lives:
        for which in range(3):
            if lives.to_tell:
                lives.tell(which=[0, 1, 2], keep=which == 0, works=False)
            lives.around(trouble, which)
            lives.roles([Role.work, Role.read])
            lives.promises_hold()
            lives.die(forgets=which == 1)
            lives.roles([Role.tick, Role.work, Role.mail])
            lives.promises_hold()
