"""Check for unfinished work, and for roles and servers that do not answer, with the table of `operations.limits`."""

from collections.abc import Iterator

from sqlalchemy.orm import Session

from pipeline.app.container import Container
from pipeline.app.doctor.result import CheckResult
from pipeline.operations.health import describe
from pipeline.operations.limits import LIMITS, WorkKind, limit_of
from pipeline.operations.outages import observe
from pipeline.operations.unfinished_work import UnfinishedWork, take_snapshot

GROUPS: dict[str, tuple[WorkKind, ...]] = {
    "events": ("events_parked", "events_unhandled"),
    "mails": (
        "mails_in_doubt", "mails_failed", "mails_without_address", "mails_postponed", "mails_due", "mails_sending",
    ),
    "look-ups": ("lookups_refused", "lookups_open"),
    "messages": ("dead_letters", "inbound_unfiled", "inbound_unanswered"),
    "requests": ("erasures_due", "erasures_waiting", "erasures_incomplete", "exports_open", "requests_open"),
}  # fmt: skip
# These need an operator's decision, so `doctor` warns of them at any age.
DECISIONS: tuple[WorkKind, ...] = (
    "events_parked", "mails_in_doubt", "mails_failed", "lookups_refused", "dead_letters", "inbound_unfiled",
)  # fmt: skip


def check_unfinished(container: Container, session: Session) -> Iterator[CheckResult]:
    """Check each group of unfinished work."""
    outside = observe(container.settings.data_dir).counts
    work = take_snapshot(session, container.clock.now(), outside)
    for name, kinds in GROUPS.items():
        yield _check_group(name, kinds, work, container.settings.health_limit_seconds)


def _check_group(name: str, kinds: tuple[WorkKind, ...], work: UnfinishedWork, processing_seconds: int) -> CheckResult:
    found = [kind for kind in kinds if work.kinds[kind].count]
    text = "; ".join(describe(kind, work.kinds[kind]) for kind in found)
    urgent = [kind for kind in found if kind in DECISIONS or _is_over_limit(kind, work, processing_seconds)]
    if urgent:
        return CheckResult(name, "warn", text, f"see: {LIMITS[urgent[0]].command}")
    return CheckResult(name, "ok", text or "none unfinished")


def _is_over_limit(kind: WorkKind, work: UnfinishedWork, processing_seconds: int) -> bool:
    limit = limit_of(kind, processing_seconds)
    return limit is not None and work.kinds[kind].oldest_seconds > limit


def check_outages(container: Container) -> CheckResult:
    """Check the heartbeats: which role, server or job does not work, and since when. Needs no database."""
    now = container.clock.now()
    observations = observe(container.settings.data_dir)
    lasting = [each for each in observations.outages(now, (), now) if each.seconds(now) > each.limit_seconds]
    if lasting:
        advice = "start the role, or check the server; the role's log says more"
        return CheckResult("running roles", "warn", "; ".join(each.sentence for each in lasting), advice)
    running = sorted({each.role for each in observations.heartbeats if each.is_fresh(now)})
    missing = {"worker", "scheduler"} - set(running)
    if running and missing:
        return CheckResult("running roles", "warn", f"never started: {', '.join(sorted(missing))}", "start them")
    return CheckResult("running roles", "ok", ", ".join(running) or "none is running, and none has stopped")
