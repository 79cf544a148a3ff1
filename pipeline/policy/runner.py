"""All checks run against the live system: what each clause came to, what it is a report of, and the notes beside it."""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import structlog
from sqlalchemy.exc import SQLAlchemyError

from pipeline.clock import format_time
from pipeline.db.engine import DatabaseUnavailableError
from pipeline.policy.clauses import Clause, document, fill
from pipeline.policy.evidence.live_system import Finding, LiveSystem, Verdict, broken

log = structlog.get_logger(__name__)
CHECKS = "pipeline.policy.checks"
Check = Callable[[LiveSystem], Finding]


@dataclass(frozen=True, slots=True)
class ClauseResult:
    """What became of one clause."""

    clause: Clause
    text: str  # as the vendor says it
    verdict: Verdict
    figure: str

    def as_json(self) -> dict[str, str]:
        """The keys that programs read."""
        return {
            "clause": self.clause.id,
            "verdict": self.verdict,
            "figure": self.figure,
            "evidence": self.clause.evidence,
            "control": self.clause.control,
        }


def check_of(clause: Clause) -> Check:
    """The function that a clause is checked by. Raises AttributeError or ModuleNotFoundError if there is none."""
    module, _, name = clause.check.partition(".")
    found: Check = getattr(importlib.import_module(f"{CHECKS}.{module}"), name)
    return found


def run_checks(live: LiveSystem, only: Sequence[str] = ()) -> list[ClauseResult]:
    """Check every clause, or only these. Raises StoreDown; a check that fails for another reason does not hold."""
    asked = [clause for clause in document().clauses if not only or clause.id in only]
    return [_result(live, clause) for clause in asked]


def public_verdicts(results: Sequence[ClauseResult], now: datetime) -> list[dict[str, str]]:
    """What anybody may know: clause, verdict and day."""
    return [{"clause": each.clause.id, "verdict": each.verdict, "date": f"{now:%Y-%m-%d}"} for each in results]


def report(results: Sequence[ClauseResult], notes: Sequence[str], vendor: str, now: datetime, head: str) -> str:
    """A dated report in Markdown. It holds the head of the record of reads, so that nothing can be cut off it unseen."""
    count = {
        verdict: sum(each.verdict == verdict for each in results) for verdict in ("holds", "broken", "not_applicable")
    }
    rows = [
        f"| {each.clause.id} | {_cell(each.text)} | {each.verdict} | {_cell(each.figure)} | {_cell(each.clause.evidence)} "
        f"| `{each.clause.control}` |"
        for each in results
    ]
    return "\n".join([
        f"# Privacy policy of {vendor}, checked",
        "",
        f"At {format_time(now)}: {count['holds']} hold, {count['broken']} broken, {count['not_applicable']} do not apply.",
        f"Head of the record of reads: `{head}`",
        "",
        "| clause | what we promise | verdict | figure | evidence | control |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
        "## Where policy and law pull apart",
        "",
        *(f"- {note}" for note in notes),
        "",
    ])  # fmt: skip


def _result(live: LiveSystem, clause: Clause) -> ClauseResult:
    try:
        found = check_of(clause)(live)
    except (DatabaseUnavailableError, SQLAlchemyError):
        raise
    except Exception as error:  # noqa: BLE001 - one check that cannot look must not hide what the others see
        log.error("check_failed", clause=clause.id, reason=type(error).__name__)
        found = broken(f"could not be checked: {type(error).__name__}")
    return ClauseResult(clause, fill(clause.text, live.vendor), found.verdict, found.figure)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
