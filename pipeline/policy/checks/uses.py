"""Section 2: what data is used for is in the register of purposes, and mail is of the classes that people agreed to."""

from datetime import timedelta

from sqlalchemy import and_, exists, func, literal, select

from pipeline.db.models import CAME, Consent, Customer, EncryptionKey, Erasure, InboundMail, Mail, Payment, Subscription
from pipeline.outbox.mail_kinds import MAILS, PURPOSES
from pipeline.policy.evidence.inbound_mail import has_no_answer
from pipeline.policy.evidence.live_system import Finding, Live, absent, broken, judge, number

SETTLED = timedelta(days=1)  # by then a payment has its receipt, and a letter its acknowledgement
# A tick at sign-up is nobody's consent: whose address it was is not known there.
_AGREED = Consent.kind == "marketing", Consent.given, Consent.source != "sign-up"


def purposes(live: Live) -> Finding:
    """Everything that was ever mailed serves a purpose of the register."""
    kinds = set(live.session.execute(select(Mail.kind).distinct()).scalars())
    wrong = sorted(kind for kind in kinds if kind not in MAILS or MAILS[kind].purpose not in PURPOSES)
    return judge(
        wrong, f"{len(PURPOSES)} purposes, {number(len(kinds), 'kind')} of mail", f"no purpose: {', '.join(wrong)}"
    )


def receipts(live: Live) -> Finding:
    """Every payment that came a day ago or earlier has its receipt owed or sent."""
    come = (
        Payment.status.in_(CAME),
        Payment.occurred_at < live.now - SETTLED,
        exists().where(Subscription.id == Payment.subscription_id, Subscription.status.is_not(None)),
        ~exists().where(EncryptionKey.key_id == Payment.subscription_id, EncryptionKey.wrapped_key.is_(None)),
    )
    total = live.session.execute(select(func.count()).select_from(Payment).where(*come)).scalar_one()
    lacking = ~exists().where(Mail.idempotency_key == literal("receipt:") + Payment.id)
    wrong = live.session.execute(select(func.count()).select_from(Payment).where(*come, lacking)).scalar_one()
    return judge(
        wrong, f"{number(total, 'payment')}, each with its receipt", f"{number(wrong, 'payment')} without receipt"
    )


def classes(live: Live) -> Finding:
    """Every mail that can be written has a class, and account set-up and reminders are transactional."""
    wrong = sorted(kind for kind in live.mails if kind not in MAILS)
    wrong += [kind for kind in ("account_setup", "renewal_reminder") if MAILS[kind].mail_class != "transactional"]
    return judge(wrong, f"{number(len(live.mails), 'kind')} of mail, each with a class", f"without: {', '.join(wrong)}")


def support(live: Live) -> Finding:
    """Every letter to support was acknowledged, but for what is beyond the limits of a sender and of strangers."""
    old = InboundMail.kind == "support", InboundMail.received_at < live.now - SETTLED
    rows = list(live.session.execute(select(InboundMail).where(*old)).scalars())
    if not rows:
        return absent("no letters to support yet")
    keys = select(Mail.idempotency_key).where(Mail.kind == "support_received")
    answered = {key.partition(":")[2] for key in live.session.execute(keys).scalars()}
    wrong = [row for row in rows if row.id not in answered and not has_no_answer(live, row)]
    return judge(
        wrong, f"{number(len(rows), 'letter')}, each acknowledged", f"{number(len(wrong), 'letter')} unanswered"
    )


def law(live: Live) -> Finding:
    """What an erasure left for the law has its basis and its end on the receipt."""
    rows = list(live.session.execute(select(Erasure)).scalars())
    wrong = [row.id for row in rows if not _explains(row.receipt)]
    return judge(
        wrong, f"{number(len(rows), 'erasure')}, each explained", f"{number(len(wrong), 'erasure')} without basis"
    )


def no_advertising(live: Live) -> Finding:
    """No marketing mail went to somebody who had not asked for it, and confirmed that by mail or signed in to say so."""
    kinds = [kind for kind, use in MAILS.items() if use.mail_class == "marketing"]
    if any(MAILS[kind].purpose != "news" for kind in kinds):
        return broken("a marketing mail serves another purpose than news that was asked for")
    sent = select(Mail).where(Mail.kind.in_(kinds), Mail.sent_at.is_not(None))
    rows = list(live.session.execute(sent).scalars())
    wrong = [row for row in rows if not _had_agreed(live, row)]
    opted = select(func.count()).select_from(Customer).where(Customer.wants_marketing)
    unproved = live.session.execute(
        opted.where(~exists().where(Consent.customer_id == Customer.id, *_AGREED))
    ).scalar_one()
    if unproved:
        return broken(f"{number(unproved, 'customer')} opted in who never confirmed it")
    figure = f"{number(len(rows), 'mail')}, {number(live.session.execute(opted).scalar_one(), 'customer')} opted in"
    return judge(wrong, figure, f"{number(len(wrong), 'mail')} to people who had not opted in")


def _had_agreed(live: Live, mail: Mail) -> bool:
    """By the last word of theirs before it was tried; who was erased has taken the proof of it along after three years."""
    before = Consent.customer_id == mail.customer_id, Consent.kind == "marketing", Consent.at <= mail.claimed_at
    agreed = and_(*_AGREED)
    newest = select(agreed).where(*before).order_by(Consent.at.desc(), Consent.id.desc()).limit(1)
    return bool(live.session.execute(newest).scalar_one_or_none())


def _explains(receipt: dict[str, object]) -> bool:
    rows = receipt.get("rows")
    kept = [row for row in rows.values() if row.get("action") == "kept, restricted"] if isinstance(rows, dict) else []
    return bool(receipt.get("basis")) and bool(kept) and all(row.get("basis") for row in kept)
