"""What became of letters: the requests that each asked for, and why one may have no answer."""

from collections.abc import Iterable, Sequence
from datetime import timedelta

from sqlalchemy import func, select

from pipeline.customers.rate_limit import ANSWERED_A_DAY, HOUR, STRANGERS_AN_HOUR
from pipeline.db.models import InboundMail, Mail, PrivacyRequest
from pipeline.inbound_mail import parser as letter
from pipeline.policy.evidence.live_system import Live
from pipeline.privacy.retention.rules import REQUESTS_KEPT

DAY = timedelta(days=1)
ANSWERS = ("support_received", "privacy_request_received")


def about_privacy(live: Live) -> list[InboundMail]:
    """The letters that asked for a right, as far back as answered requests are kept."""
    recent = InboundMail.kind == "privacy", InboundMail.received_at > live.now - REQUESTS_KEPT
    return list(live.session.execute(select(InboundMail).where(*recent)).scalars())


def requests_of(live: Live, letters: Sequence[InboundMail]) -> dict[str, set[str]]:
    """Letter -> the requests that stand for it: the one that names it, and one of the same kind, open when it came.

    A second letter of a customer about the same thing opens none, and a stranger's always does. Raises Unsealable.
    """
    asked = list(live.session.execute(select(PrivacyRequest)).scalars())
    named = _named(live, asked)
    theirs: dict[str, list[PrivacyRequest]] = {}
    for row in asked:
        theirs.setdefault(row.customer_id or "", []).append(row)
    kinds = _kinds(live, letters)
    return {
        each.id: named.get(each.id, set())
        | {
            row.id
            for row in theirs.get(each.customer_id or "nobody", [])
            if row.kind == kinds.get(each.id) and _was_open(row, each)
        }
        for each in letters
    }


def has_no_answer(live: Live, row: InboundMail) -> bool:
    """Whether a letter may be without an answer: its writer had too many on that day, or strangers had in that hour."""
    day = InboundMail.received_at <= row.received_at, InboundMail.received_at > row.received_at - DAY
    written = live.session.execute(
        select(func.count(InboundMail.id)).where(InboundMail.key_id == row.key_id, *day)
    ).scalar_one()
    return written > ANSWERED_A_DAY or (row.customer_id is None and _strangers_had(live, row))


def _strangers_had(live: Live, row: InboundMail) -> bool:
    hour = row.received_at.replace(minute=0, second=0, microsecond=0)
    within = Mail.created_at >= hour, Mail.created_at < hour + HOUR
    answered = select(func.count(Mail.id)).where(Mail.kind.in_(ANSWERS), Mail.customer_id.is_(None), *within)
    return bool(live.session.execute(answered).scalar_one() >= STRANGERS_AN_HOUR)


def _named(live: Live, asked: Iterable[PrivacyRequest]) -> dict[str, set[str]]:
    """Letter -> the request that was opened for it, as the request says itself."""
    sealed = [row for row in asked if row.source == "mail" and row.details]
    seals, found = live.seals([row.key_id for row in sealed]), dict[str, set[str]]()
    for row in sealed:
        seal = seals.get(row.key_id)
        told = seal.open_json("privacy_request.details", row.details) if seal else {}
        found.setdefault(str(told.get("letter")), set()).add(row.id)
    return found


def _kinds(live: Live, letters: Iterable[InboundMail]) -> dict[str, str | None]:
    """What each letter asks for, read once more."""
    seals, found = live.seals([row.key_id for row in letters]), dict[str, str | None]()
    for row in letters:
        seal = seals.get(row.key_id)
        found[row.id] = (
            letter.read(seal.open("inbound_mail.content", row.content)).asks if seal and row.content else None
        )
    return found


def _was_open(request: PrivacyRequest, row: InboundMail) -> bool:
    return request.received_at <= row.received_at and (request.done_at is None or request.done_at >= row.received_at)
