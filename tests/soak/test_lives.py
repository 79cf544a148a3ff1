"""A short run of the lives, always the same ones; `make soak` runs others, and longer."""

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.soak.machine import Lives

SHORT = settings(
    max_examples=5,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def test_whatever_happens_to_it_a_river_keeps_its_promises() -> None:
    before = Lives.rested
    run_state_machine_as_test(Lives, settings=SHORT)
    assert Lives.rested - before >= SHORT.max_examples
