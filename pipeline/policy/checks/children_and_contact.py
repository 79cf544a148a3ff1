"""Sections 8 and 10: grown-ups only, and an address that answers."""

from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import exists, or_, select

from pipeline.db.models import Consent, Customer, PrivacyRequest
from pipeline.email_address import valid_address
from pipeline.policy.evidence.live_system import Finding, LiveSystem, broken, broken_if, count_noun, holds
from pipeline.policy.stated_limits import ADULT_YEARS

CHILD_DAYS = 7  # from the report of a child's data to its erasure, the waiting period included
UNREAD = timedelta(hours=1)  # a message is filed within a minute
BIRTH = ("birth", "born", "age", "dob")


def adults(live: LiveSystem) -> Finding:
    """Whoever signed up has said that they are old enough: when, and in which words. No date of birth is kept."""
    signed_up = Customer.signed_up_at.is_not(None), Customer.erased_at.is_(None)
    proof = exists().where(Consent.customer_id == Customer.id, Consent.kind == "adult", Consent.given)
    lacking = or_(Customer.adult_confirmed_at.is_(None), Customer.adult_text_version.is_(None), ~proof)
    if wrong := live.count(Customer, *signed_up, lacking):
        return broken(f"{count_noun(wrong, 'sign-up')} without the word that they are {ADULT_YEARS} or older")
    births = any(field in BIRTH or "birth" in field for _, person in live.people() for field in person)
    return broken_if(
        births,
        f"{count_noun(live.count(Customer, *signed_up), 'sign-up')}, each {ADULT_YEARS} or older",
        "dates of birth are kept",
    )


def children(live: LiveSystem) -> Finding:
    """Every report of a child's data led to erasure within days."""
    reports = list(live.session.execute(select(PrivacyRequest).where(PrivacyRequest.kind == "child")).scalars())
    late = [row for row in reports if row.done_at is None and row.received_at < live.now - timedelta(days=CHILD_DAYS)]
    done = [row.customer_id for row in reports if row.state == "done" and row.customer_id]
    wrong = len(late) + live.count(Customer, Customer.id.in_(done), Customer.personal_data.is_not(None))
    return broken_if(
        wrong, f"{count_noun(len(reports), 'report')}, 0 open", f"{count_noun(wrong, 'report')} without an erasure"
    )


def contact(live: LiveSystem) -> Finding:
    """The address can be written to, and what arrives in its Maildir is filed."""
    if not valid_address(live.vendor.contact):
        return broken(f"{live.vendor.contact!r} is no address: set SMT_PRIVACY_EMAIL")
    maildir = live.settings.inbound_maildir
    if maildir is None:
        return holds(f"{live.vendor.contact}; no Maildir is read here: SMT_INBOUND_MAILDIR is not set")
    unread = _unread(maildir, live.now)
    return broken_if(
        unread, f"{live.vendor.contact}, each message filed", f"{maildir}: {unread}; run: smt-billing inbound"
    )


def _unread(maildir: Path, now: datetime) -> str:
    """What is wrong with a Maildir that is read every minute; "" if nothing is."""
    try:
        old = [path for path in (maildir / "new").iterdir() if path.lstat().st_mtime < (now - UNREAD).timestamp()]
    except FileNotFoundError as error:  # the folder, or a message that was filed just now
        return "" if (maildir / "new").is_dir() else f"cannot be read: {error.strerror}"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return f"{count_noun(len(old), 'letter')} not filed for an hour" if old else ""
