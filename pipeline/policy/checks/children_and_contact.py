"""Checks of sections 8 and 10: minimum age, reports of children's data, and the contact address."""

from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import exists, or_, select

from pipeline.db.models import Consent, Customer, PrivacyRequest
from pipeline.email_address import valid_address
from pipeline.policy.evidence.live_system import Finding, LiveSystem, broken, broken_if, count_noun, holds
from pipeline.policy.stated_limits import ADULT_YEARS

CHILD_DAYS = 7  # from the report of a child's data to its erasure, including the waiting period
UNREAD = timedelta(hours=1)  # messages are normally filed within a minute
BIRTH = ("birth", "born", "age", "dob")


def adults(live: LiveSystem) -> Finding:
    """Every sign-up has a statement of age with its time and wording, and no date of birth is stored."""
    signed_up = Customer.signed_up_at.is_not(None), Customer.erased_at.is_(None), Customer.merged_into.is_(None)
    proof = exists().where(Consent.customer_id == Customer.id, Consent.kind == "adult", Consent.given)
    lacking = or_(Customer.adult_confirmed_at.is_(None), Customer.adult_text_version.is_(None), ~proof)
    if wrong := live.count(Customer, *signed_up, lacking):
        return broken(f"{count_noun(wrong, 'sign-up')} without the statement that they are {ADULT_YEARS} or older")
    has_birth_date = any(field in BIRTH or "birth" in field for _, data in live.customer_data() for field in data)
    return broken_if(
        has_birth_date,
        f"{count_noun(live.count(Customer, *signed_up), 'sign-up')}, each {ADULT_YEARS} or older",
        "dates of birth are stored",
    )


def children(live: LiveSystem) -> Finding:
    """Every report of a child's data led to an erasure within `CHILD_DAYS`."""
    reports = list(live.session.execute(select(PrivacyRequest).where(PrivacyRequest.kind == "child")).scalars())
    late = [row for row in reports if row.done_at is None and row.received_at < live.now - timedelta(days=CHILD_DAYS)]
    done = [row.customer_id for row in reports if row.state == "done" and row.customer_id]
    wrong = len(late) + live.count(Customer, Customer.id.in_(done), Customer.personal_data.is_not(None))
    return broken_if(
        wrong, f"{count_noun(len(reports), 'report')}, 0 open", f"{count_noun(wrong, 'report')} without an erasure"
    )


def contact(live: LiveSystem) -> Finding:
    """The contact address is valid, and messages in its Maildir are filed."""
    if not valid_address(live.vendor.contact):
        return broken(f"{live.vendor.contact!r} is not a valid address; set SMT_PRIVACY_EMAIL")
    maildir = live.settings.inbound_maildir
    if maildir is None:
        return holds(f"{live.vendor.contact}; no Maildir to check: SMT_INBOUND_MAILDIR is not set")
    problem = _maildir_problem(maildir, live.now)
    return broken_if(
        problem, f"{live.vendor.contact}, each message filed", f"{maildir}: {problem}; run: smt-billing inbound"
    )


def _maildir_problem(maildir: Path, now: datetime) -> str:
    """Return what is wrong with the Maildir, or "" if nothing is."""
    try:
        old = [path for path in (maildir / "new").iterdir() if path.lstat().st_mtime < (now - UNREAD).timestamp()]
    except FileNotFoundError as error:  # the folder is missing, or a message was filed just now
        return "" if (maildir / "new").is_dir() else f"cannot be read: {error.strerror}"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return f"{count_noun(len(old), 'message')} not filed for an hour" if old else ""
