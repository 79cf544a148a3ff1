"""Check for unfinished work, and for roles and servers that do not answer, with the table of `operations.limits`."""

from collections.abc import Iterator

from sqlalchemy.orm import Session

from pipeline.app.container import Container
from pipeline.app.doctor.result import CheckResult
from pipeline.operations.health import describe
from pipeline.operations.limits import LIMITS, WorkKind, limit_of
from pipeline.operations.outages import Outage, observe
from pipeline.operations.unfinished_work import UnfinishedWork, take_snapshot

GROUPS: dict[str, tuple[WorkKind, ...]] = {
    "events": ("events_parked", "events_unhandled"),
    "mails": (
        "mails_in_doubt", "mails_failed", "mails_without_address", "mails_postponed", "mails_due", "mails_sending",
    ),
    "look-ups": ("disputes_open", "actions_unfinished", "lookups_refused", "lookups_open", "differences_open"),
    "messages": ("dead_letters", "inbound_unfiled", "inbound_unanswered"),
    "requests": ("erasures_due", "erasures_waiting", "erasures_incomplete", "exports_open", "requests_open"),
}  # fmt: skip
# These need an operator's decision, so `doctor` warns of them at any age.
DECISIONS: tuple[WorkKind, ...] = (
    "events_parked", "mails_in_doubt", "mails_failed", "lookups_refused", "differences_open", "dead_letters", "inbound_unfiled",
)  # fmt: skip


def check_unfinished(container: Container, session: Session) -> Iterator[CheckResult]:
    """Check each group of unfinished work."""
    outside = observe(container.settings.data_dir).counts
    work = take_snapshot(session, container.clock.now(), outside)
    for name, kinds in GROUPS.items():
        yield check_group(name, kinds, work, container.settings.health_limit_seconds)


def check_group(name: str, kinds: tuple[WorkKind, ...], work: UnfinishedWork, processing_seconds: int) -> CheckResult:
    """Check one group. The advice names the commands for everything that needs a decision or is over its limit."""
    found = [kind for kind in kinds if work.kinds[kind].count]
    text = "; ".join(describe(kind, work.kinds[kind]) for kind in found)
    urgent = [kind for kind in found if kind in DECISIONS or _is_over_limit(kind, work, processing_seconds)]
    if urgent:
        commands = dict.fromkeys(LIMITS[kind].command for kind in urgent)
        return CheckResult(name, "warn", text, f"see: {', '.join(commands)}")
    return CheckResult(name, "ok", text or "none unfinished")


def _is_over_limit(kind: WorkKind, work: UnfinishedWork, processing_seconds: int) -> bool:
    limit = limit_of(kind, processing_seconds)
    return limit is not None and work.kinds[kind].oldest_seconds > limit


def check_servers(container: Container) -> CheckResult:
    """Check what the roles report in their heartbeats: which server or job does not work for them, and since when."""
    if lasting := [each for each in _lasting_outages(container) if each.kind != "role"]:
        return _outage_result("servers and jobs", lasting)
    return CheckResult("servers and jobs", "ok", "no role reports a server or job that fails")


def check_roles(container: Container) -> CheckResult:
    """Check the heartbeats: which role does not run, and since when. Needs no database."""
    now = container.clock.now()
    observations = observe(container.settings.data_dir)
    if stopped := [each for each in _lasting_outages(container) if each.kind == "role"]:
        return _outage_result("running roles", stopped)
    running = sorted({each.role for each in observations.heartbeats if each.is_fresh(now)})
    missing = {"worker", "scheduler"} - set(running)
    if running and missing:
        return CheckResult("running roles", "warn", f"never started: {', '.join(sorted(missing))}", "start them")
    return CheckResult("running roles", "ok", ", ".join(running) or "none is running, and none has stopped")


def _lasting_outages(container: Container) -> list[Outage]:
    now = container.clock.now()
    outages = observe(container.settings.data_dir).outages(now, (), now)
    return [each for each in outages if each.seconds(now) > each.limit_seconds]


def _outage_result(name: str, outages: list[Outage]) -> CheckResult:
    advice = dict.fromkeys(each.advice for each in outages)
    return CheckResult(name, "warn", "; ".join(each.sentence for each in outages), "; ".join(advice))
