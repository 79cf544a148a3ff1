"""Section 6: what people asked for was done, in time."""

from datetime import datetime

from sqlalchemy import Select, exists, or_, select

from pipeline.crypto.keyring import DecryptionError
from pipeline.db import lww_map
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
from pipeline.policy.evidence.live_system import (
    Finding,
    LiveSystem,
    broken,
    broken_if,
    count_noun,
    holds,
    not_applicable,
)
from pipeline.policy.evidence.requests import in_time
from pipeline.privacy.erasure import workflow
from pipeline.privacy.requests import ANSWER_WITHIN
from pipeline.privacy.retention.rules import REQUESTS_KEPT


def access(live: LiveSystem) -> Finding:
    """Every request for a copy is answered, or still has time."""
    return in_time(live, "request", PrivacyRequest.kind == "access")


def correct(live: LiveSystem) -> Finding:
    """Every correction was made in time, and no mail went to an address after it had been corrected."""
    late = in_time(live, "correction", PrivacyRequest.kind == "correct")
    if late.verdict == "broken":
        return late
    try:
        wrong = sum(_mails_astray(live, row) for row in _corrected(live))
    except DecryptionError:
        return broken("what a customer told us does not open")
    return broken_if(wrong, late.figure, f"{count_noun(wrong, 'mail')} went to an address after it had been corrected")


def delete(live: LiveSystem) -> Finding:
    """Of everybody erased, every key is destroyed and nothing sealed is left."""
    rows = list(live.session.execute(select(Erasure)).scalars())
    wrong = [row.id for row in rows if _is_left(live, row)]
    waiting = sum(row.completed_at is None for row in rows)
    figure = f"{count_noun(len(rows), 'erasure')}, {waiting} waiting for the master key's replacement"
    return broken_if(
        wrong, figure, f"keys or sealed data left after {count_noun(len(wrong), 'erasure')}: {', '.join(wrong)}"
    )


def export(live: LiveSystem) -> Finding:
    """The product can be asked for its own export, over a way that is encrypted or stays here."""
    if not live.settings.product_url and not live.settings.product_command:
        return not_applicable("no managed cloud: neither SMT_PRODUCT_COMMAND nor SMT_PRODUCT_URL is set")
    late = in_time(live, "export", PrivacyRequest.kind == "access")
    return late if late.verdict == "broken" else holds(f"the product is asked; {late.figure}")


def opt_out(live: LiveSystem) -> Finding:
    """No mail that can be declined was tried after it had been."""
    optional = [kind for kind in MAILS if is_optional(kind)]
    sent = select(Mail).where(Mail.kind.in_(optional), Mail.claimed_at.is_not(None))
    rows = list(live.session.execute(sent).scalars())
    wrong = [row.id for row in rows if _had_declined(live, row)]
    outs = live.count(Consent, Consent.given.is_(False), Consent.source != "sign-up")
    figure = f"{count_noun(outs, 'opt-out')}, 0 mails after one"
    return broken_if(wrong, figure, f"{count_noun(len(wrong), 'mail')} after an opt-out")


def by_mail(live: LiveSystem) -> Finding:
    """Every message that a person wrote is a request that the operator sees: what it asks for is theirs to judge."""
    written = InboundMail.kind != "automatic", InboundMail.received_at > live.now - REQUESTS_KEPT
    total = live.count(InboundMail, *written)
    if not total:
        return not_applicable("no message has come to the address yet")
    lost = live.count(InboundMail, *written, ~exists().where(PrivacyRequest.id == InboundMail.request_id))
    return broken_if(
        lost, f"{count_noun(total, 'letter')}, each a request", f"{count_noun(lost, 'letter')} without a request"
    )


def answered(live: LiveSystem) -> Finding:
    """No request is open after its day, none was answered after it, and no day is later than promised."""
    finding = in_time(live, "request")
    if finding.verdict == "broken":
        return finding
    rows = live.session.execute(select(PrivacyRequest.received_at, PrivacyRequest.due_at)).all()
    wrong = [row for row in rows if row.due_at - row.received_at > ANSWER_WITHIN]
    return broken_if(wrong, finding.figure, f"{count_noun(len(wrong), 'request')} with a day later than promised")


def _corrected(live: LiveSystem) -> list[tuple[str, datetime, str]]:
    """Customer, time and address of every e-mail address that customers told us, as it counts now."""
    told = ((id, lww_map.updated_at(known, "email"), lww_map.value(known, "email")) for id, known in live.people())
    return [(id, told_at, address) for id, told_at, address in told if told_at and address]


def _mails_astray(live: LiveSystem, corrected: tuple[str, datetime, str]) -> int:
    """Mails to this customer that were written after the correction, and for another address than theirs."""
    id, told_at, address = corrected
    theirs = or_(Mail.customer_id == id, Mail.subscription_id.in_(_subscriptions_of(id)))
    mails = select(Mail).where(theirs, Mail.recipient.is_not(None), Mail.claimed_at > told_at, Mail.attempts == 1)
    # The word that an address was changed goes to the old one too.
    rows = live.session.execute(mails.where(Mail.kind != "email_changed")).scalars().all()
    opened = live.opened("mail.recipient", [(row.key_id, row.recipient) for row in rows if row.recipient])
    return sum(plain.decode().lower() != address.lower() for _, plain in opened)


def _subscriptions_of(id: str) -> Select[str]:
    return select(Subscription.id).where(Subscription.customer_id == id)


def _is_left(live: LiveSystem, row: Erasure) -> bool:
    """Who came back since has a key and a row anew: only what is older than the erasure was to go."""
    older = EncryptionKey.created_at <= row.at
    keys = select(EncryptionKey.key_id).where(
        EncryptionKey.key_id.in_(row.key_ids), EncryptionKey.wrapped_key.is_not(None), older
    )
    if live.session.execute(keys.limit(1)).first():
        # The confirmation of the erasure has a key of its own, for as long as it takes to send it.
        alive = set(live.session.execute(keys).scalars())
        return alive != {workflow.confirmation_label(row.id)} or row.at < live.now - workflow.GIVE_UP_MAIL
    still = Customer.personal_data.is_not(None), Customer.erased_at.is_not(None)
    customer = select(Customer.id).where(Customer.id == row.customer_id, *still)
    subscription = select(Subscription.id).where(
        Subscription.id.in_(row.key_ids), Subscription.personal_data.is_not(None)
    )
    event = select(Event.id).where(Event.key_id.in_(row.key_ids), Event.body.is_not(None), Event.received_at < row.at)
    letter = select(InboundMail.id).where(InboundMail.customer_id == row.customer_id, InboundMail.received_at < row.at)
    return any(live.session.execute(each.limit(1)).first() for each in (customer, subscription, event, letter))


def _had_declined(live: LiveSystem, mail: Mail) -> bool:
    kind = MAILS[mail.kind].mail_class
    theirs = select(Subscription.customer_id).where(Subscription.id == mail.subscription_id).scalar_subquery()
    customer = mail.customer_id or theirs
    before = Consent.customer_id == customer, Consent.kind == kind, Consent.at <= mail.claimed_at
    newest = select(Consent.given).where(*before).order_by(Consent.at.desc(), Consent.id.desc()).limit(1)
    return live.session.execute(newest).scalar_one_or_none() is False
