"""The policy texts as the operator sees them: states, notices, and the effect of a proposed text."""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from sqlalchemy.orm import Session

from pipeline.clock import format_time, write_optional
from pipeline.db.models import Policy
from pipeline.errors import UsageError
from pipeline.policy import text, versions
from pipeline.policy.clauses import PolicyOwner, document

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Proposal:
    """A planned text: its day, the text in force ("" if there is none), and the number of customers to notify."""

    id: str
    old: str
    to_tell: int


def propose(
    session: Session, vendor: PolicyOwner, first_day: date, new: str, effective: date, now: datetime, *, material: bool
) -> Proposal:
    """Plan a new text. Store the first text before that if none is stored yet. Raises PolicyRejectedError."""
    versions.store_first_text(session, vendor, first_day, now)
    old = versions.in_force(session, now)
    row = versions.propose(session, new, effective, now, material=material)
    return Proposal(row.id, old.text if old else "", versions.unnotified_count(session, row) if material else 0)


def unchecked(new: str, vendor: PolicyOwner) -> list[str]:
    """Return the sentences of a text that no check of this version covers."""
    known = text.sentences(text.write(document(), vendor))
    return [line for line in text.sentences(new) if line not in known]


def find(session: Session, day: str) -> Policy:
    """Return the text of a day, for example `2026-06-01`. Raises UsageError if there is none."""
    found = next((row for row in versions.all_texts(session) if row.id == day), None)
    if found is None:
        raise UsageError(f"there is no text for {day}; see: smt-billing policy texts")
    return found


def history(session: Session, now: datetime) -> list[Json]:
    """Return `day, state, material, proposed_at, effective_at` of all texts, the newest first."""
    present = versions.in_force(session, now)
    return [_described(session, row, present, now) for row in versions.all_texts(session)]


def notices(session: Session, day: str) -> list[Json]:
    """Return `customer, mail, state, sent_at, reply` of the notices of a text. Raises UsageError for an unknown day."""
    return [
        {
            "customer": each.customer,
            "mail": each.mail,
            "state": each.state,
            "sent_at": write_optional(each.sent_at),
            "reply": each.reply,
        }
        for each in versions.notices(session, find(session, day))
    ]


def _described(session: Session, row: Policy, present: Policy | None, now: datetime) -> Json:
    effect = versions.takes_effect(session, row)
    is_planned = effect is None or effect > now
    state = "withdrawn" if row.withdrawn_at else "in force" if row is present else "planned" if is_planned else "past"
    return {
        "day": row.id,
        "state": state,
        "material": row.material,
        "proposed_at": format_time(row.proposed_at),
        "effective_at": write_optional(effect),
    }
