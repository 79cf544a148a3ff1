"""Count privacy requests, and those that were not answered in time."""

from datetime import timedelta

from sqlalchemy import ColumnElement, or_

from pipeline.db.models import PrivacyRequest
from pipeline.policy.evidence.live_system import Finding, LiveSystem, broken_if, count_noun

YEAR = timedelta(days=365)  # a late answer counts as broken for this long


def check_deadlines(live: LiveSystem, noun: str, *where: ColumnElement[bool]) -> Finding:
    """Return broken if one of these requests is open after its deadline, or was answered late within the last year."""
    late = or_(
        PrivacyRequest.done_at.is_(None) & (PrivacyRequest.due_at < live.now),
        (PrivacyRequest.done_at > PrivacyRequest.due_at) & (PrivacyRequest.done_at > live.now - YEAR),
    )
    late_count = live.count(PrivacyRequest, *where, late)
    return broken_if(
        late_count,
        f"{count_noun(live.count(PrivacyRequest, *where), noun)}, 0 late",
        f"{count_noun(late_count, noun)} late; see: smt-billing customers requests",
    )
