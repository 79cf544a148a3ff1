"""Requests as the checks count them: how many there are, and how many were not answered in time."""

from datetime import timedelta

from sqlalchemy import ColumnElement, or_

from pipeline.db.models import PrivacyRequest
from pipeline.policy.evidence.live_system import Finding, LiveSystem, broken_if, count_noun

YEAR = timedelta(days=365)  # how far back an answer that came late counts against us


def in_time(live: LiveSystem, noun: str, *where: ColumnElement[bool]) -> Finding:
    """Broken if one of these requests is open after its day, or was answered late within the last year."""
    late = or_(
        PrivacyRequest.done_at.is_(None) & (PrivacyRequest.due_at < live.now),
        (PrivacyRequest.done_at > PrivacyRequest.due_at) & (PrivacyRequest.done_at > live.now - YEAR),
    )
    wrong = live.count(PrivacyRequest, *where, late)
    return broken_if(
        wrong,
        f"{count_noun(live.count(PrivacyRequest, *where), noun)}, 0 late",
        f"{count_noun(wrong, noun)} late; see: smt-billing customers requests",
    )
