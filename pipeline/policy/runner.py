"""Run the checks against the live system and report the result of each clause."""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import get_args

import structlog
from sqlalchemy.exc import SQLAlchemyError

from pipeline.clock import format_time
from pipeline.db.engine import DatabaseUnavailableError
from pipeline.error_texts import describe
from pipeline.policy.clauses import Clause, document, fill
from pipeline.policy.evidence.live_system import Finding, LiveSystem, Verdict, broken

log = structlog.get_logger(__name__)
CHECKS = "pipeline.policy.checks"
Check = Callable[[LiveSystem], Finding]


@dataclass(frozen=True, slots=True)
class ClauseResult:
    """The result of checking one clause."""

    clause: Clause
    text: str  # with the vendor's names filled in
    verdict: Verdict
    figure: str

    def as_json(self) -> dict[str, str]:
        """Return the result with the keys that programs read."""
        return {
            "clause": self.clause.id,
            "verdict": self.verdict,
            "figure": self.figure,
            "evidence": self.clause.evidence,
            "control": self.clause.control,
            "unseen": self.clause.unseen,
        }


def check_of(clause: Clause) -> Check:
    """Return the check function of a clause. Raises AttributeError or ModuleNotFoundError if it does not exist."""
    module, _, name = clause.check.partition(".")
    found: Check = getattr(importlib.import_module(f"{CHECKS}.{module}"), name)
    return found


def run_checks(live: LiveSystem, only: Sequence[str] = ()) -> list[ClauseResult]:
    """Check every clause, or only those in `only`. A check that fails with an unexpected error counts as broken.

    Raises DatabaseUnavailableError and SQLAlchemyError.
    """
    selected = [clause for clause in document().clauses if not only or clause.id in only]
    return [_result(live, clause) for clause in selected]


def public_verdicts(results: Sequence[ClauseResult], now: datetime) -> list[dict[str, str]]:
    """Return what may be published of the results: clause, verdict and day."""
    return [{"clause": each.clause.id, "verdict": each.verdict, "date": f"{now:%Y-%m-%d}"} for each in results]


def counted(results: Sequence[ClauseResult]) -> str:
    """Return how many clauses have each verdict, in words."""
    count = {verdict: sum(each.verdict == verdict for each in results) for verdict in get_args(Verdict)}
    return (
        f"{count['holds']} hold, {count['broken']} broken, {count['not_applicable']} do not apply, "
        f"{count['not_looked_at']} not looked at"
    )


def report(results: Sequence[ClauseResult], notes: Sequence[str], vendor: str, now: datetime, head: str) -> str:
    """Return a dated report in Markdown. It contains the head of the audit log, so that a truncated log is noticed later."""
    rows = [
        f"| {each.clause.id} | {_cell(each.text)} | {each.verdict} | {_cell(each.figure)} | {_cell(each.clause.evidence)} "
        f"| `{each.clause.control}` |"
        for each in results
    ]
    return "\n".join([
        f"# Privacy policy check: {vendor}",
        "",
        f"At {format_time(now)}: {counted(results)}.",
        f"Head of the audit log: `{head}`",
        "",
        "| clause | what we promise | verdict | figure | evidence | control |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
        "## Conflicts between policy and law",
        "",
        *(f"- {note}" for note in notes),
        "",
    ])  # fmt: skip


def _result(live: LiveSystem, clause: Clause) -> ClauseResult:
    try:
        found = check_of(clause)(live)
    except (DatabaseUnavailableError, SQLAlchemyError):
        raise
    except Exception as error:  # noqa: BLE001 - one failing check must not hide the results of the others
        log.error("check_failed", clause=clause.id, reason=type(error).__name__)
        found = broken(f"could not be checked: {describe(error)}")
    return ClauseResult(clause, fill(clause.text, live.vendor), found.verdict, found.figure)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
