"""The mutants of the policy: functions that disable a clause's control, or simulate the result of that.

After a mutant has changed the healthy system, the check of its clause must return `broken`. Its docstring describes the
change. Mutants are of four sorts: a control is off in the code, data is wrong by hand, personal data is in a place that the
check might not know, or the world outside (relay, proxy, backup, operator) breaks the promise.
"""

from collections import defaultdict
from collections.abc import Callable

import pytest

from tests.pipeline.policy.healthy_system import HealthySystem

Patch = pytest.MonkeyPatch
Mutant = Callable[[HealthySystem, Patch], None]
MUTANTS: defaultdict[str, list[Mutant]] = defaultdict(list)  # by clause


def of(*clauses: str) -> Callable[[Mutant], Mutant]:
    """Return a decorator that registers a mutant of these clauses."""

    def register(mutant: Mutant) -> Mutant:
        for clause in clauses:
            MUTANTS[clause].append(mutant)
        return mutant

    return register
