"""Section 2: what data is used for is in the register of purposes, and mail is of the classes that people agreed to."""

from datetime import timedelta

from sqlalchemy import and_, exists, literal, select

from pipeline.db.models import (
    CAME,
    Consent,
    Customer,
    EncryptionKey,
    Erasure,
    Mail,
    Payment,
    PrivacyRequest,
    Subscription,
)
from pipeline.outbox.mail_kinds import MAILS, PURPOSES
from pipeline.policy.evidence.live_system import Finding, LiveSystem, broken, broken_if, count_noun
from pipeline.policy.evidence.requests import in_time

SETTLED = timedelta(days=1)  # by then a payment has its receipt
# A tick at sign-up is nobody's consent: whose address it was is not known there.
_AGREED = Consent.kind == "marketing", Consent.given, Consent.source != "sign-up"


def purposes(live: LiveSystem) -> Finding:
    """Everything that was ever mailed serves a purpose of the register."""
    kinds = set(live.session.execute(select(Mail.kind).distinct()).scalars())
    wrong = sorted(kind for kind in kinds if kind not in MAILS or MAILS[kind].purpose not in PURPOSES)
    return broken_if(
        wrong, f"{len(PURPOSES)} purposes, {count_noun(len(kinds), 'kind')} of mail", f"no purpose: {', '.join(wrong)}"
    )


def receipts(live: LiveSystem) -> Finding:
    """Every payment that came a day ago or earlier has its receipt owed or sent."""
    come = (
        Payment.status.in_(CAME),
        Payment.occurred_at < live.now - SETTLED,
        exists().where(Subscription.id == Payment.subscription_id, Subscription.status.is_not(None)),
        ~exists().where(EncryptionKey.key_id == Payment.subscription_id, EncryptionKey.wrapped_key.is_(None)),
    )
    wrong = live.count(Payment, *come, ~exists().where(Mail.idempotency_key == literal("receipt:") + Payment.id))
    total = count_noun(live.count(Payment, *come), "payment")
    return broken_if(wrong, f"{total}, each with its receipt", f"{count_noun(wrong, 'payment')} without receipt")


def classes(live: LiveSystem) -> Finding:
    """Every mail that can be written has a class, and account set-up and reminders are transactional."""
    wrong = sorted(kind for kind in live.mails if kind not in MAILS)
    wrong += [kind for kind in ("account_setup", "renewal_reminder") if MAILS[kind].mail_class != "transactional"]
    return broken_if(
        wrong, f"{count_noun(len(live.mails), 'kind')} of mail, each with a class", f"without: {', '.join(wrong)}"
    )


def support(live: LiveSystem) -> Finding:
    """Every message that asks for no right is answered, or still has time."""
    return in_time(live, "support request", PrivacyRequest.kind == "other")


def law(live: LiveSystem) -> Finding:
    """What an erasure left for the law has its basis and its end on the receipt."""
    rows = list(live.session.execute(select(Erasure)).scalars())
    wrong = [row.id for row in rows if not _explains(row.receipt)]
    return broken_if(
        wrong,
        f"{count_noun(len(rows), 'erasure')}, each explained",
        f"{count_noun(len(wrong), 'erasure')} without basis",
    )


def no_advertising(live: LiveSystem) -> Finding:
    """No marketing mail went to somebody who had not asked for it, and confirmed that by mail or signed in to say so."""
    kinds = [kind for kind, use in MAILS.items() if use.mail_class == "marketing"]
    if any(MAILS[kind].purpose != "news" for kind in kinds):
        return broken("a marketing mail serves another purpose than news that was asked for")
    sent = select(Mail).where(Mail.kind.in_(kinds), Mail.sent_at.is_not(None))
    rows = list(live.session.execute(sent).scalars())
    wrong = [row for row in rows if not _had_agreed(live, row)]
    proof = exists().where(Consent.customer_id == Customer.id, *_AGREED)
    if unproved := live.count(Customer, Customer.wants_marketing, ~proof):
        return broken(f"{count_noun(unproved, 'customer')} opted in who never confirmed it")
    figure = f"{count_noun(len(rows), 'mail')}, {count_noun(live.count(Customer, Customer.wants_marketing), 'customer')} opted in"
    return broken_if(wrong, figure, f"{count_noun(len(wrong), 'mail')} to people who had not opted in")


def _had_agreed(live: LiveSystem, mail: Mail) -> bool:
    """By the last word of theirs before it was tried; who was erased has taken the proof of it along after three years."""
    before = Consent.customer_id == mail.customer_id, Consent.kind == "marketing", Consent.at <= mail.claimed_at
    agreed = and_(*_AGREED)
    newest = select(agreed).where(*before).order_by(Consent.at.desc(), Consent.id.desc()).limit(1)
    return bool(live.session.execute(newest).scalar_one_or_none())


def _explains(receipt: dict[str, object]) -> bool:
    rows = receipt.get("rows")
    kept = [row for row in rows.values() if row.get("action") == "kept, restricted"] if isinstance(rows, dict) else []
    return bool(receipt.get("basis")) and bool(kept) and all(row.get("basis") for row in kept)
