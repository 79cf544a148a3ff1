"""Every clause has a control, a check and a mutant, every check has a clause, and each check detects its mutant."""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator

import pytest
from sqlalchemy import text

from pipeline.clock import MovableClock
from pipeline.policy import checks
from pipeline.policy.clauses import Clause, document
from pipeline.policy.evidence.live_system import LiveSystem
from pipeline.policy.runner import check_of, run_checks
from tests.pipeline.policy.healthy_system import HealthySystem, make_healthy_system
from tests.pipeline.policy.mutants import MUTANTS
from tests.pipeline.policy.mutants.registry import Mutant
from tests.support.pipeline_under_test import PipelineUnderTest

CLAUSES = list(document().clauses)
# Clauses that do not apply to the healthy system: its text never changed.
NOT_APPLICABLE = {"9.notice"}


@pytest.fixture
def system(sqlite_pipeline: PipelineUnderTest, clock: MovableClock) -> HealthySystem:
    return make_healthy_system(sqlite_pipeline, clock)


@pytest.fixture
def any_system(pipeline: PipelineUnderTest, clock: MovableClock) -> Iterator[HealthySystem]:
    """Return the healthy system, on both databases. Changes of the schema are taken back."""
    yield make_healthy_system(pipeline, clock)
    if not pipeline.database.is_sqlite:
        with pipeline.database.transaction() as session:
            session.execute(text("DROP TABLE IF EXISTS crm_lead"))
            session.execute(text("ALTER TABLE customer DROP COLUMN IF EXISTS sales_note"))


def all_checks() -> set[str]:
    """Return every public function of checks/."""
    found = set()
    for module in pkgutil.iter_modules(checks.__path__):
        loaded = importlib.import_module(f"{checks.__name__}.{module.name}")
        for name, function in inspect.getmembers(loaded, inspect.isfunction):
            if function.__module__ == loaded.__name__ and not name.startswith("_"):
                assert list(inspect.signature(function).parameters) == ["live"], name
                found.add(f"{module.name}.{name}")
    return found


def test_clauses_and_checks_match() -> None:
    assert sorted(clause.check for clause in CLAUSES) == sorted(all_checks())


def test_clauses_and_mutants_match() -> None:
    assert sorted(MUTANTS) == sorted(clause.id for clause in CLAUSES)


@pytest.mark.parametrize("clause", CLAUSES, ids=lambda clause: clause.id)
def test_control_exists(clause: Clause) -> None:
    module, _, name = clause.control.partition(":")
    assert hasattr(importlib.import_module(module), name), clause.control


def test_only_two_sentences_have_no_clause() -> None:
    lines = [line for section in document().sections for line in section.lines if not line.heading]
    rests = [line.text.removeprefix(" ".join(clause.text for clause in line.clauses)).strip() for line in lines]
    assert [rest for rest in rests if rest] == [
        "You have the right to:",
        "However, no system is 100% secure and we cannot guarantee absolute security.",
    ]
    assert all(line.plain for line, rest in zip(lines, rests, strict=True) if rest)


def test_every_clause_holds_in_healthy_system(pipeline: PipelineUnderTest, clock: MovableClock) -> None:
    system = make_healthy_system(pipeline, clock)
    results = system.inspect(run_checks)
    assert {each.clause.id: each.figure for each in results if each.verdict == "broken"} == {}
    assert {each.clause.id for each in results if each.verdict == "not_applicable"} == NOT_APPLICABLE


@pytest.mark.parametrize(
    ("clause", "mutant"),
    [
        pytest.param(clause, mutant, id=f"{clause.id}-{mutant.__name__}")
        for clause in CLAUSES
        for mutant in MUTANTS[clause.id]
    ],
)
def test_mutant_makes_check_fail(
    clause: Clause, mutant: Mutant, any_system: HealthySystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutant(any_system, monkeypatch)
    found = any_system.inspect(check_of(clause))
    assert found.verdict == "broken", f"the check does not detect: {mutant.__doc__} {found.figure}"


def test_failing_check_counts_as_broken(system: HealthySystem) -> None:
    def fail(live: LiveSystem) -> None:
        raise LookupError("ada@example.com")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.policy.checks.collected_data.account", fail)
        [found] = system.inspect(lambda live: run_checks(live, ["1.account"]))
    line = fail.__code__.co_firstlineno + 1
    assert (found.verdict, found.figure) == ("broken", f"could not be checked: internal error at {__name__}:{line}")
