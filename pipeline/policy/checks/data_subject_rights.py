"""Section 6: what people asked for was done, in time."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import func, or_, select

from pipeline.crypto.keyring import Unsealable
from pipeline.db import lww_map as register
from pipeline.db.models import (
    Consent,
    Customer,
    EncryptionKey,
    Erasure,
    Event,
    InboundMail,
    Mail,
    PrivacyRequest,
    Subscription,
)
from pipeline.outbox.mail_kinds import MAILS, is_optional
from pipeline.policy.evidence import inbound_mail as letters
from pipeline.policy.evidence.live_system import Finding, Live, absent, broken, judge, number
from pipeline.privacy.erasure import workflow as erase
from pipeline.privacy.requests import ANSWER_WITHIN

UNREAD = timedelta(hours=1)  # a letter is filed within a minute
YEAR = timedelta(days=365)  # how far back an answer that came late counts against us


def access(live: Live) -> Finding:
    """Every request for a copy is answered, or still has time."""
    return _in_time(live, ("access",), "request")


def correct(live: Live) -> Finding:
    """Every correction was made in time, and no mail went to an address after it had been corrected."""
    late = _in_time(live, ("correct",), "correction")
    if late.verdict == "broken":
        return late
    try:
        wrong = sum(_mails_astray(live, row) for row in _corrected(live))
    except Unsealable:
        return broken("what a customer told us does not open")
    return judge(wrong, late.figure, f"{number(wrong, 'mail')} went to an address after it had been corrected")


def delete(live: Live) -> Finding:
    """Of everybody erased, every key is destroyed and nothing sealed is left."""
    rows = list(live.session.execute(select(Erasure)).scalars())
    wrong = [row.id for row in rows if _is_left(live, row)]
    waiting = sum(row.completed_at is None for row in rows)
    figure = f"{number(len(rows), 'erasure')}, {waiting} waiting for the master key's replacement"
    return judge(wrong, figure, f"keys or sealed data left after {number(len(wrong), 'erasure')}: {', '.join(wrong)}")


def export(live: Live) -> Finding:
    """The product can be asked for its own export, over a way that is encrypted or stays here."""
    if not live.settings.product_url and not live.settings.product_command:
        return absent("no managed cloud: neither SMT_PRODUCT_COMMAND nor SMT_PRODUCT_URL is set")
    late = _in_time(live, ("access",), "export")
    return late if late.verdict == "broken" else judge(0, f"the product is asked; {late.figure}", "")


def opt_out(live: Live) -> Finding:
    """No mail that can be declined was tried after it had been."""
    optional = [kind for kind in MAILS if is_optional(kind)]
    sent = select(Mail).where(Mail.kind.in_(optional), Mail.claimed_at.is_not(None))
    rows = list(live.session.execute(sent).scalars())
    wrong = [row.id for row in rows if _had_declined(live, row)]
    outs = select(func.count()).select_from(Consent).where(Consent.given.is_(False), Consent.source != "sign-up")
    figure = f"{number(live.session.execute(outs).scalar_one(), 'opt-out')}, 0 mails after one"
    return judge(wrong, figure, f"{number(len(wrong), 'mail')} after an opt-out")


def by_mail(live: Live) -> Finding:
    """Every letter that asks for one of these rights is a request that the operator sees, and none lies unread."""
    come, maildir = letters.about_privacy(live), live.settings.inbound_maildir
    if not come and not maildir:
        return absent("mail to the address is not read here: SMT_INBOUND_MAILDIR is not set")
    if maildir and (unread := _unread(maildir, live.now)):
        return broken(f"{maildir}: {unread}; see what smt-billing inbound says")
    asked = letters.requests_of(live, come)
    nothing = [id for id, requests in asked.items() if not requests]
    since = f" since {min(row.received_at for row in come):%Y-%m-%d}" if come else ""
    figure = f"{number(len(come), 'letter')}{since}, {number(len(set().union(*asked.values())), 'request')}"
    return judge(nothing, figure, f"{number(len(nothing), 'letter')} without a request")


def answered(live: Live) -> Finding:
    """No request is open after its day, none was answered after it, and no day is later than promised."""
    finding = _in_time(live, (), "request")
    if finding.verdict == "broken":
        return finding
    rows = live.session.execute(select(PrivacyRequest.received_at, PrivacyRequest.due_at)).all()
    wrong = [row for row in rows if row.due_at - row.received_at > ANSWER_WITHIN]
    return judge(wrong, finding.figure, f"{number(len(wrong), 'request')} with a day later than promised")


def _in_time(live: Live, kinds: Sequence[str], noun: str) -> Finding:
    """Of these kinds, or of all: open ones whose day has passed, and answers of the last year that came late."""
    those = [PrivacyRequest.kind.in_(kinds)] if kinds else []
    late = or_(
        PrivacyRequest.done_at.is_(None) & (PrivacyRequest.due_at < live.now),
        (PrivacyRequest.done_at > PrivacyRequest.due_at) & (PrivacyRequest.done_at > live.now - YEAR),
    )
    total = live.session.execute(select(func.count()).select_from(PrivacyRequest).where(*those)).scalar_one()
    wrong = live.session.execute(select(func.count()).select_from(PrivacyRequest).where(*those, late)).scalar_one()
    return judge(
        wrong, f"{number(total, noun)}, 0 late", f"{number(wrong, noun)} late; see: smt-billing customers requests"
    )


def _corrected(live: Live) -> list[tuple[str, datetime, str]]:
    """Customer, time and address of every e-mail address that customers told us, as it counts now."""
    rows = live.session.execute(
        select(Customer.id, Customer.personal_data).where(Customer.personal_data.is_not(None))
    ).all()
    seals, found = live.seals([row.id for row in rows]), []
    for row in rows:
        seal = seals.get(row.id)
        known = (seal and seal.open_json("customer.personal_data", row.personal_data)) or {}
        told_at, address = register.time_of(known, "email"), register.value(known, "email")
        if told_at and address:
            found.append((row.id, told_at, address))
    return found


def _mails_astray(live: Live, corrected: tuple[str, datetime, str]) -> int:
    """Mails to this customer that were written after the correction, and for another address than theirs."""
    id, told_at, address = corrected
    theirs = or_(Mail.customer_id == id, Mail.subscription_id.in_(_subscriptions_of(id)))
    mails = select(Mail).where(theirs, Mail.recipient.is_not(None), Mail.claimed_at > told_at, Mail.attempts == 1)
    # The word that an address was changed goes to the old one too.
    rows = live.session.execute(mails.where(Mail.kind != "email_changed")).scalars().all()
    opened = live.opened("mail.recipient", [(row.key_id, row.recipient) for row in rows if row.recipient])
    return sum(plain.decode().lower() != address.lower() for _, plain in opened)


def _subscriptions_of(id: str) -> Any:
    return select(Subscription.id).where(Subscription.customer_id == id)


def _is_left(live: Live, row: Erasure) -> bool:
    """Who came back since has a key and a row anew: only what is older than the erasure was to go."""
    older = EncryptionKey.created_at <= row.at
    keys = select(EncryptionKey.key_id).where(
        EncryptionKey.key_id.in_(row.key_ids), EncryptionKey.wrapped_key.is_not(None), older
    )
    if live.session.execute(keys.limit(1)).first():
        # The confirmation of the erasure has a key of its own, for as long as it takes to send it.
        alive = set(live.session.execute(keys).scalars())
        return alive != {erase.confirmation_label(row.id)} or row.at < live.now - erase.GIVE_UP_MAIL
    still = Customer.personal_data.is_not(None), Customer.erased_at.is_not(None)
    customer = select(Customer.id).where(Customer.id == row.customer_id, *still)
    subscription = select(Subscription.id).where(
        Subscription.id.in_(row.key_ids), Subscription.personal_data.is_not(None)
    )
    event = select(Event.id).where(Event.key_id.in_(row.key_ids), Event.body.is_not(None), Event.received_at < row.at)
    letter = select(InboundMail.id).where(InboundMail.customer_id == row.customer_id, InboundMail.received_at < row.at)
    return any(live.session.execute(each.limit(1)).first() for each in (customer, subscription, event, letter))


def _had_declined(live: Live, mail: Mail) -> bool:
    kind = MAILS[mail.kind].mail_class
    theirs = select(Subscription.customer_id).where(Subscription.id == mail.subscription_id).scalar_subquery()
    customer = mail.customer_id or theirs
    before = Consent.customer_id == customer, Consent.kind == kind, Consent.at <= mail.claimed_at
    newest = select(Consent.given).where(*before).order_by(Consent.at.desc(), Consent.id.desc()).limit(1)
    return live.session.execute(newest).scalar_one_or_none() is False


def _unread(maildir: Path, now: datetime) -> str:
    """What is wrong with a Maildir that is read every minute; "" if nothing is."""
    try:
        old = [path for path in (maildir / "new").iterdir() if path.lstat().st_mtime < (now - UNREAD).timestamp()]
    except FileNotFoundError as error:  # the folder, or a letter that was filed just now
        return "" if (maildir / "new").is_dir() else f"cannot be read: {error.strerror}"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return f"{number(len(old), 'letter')} not filed for an hour" if old else ""
