"""Every clause has a control, a check and a mutant; every check a clause; and each mutant is seen by its clause's check."""

import importlib
import inspect
import pkgutil

import pytest

from pipeline.clock import MovableClock
from pipeline.policy import checks
from pipeline.policy.clauses import Clause, document
from pipeline.policy.evidence.live_system import LiveSystem
from pipeline.policy.runner import check_of, run_checks
from tests.pipeline.policy.healthy_system import World, peopled
from tests.pipeline.policy.mutants import MUTANTS
from tests.support.pipeline_under_test import River

CLAUSES = list(document().clauses)
# What has no part in the healthy world: no role runs in it, and no text has changed.
ABSENT = {"1.cloud_sharing", "9.notice"}


@pytest.fixture
def world(brook: River, clock: MovableClock) -> World:
    return peopled(brook, clock)


def all_checks() -> set[str]:
    """Every public function of checks/ that takes what is live."""
    found = set()
    for module in pkgutil.iter_modules(checks.__path__):
        loaded = importlib.import_module(f"{checks.__name__}.{module.name}")
        for name, function in inspect.getmembers(loaded, inspect.isfunction):
            if function.__module__ == loaded.__name__ and not name.startswith("_"):
                assert list(inspect.signature(function).parameters) == ["live"], name
                found.add(f"{module.name}.{name}")
    return found


def test_every_clause_has_a_check_and_every_check_a_clause() -> None:
    assert sorted(clause.check for clause in CLAUSES) == sorted(all_checks())


def test_every_clause_has_a_mutant_and_every_mutant_a_clause() -> None:
    assert sorted(MUTANTS) == sorted(clause.id for clause in CLAUSES)


@pytest.mark.parametrize("clause", CLAUSES, ids=lambda clause: clause.id)
def test_a_control_exists(clause: Clause) -> None:
    module, _, name = clause.control.partition(":")
    assert hasattr(importlib.import_module(module), name), clause.control


def test_no_sentence_is_without_a_clause_but_two_that_promise_nothing() -> None:
    lines = [line for section in document().sections for line in section.lines if not line.heading]
    rests = [line.text.removeprefix(" ".join(clause.text for clause in line.clauses)).strip() for line in lines]
    assert [rest for rest in rests if rest] == [
        "You have the right to:",
        "However, no system is 100% secure and we cannot guarantee absolute security.",
    ]
    assert all(line.plain for line, rest in zip(lines, rests, strict=True) if rest)


def test_all_of_the_policy_holds_in_a_healthy_world(river: River, clock: MovableClock) -> None:
    world = peopled(river, clock)
    results = world.look(run_checks)
    assert {each.clause.id: each.figure for each in results if each.verdict == "broken"} == {}
    assert {each.clause.id for each in results if each.verdict == "not_applicable"} == ABSENT


@pytest.mark.parametrize("clause", CLAUSES, ids=lambda clause: clause.id)
def test_a_mutant_turns_the_check_of_its_clause_red(
    clause: Clause, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    MUTANTS[clause.id](world, monkeypatch)
    found = world.look(check_of(clause))
    assert found.verdict == "broken", f"survives: {MUTANTS[clause.id].__doc__} {found.figure}"


def test_a_check_that_cannot_look_does_not_hold(world: World) -> None:
    def fall(live: LiveSystem) -> None:
        raise LookupError("ada@example.com")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.policy.checks.collected_data.account", fall)
        [found] = world.look(lambda live: run_checks(live, ["1.account"]))
    assert (found.verdict, found.figure) == ("broken", "could not be checked: LookupError")
