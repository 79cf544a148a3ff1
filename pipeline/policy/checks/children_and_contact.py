"""Sections 8 and 10: grown-ups only, and an address that answers."""

from collections.abc import Iterable
from datetime import timedelta

import orjson
from sqlalchemy import exists, func, or_, select

from pipeline.db.models import Consent, Customer, Mail, PrivacyRequest
from pipeline.policy.evidence import inbound_mail as letters
from pipeline.policy.evidence.live_system import Finding, Live, broken, judge, number
from pipeline.policy.stated_limits import ADULT_YEARS
from pipeline.rendering.message import valid_address

CHILD_DAYS = 7  # from the report of a child's data to its erasure, the waiting period included
BIRTH = ("birth", "born", "age", "dob")


def adults(live: Live) -> Finding:
    """Whoever signed up has said that they are old enough: when, and in which words. No date of birth is kept."""
    signed_up = Customer.signed_up_at.is_not(None), Customer.erased_at.is_(None)
    proof = exists().where(Consent.customer_id == Customer.id, Consent.kind == "adult", Consent.given)
    lacking = or_(Customer.adult_confirmed_at.is_(None), Customer.adult_text_version.is_(None), ~proof)
    total = live.session.execute(select(func.count()).select_from(Customer).where(*signed_up)).scalar_one()
    wrong = live.session.execute(select(func.count()).select_from(Customer).where(*signed_up, lacking)).scalar_one()
    if wrong:
        return broken(f"{number(wrong, 'sign-up')} without the word that they are {ADULT_YEARS} or older")
    return judge(_births(live), f"{number(total, 'sign-up')}, each {ADULT_YEARS} or older", "dates of birth are kept")


def children(live: Live) -> Finding:
    """Every report of a child's data led to erasure within days."""
    reports = list(live.session.execute(select(PrivacyRequest).where(PrivacyRequest.kind == "child")).scalars())
    late = [row for row in reports if row.done_at is None and row.received_at < live.now - timedelta(days=CHILD_DAYS)]
    done = [row.customer_id for row in reports if row.state == "done" and row.customer_id]
    kept = select(func.count()).select_from(Customer).where(Customer.id.in_(done), Customer.personal_data.is_not(None))
    wrong = len(late) + live.session.execute(kept).scalar_one()
    return judge(wrong, f"{number(len(reports), 'report')}, 0 open", f"{number(wrong, 'report')} without an erasure")


def contact(live: Live) -> Finding:
    """The address can be written to, and whoever asked about their data there was told that it has arrived."""
    if not valid_address(live.vendor.contact):
        return broken(f"{live.vendor.contact!r} is no address: set SMT_PRIVACY_EMAIL")
    old = [row for row in letters.about_privacy(live) if row.received_at < live.now - timedelta(days=1)]
    asked = letters.requests_of(live, old)
    wrong = [row for row in old if not _is_acknowledged(live, asked[row.id]) and not letters.has_no_answer(live, row)]
    figure = f"{live.vendor.contact}, {number(len(old), 'letter')} acknowledged"
    return judge(wrong, figure, f"{number(len(wrong), 'letter')} about privacy without acknowledgement")


def _births(live: Live) -> bool:
    rows = live.session.execute(
        select(Customer.id, Customer.personal_data).where(Customer.personal_data.is_not(None))
    ).all()
    opened = live.opened("customer.personal_data", [(row.id, row.personal_data) for row in rows])
    return any(field in BIRTH or "birth" in field for _, plain in opened for field in orjson.loads(plain))


def _is_acknowledged(live: Live, requests: Iterable[str]) -> bool:
    """By the mail that says that one of these requests has arrived."""
    keys = [f"privacy_request_received:{id}" for id in requests]
    return live.session.execute(select(Mail.id).where(Mail.idempotency_key.in_(keys)).limit(1)).first() is not None
