"""A short `make chaos`: one seed for each column, with real servers and processes."""

from collections.abc import Iterator

import pytest

from tests.chaos.environment import Column, Ground
from tests.chaos.run import Fire, seed
from tests.conftest import do_without
from tests.support.servers import Missing

SHORT = Fire(events=150, seconds=5.0, strikes=5)


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    with Ground() as made:
        yield made


@pytest.mark.services
@pytest.mark.timeout(400)  # It takes a minute on an idle machine. STUCK_SECONDS limits it.
@pytest.mark.parametrize(("column", "number"), [("embedded", 1), ("right", 2)])
def test_faults_lose_and_duplicate_nothing(ground: Ground, column: Column, number: int) -> None:
    try:
        result = seed(ground, column, number, SHORT)
    except Missing as reason:
        do_without(str(reason))
        return
    assert not result.violations, f"seed {number} of {column}: " + "; ".join(result.violations)
    assert result.events > 100
    assert sum(result.faults.values()) >= 3
