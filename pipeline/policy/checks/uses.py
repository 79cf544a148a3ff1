"""Checks of section 2: data is used for registered purposes only, and marketing mail only with consent."""

from datetime import timedelta

from sqlalchemy import and_, exists, literal, or_, select

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
from pipeline.policy.evidence.requests import YEAR, check_deadlines

NEWS = ("product_news",)  # marketing by what it says, whatever class it has been given
RECEIPT_DELAY = timedelta(days=2)  # a receipt is sent by then, also after an outage of the relay
# A choice at sign-up is not a valid consent, because the address is not confirmed yet.
_CONFIRMED = Consent.kind == "marketing", Consent.given, Consent.source != "sign-up"


def purposes(live: LiveSystem) -> Finding:
    """Every stored mail has a purpose in the register."""
    kinds = set(live.session.execute(select(Mail.kind).distinct()).scalars())
    wrong = sorted(kind for kind in kinds if kind not in MAILS or MAILS[kind].purpose not in PURPOSES)
    return broken_if(
        wrong, f"{len(PURPOSES)} purposes, {count_noun(len(kinds), 'kind')} of mail", f"no purpose: {', '.join(wrong)}"
    )


def receipts(live: LiveSystem) -> Finding:
    """Every completed payment older than two days has a receipt that the relay accepted, or one that was not to be sent."""
    completed = (
        Payment.status.in_(CAME),
        Payment.occurred_at < live.now - RECEIPT_DELAY,
        exists().where(Subscription.id == Payment.subscription_id, Subscription.status.is_not(None)),
        ~exists().where(EncryptionKey.key_id == Payment.subscription_id, EncryptionKey.wrapped_key.is_(None)),
    )
    of_payment = Mail.idempotency_key == literal("receipt:") + Payment.id
    # Withheld: too old when PayPal reported it. Queued without a due time: no address belongs to the customer.
    without_address = (Mail.state == "queued") & Mail.due_at.is_(None)
    is_new = (Mail.state == "queued") & (Mail.created_at > live.now - RECEIPT_DELAY)  # PayPal may report a payment late
    done = or_((Mail.state == "sent") & Mail.sent_at.is_not(None), Mail.state == "withheld", without_address, is_new)
    wrong = live.count(Payment, *completed, ~exists().where(of_payment, done))
    total = count_noun(live.count(Payment, *completed), "payment")
    return broken_if(
        wrong, f"{total}, each with its receipt", f"{count_noun(wrong, 'payment')} without a receipt that was sent"
    )


def classes(live: LiveSystem) -> Finding:
    """Every kind of mail has a class, and account setup and renewal reminders are transactional."""
    wrong = sorted(kind for kind in live.mails if kind not in MAILS)
    wrong += [kind for kind in ("account_setup", "renewal_reminder") if MAILS[kind].mail_class != "transactional"]
    return broken_if(
        wrong,
        f"{count_noun(len(live.mails), 'kind')} of mail, each with a class",
        f"without a class, or in the wrong one: {', '.join(wrong)}",
    )


def support(live: LiveSystem) -> Finding:
    """Every support request was answered in time or is not due yet, and no answer failed.

    An acknowledgement by the program is no answer.
    """
    failed = live.count(Mail, Mail.kind == "inbound_reply", Mail.state == "failed", Mail.created_at > live.now - YEAR)
    if failed:
        return broken(f"{count_noun(failed, 'answer')} refused by the relay; see: smt-billing mail list --state failed")
    return check_deadlines(live, "support request", PrivacyRequest.kind == "other")


def law(live: LiveSystem) -> Finding:
    """Every erasure receipt states the legal basis of the data that was kept."""
    rows = list(live.session.execute(select(Erasure)).scalars())
    wrong = [row.id for row in rows if not _states_basis(row.receipt)]
    return broken_if(
        wrong,
        f"{count_noun(len(rows), 'erasure')}, each with a legal basis",
        f"{count_noun(len(wrong), 'erasure')} without a legal basis",
    )


def no_advertising(live: LiveSystem) -> Finding:
    """No marketing mail was sent without a consent that was confirmed by mail or given while signed in."""
    kinds = [*NEWS, *(kind for kind, use in MAILS.items() if use.mail_class == "marketing" and kind not in NEWS)]
    if any(kind in MAILS and MAILS[kind].purpose != "news" for kind in kinds):
        return broken("a kind of marketing mail has another purpose than requested news")
    sent = select(Mail).where(Mail.kind.in_(kinds), Mail.sent_at.is_not(None))
    rows = list(live.session.execute(sent).scalars())
    wrong = [row for row in rows if not _had_consent(live, row)]
    proof = exists().where(Consent.customer_id == Customer.id, *_CONFIRMED)
    if unconfirmed := live.count(Customer, Customer.wants_marketing, Customer.merged_into.is_(None), ~proof):
        return broken(f"{count_noun(unconfirmed, 'customer')} opted in without a confirmation")
    figure = f"{count_noun(len(rows), 'mail')}, {count_noun(live.count(Customer, Customer.wants_marketing), 'customer')} opted in"
    return broken_if(wrong, figure, f"{count_noun(len(wrong), 'mail')} to customers who had not opted in")


def _had_consent(live: LiveSystem, mail: Mail) -> bool:
    """Return whether the last choice before the mail was sent is a confirmed consent.

    The consents of an erased customer are deleted after three years.
    """
    before = Consent.customer_id == mail.customer_id, Consent.kind == "marketing", Consent.at <= mail.claimed_at
    confirmed = and_(*_CONFIRMED)
    newest = select(confirmed).where(*before).order_by(Consent.at.desc(), Consent.id.desc()).limit(1)
    return bool(live.session.execute(newest).scalar_one_or_none())


def _states_basis(receipt: dict[str, object]) -> bool:
    rows = receipt.get("rows")
    kept = [row for row in rows.values() if row.get("action") == "kept, restricted"] if isinstance(rows, dict) else []
    return bool(receipt.get("basis")) and bool(kept) and all(row.get("basis") for row in kept)
