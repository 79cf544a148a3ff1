"""The snapshot of everything that is not finished: for each kind its count and the age of its oldest item."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from pipeline.db.models import (
    Action,
    Dispute,
    Erasure,
    Event,
    InboundMail,
    Mail,
    PaypalLookup,
    PrivacyRequest,
    ReconciliationException,
)
from pipeline.dependencies import CountRecord
from pipeline.operations.limits import LIMITS, WorkKind
from pipeline.privacy.erasure.workflow import KINDS as ERASURE_KINDS

OUTSIDE: tuple[WorkKind, ...] = ("dead_letters", "inbound_unfiled")  # counted by the scheduler, not in the database


@dataclass(frozen=True, slots=True)
class Unfinished:
    """The number of unfinished items of one kind, and the age of the oldest in seconds since its creation."""

    count: int = 0
    oldest_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class UnfinishedWork:
    """The unfinished items of each kind at one time."""

    at: datetime
    kinds: Mapping[WorkKind, Unfinished]

    def oldest(self, kinds: Iterable[WorkKind]) -> float:
        """Return the age of the oldest item of these kinds."""
        return max(self.kinds[kind].oldest_seconds for kind in kinds)


def take_snapshot(session: Session, now: datetime, outside: Mapping[str, CountRecord]) -> UnfinishedWork:
    """Count the unfinished items. `outside` has the counts of OUTSIDE, which the scheduler records."""
    found: dict[WorkKind, tuple[int, datetime | None]] = {
        kind: (record.count, record.since) for kind in OUTSIDE if (record := outside.get(kind))
    }
    for kind, created_at, conditions in _queries(now):
        count, oldest = session.execute(select(func.count(), func.min(created_at)).where(*conditions)).one()
        found[kind] = count, oldest
    return UnfinishedWork(now, {kind: _unfinished(*found.get(kind, (0, None)), now) for kind in LIMITS})


def _unfinished(count: int, oldest: datetime | None, now: datetime) -> Unfinished:
    return Unfinished(count, max(0.0, (now - oldest).total_seconds()) if oldest else 0.0)


Query = tuple[WorkKind, "InstrumentedAttribute[Any] | ColumnElement[Any]", tuple[ColumnElement[bool], ...]]


def _queries(now: datetime) -> Iterator[Query]:
    """Yield for each kind the column of the creation time and the conditions. Partial indexes serve all large tables."""
    yield "events_unhandled", Event.received_at, (Event.state == "received",)
    yield "events_parked", Event.received_at, (Event.state == "parked",)
    queued = Mail.state == "queued"
    yield "mails_due", Mail.created_at, (queued, Mail.due_at <= now)
    yield "mails_postponed", Mail.created_at, (queued, Mail.due_at > now)
    yield "mails_without_address", Mail.created_at, (queued, Mail.due_at.is_(None))
    yield "mails_sending", Mail.created_at, (Mail.state == "sending",)
    yield "mails_in_doubt", Mail.created_at, (Mail.state == "doubt",)
    yield "mails_failed", Mail.created_at, (Mail.state == "failed",)
    yield "lookups_open", PaypalLookup.first_due_at, (PaypalLookup.due_at.is_not(None),)
    yield "lookups_refused", PaypalLookup.first_due_at, (PaypalLookup.due_at.is_(None),)
    difference = ReconciliationException
    yield "differences_open", difference.found_at, (difference.resolved_at.is_(None),)
    yield "disputes_open", Dispute.opened_at, (Dispute.resolved_at.is_(None),)
    yield "actions_unfinished", Action.requested_at, (Action.state.in_(("requested", "failed")),)
    yield from _requests(now)
    yield "erasures_incomplete", Erasure.at, (Erasure.completed_at.is_(None),)


def _requests(now: datetime) -> Iterator[Query]:
    request, is_open = PrivacyRequest, PrivacyRequest.done_at.is_(None)
    answers = InboundMail.request_id == request.id
    yield "inbound_unanswered", InboundMail.received_at, (answers, is_open)
    yield "exports_open", request.received_at, (is_open, request.kind == "access")
    is_erasure = request.kind.in_(ERASURE_KINDS)
    yield "requests_open", request.received_at, (is_open, request.kind != "access", ~is_erasure)
    # In the waiting period nothing is to be done. An erasure without one is due when it is requested.
    due_at = func.coalesce(request.waiting_ends_at, request.received_at, type_=request.received_at.type)
    yield "erasures_waiting", request.received_at, (is_open, is_erasure, due_at > now)
    yield "erasures_due", due_at, (is_open, is_erasure, due_at <= now)
