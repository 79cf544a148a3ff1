"""A short run of the lives, always the same ones; `make soak` runs others, and longer."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.soak.machine import PAUSES, Lives, Role, Trouble
from tests.soak.peers import FATES, Fate
from tests.soak.storm import KINDS, Kind

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
    before = Lives.rested
    run_state_machine_as_test(Lives, settings=SHORT)
    assert Lives.rested - before >= SHORT.max_examples


@contextmanager
def life() -> Iterator[Lives]:
    """A life by hand: its promises are looked at when it is at rest, at the end."""
    made = Lives()
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
