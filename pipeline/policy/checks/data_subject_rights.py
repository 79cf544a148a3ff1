"""Checks of section 6: requests of customers were carried out, and in time."""

from datetime import datetime, timedelta

from sqlalchemy import Select, exists, literal, or_, select

from pipeline.crypto.keyring import DecryptionError
from pipeline.db import lww_map
from pipeline.db.models import (
    Base,
    Consent,
    Customer,
    EncryptionKey,
    Erasure,
    InboundMail,
    Mail,
    PrivacyRequest,
    ReadAudit,
    Subscription,
)
from pipeline.outbox.mail_kinds import MAILS, is_optional
from pipeline.policy.evidence.erased_people import remains
from pipeline.policy.evidence.live_system import (
    Finding,
    LiveSystem,
    broken,
    broken_if,
    count_noun,
    holds,
    not_applicable,
)
from pipeline.policy.evidence.requests import check_deadlines

# The notice of a changed address also goes to the old address, and the link that confirms a new one goes to that one.
ANSWER_WITHIN = timedelta(days=31)  # the policy: 30 days; a deadline at the end of the day is a little later
REQUESTS_KEPT = timedelta(days=3 * 365)
CONFIRMED_WITHIN = timedelta(days=7)  # the confirmation of an erasure is sent or given up by then
NEWS = ("product_news",)  # optional by what it says, whatever class it has been given
TO_OTHER_ADDRESSES = ("email_changed", "account_link")


def access(live: LiveSystem) -> Finding:
    """Every request for a copy was answered in time or is not due yet, and each that is done has a copy that went out."""
    late = check_deadlines(live, "request", PrivacyRequest.kind == "access")
    if late.verdict == "broken":
        return late
    without = _done_without_copy(live)
    return broken_if(without, late.figure, f"{count_noun(without, 'request')} closed as done, but no copy went out")


def correct(live: LiveSystem) -> Finding:
    """Every correction was made in time, and no mail was sent to an address after its correction."""
    late = check_deadlines(live, "correction", PrivacyRequest.kind == "correct")
    if late.verdict == "broken":
        return late
    try:
        wrong = sum(_misdirected_mails(live, row) for row in _customer_addresses(live))
    except DecryptionError:
        return broken("data that a customer entered cannot be decrypted with its key")
    return broken_if(wrong, late.figure, f"{count_noun(wrong, 'mail')} sent to an address after its correction")


def delete(live: LiveSystem) -> Finding:
    """After every erasure, no key and no personal data is left in any table, and every request has its erasure."""
    rows = list(live.session.execute(select(Erasure)).scalars())
    left = {row.id: found for row in rows if (found := _left_after(live, row))}
    if left:
        id, found = next(iter(left.items()))
        return broken(f"left after {count_noun(len(left), 'erasure')}, such as {id}: {', '.join(found)}")
    if undone := _closed_without_erasure(live):
        return broken(f"{count_noun(undone, 'request')} closed as done, but the customer was not erased")
    waiting = sum(row.completed_at is None for row in rows)
    return holds(f"{count_noun(len(rows), 'erasure')}, {waiting} waiting for the master key's rotation")


def export(live: LiveSystem) -> Finding:
    """Every request for a copy was answered in time. Applies only if an export of the product's data is configured."""
    if not live.settings.product_url and not live.settings.product_command:
        return not_applicable("no managed cloud: neither SMT_PRODUCT_COMMAND nor SMT_PRODUCT_URL is set")
    late = check_deadlines(live, "export", PrivacyRequest.kind == "access")
    return late if late.verdict == "broken" else holds(f"the product's data is included; {late.figure}")


def opt_out(live: LiveSystem) -> Finding:
    """No optional mail was sent after the customer had opted out of it."""
    optional = {*NEWS, *(kind for kind in MAILS if is_optional(kind))}
    sent = select(Mail).where(Mail.kind.in_(optional), Mail.claimed_at.is_not(None))
    rows = list(live.session.execute(sent).scalars())
    wrong = [row.id for row in rows if _had_opted_out(live, row)]
    opt_outs = live.count(Consent, Consent.given.is_(False), Consent.source != "sign-up")
    figure = f"{count_noun(opt_outs, 'opt-out')}, 0 mails after one"
    return broken_if(wrong, figure, f"{count_noun(len(wrong), 'mail')} after an opt-out")


def by_mail(live: LiveSystem) -> Finding:
    """Every message that a person wrote is a request that the operator sees; the operator decides what it asks for."""
    written = InboundMail.kind != "automatic", InboundMail.received_at > live.now - REQUESTS_KEPT
    total = live.count(InboundMail, *written)
    if not total:
        return not_applicable("no message was received yet")
    lost = live.count(InboundMail, *written, ~exists().where(PrivacyRequest.id == InboundMail.request_id))
    return broken_if(
        lost, f"{count_noun(total, 'message')}, each a request", f"{count_noun(lost, 'message')} without a request"
    )


def answered(live: LiveSystem) -> Finding:
    """No request is open after its deadline or was answered after it, and no deadline is later than promised."""
    finding = check_deadlines(live, "request")
    if finding.verdict == "broken":
        return finding
    rows = live.session.execute(select(PrivacyRequest.received_at, PrivacyRequest.due_at)).all()
    wrong = [row for row in rows if row.due_at - row.received_at > ANSWER_WITHIN]
    if unsaid := _refused_without_reason(live):
        return broken(f"{count_noun(unsaid, 'request')} refused, but the relay took no mail with the reason")
    return broken_if(wrong, finding.figure, f"{count_noun(len(wrong), 'request')} with a deadline later than promised")


def _done_without_copy(live: LiveSystem) -> int:
    """Count the requests for a copy that were closed as done two days ago or earlier, although no copy went out since.

    A copy goes out by a mail that the relay accepted, or as a file that an operator exported.
    """
    theirs = Mail.customer_id == PrivacyRequest.customer_id, Mail.sent_at >= PrivacyRequest.received_at
    mailed = exists().where(*theirs, Mail.kind.in_(("data_export_ready", "inbound_reply")), Mail.state == "sent")
    by_operator = ReadAudit.action == "customers export", ReadAudit.subject == PrivacyRequest.customer_id
    exported = exists().where(*by_operator, ReadAudit.at >= PrivacyRequest.received_at)
    done = PrivacyRequest.kind == "access", PrivacyRequest.state == "done", PrivacyRequest.customer_id.is_not(None)
    lately = (
        PrivacyRequest.done_at < live.now - timedelta(days=2),
        PrivacyRequest.done_at > live.now - timedelta(days=365),
    )
    readable = exists().where(Customer.id == PrivacyRequest.customer_id, Customer.erased_at.is_(None))
    return live.count(PrivacyRequest, *done, *lately, readable, ~mailed, ~exported)


def _refused_without_reason(live: LiveSystem) -> int:
    """Count the refused requests of customers whose reason was not mailed within two days (GDPR article 12(4))."""
    told = exists().where(
        Mail.idempotency_key == literal("request_refused:") + PrivacyRequest.id, Mail.sent_at.is_not(None)
    )
    refused = PrivacyRequest.state == "refused", PrivacyRequest.customer_id.is_not(None)
    lately = (
        PrivacyRequest.done_at < live.now - timedelta(days=2),
        PrivacyRequest.done_at > live.now - timedelta(days=365),
    )
    readable = exists().where(Customer.id == PrivacyRequest.customer_id, Customer.erased_at.is_(None))
    return live.count(PrivacyRequest, *refused, *lately, readable, ~told)


def _customer_addresses(live: LiveSystem) -> list[tuple[str, datetime, str]]:
    """Return id, time of entry and address for every customer who entered an e-mail address."""
    entries = (
        (id, lww_map.updated_at(known, "email"), lww_map.value(known, "email")) for id, known in live.customer_data()
    )
    return [(id, entered_at, address) for id, entered_at, address in entries if entered_at and address]


def _misdirected_mails(live: LiveSystem, corrected: tuple[str, datetime, str]) -> int:
    """Count mails that were sent to this customer after the correction, but to another address."""
    id, entered_at, address = corrected
    theirs = or_(Mail.customer_id == id, Mail.subscription_id.in_(_subscriptions_of(id)))
    mails = select(Mail).where(theirs, Mail.recipient.is_not(None), Mail.claimed_at > entered_at)
    rows = live.session.execute(mails.where(Mail.kind.not_in(TO_OTHER_ADDRESSES))).scalars().all()
    decrypted = live.decrypt("mail.recipient", [(row.key_id, row.recipient) for row in rows if row.recipient])
    return sum(plain.decode().lower() != address.lower() for _, plain in decrypted)


def _subscriptions_of(id: str) -> Select[str]:
    return select(Subscription.id).where(Subscription.customer_id == id)


def _left_after(live: LiveSystem, row: Erasure) -> list[str]:
    """Return what is left of the customer, and which keys on the erasure's own list are left."""
    older = EncryptionKey.created_at <= row.at
    keys = select(EncryptionKey.key_id).where(
        EncryptionKey.key_id.in_(row.key_ids), EncryptionKey.wrapped_key.is_not(None), older
    )
    alive = set(live.session.execute(keys).scalars())
    # The confirmation of the erasure has its own key until it is sent.
    confirming = {id for id in alive if id.endswith(row.id)} if row.at > live.now - CONFIRMED_WITHIN else set()
    listed = [f"key {id}" for id in sorted(alive - confirming)]
    return listed + [each for each in remains(live.session.connection(), row, Base.metadata) if each not in listed]


def _closed_without_erasure(live: LiveSystem) -> int:
    """Count the requests for a deletion that were closed as done, although the customer still has data."""
    done = PrivacyRequest.kind.in_(("erase", "child")), PrivacyRequest.state == "done"
    has_data = exists().where(Customer.id == PrivacyRequest.customer_id, Customer.personal_data.is_not(None))
    returned = exists().where(
        Erasure.customer_id == PrivacyRequest.customer_id, Erasure.at >= PrivacyRequest.received_at
    )
    return live.count(PrivacyRequest, *done, has_data, ~returned)


def _had_opted_out(live: LiveSystem, mail: Mail) -> bool:
    kind = "marketing" if mail.kind in NEWS else MAILS[mail.kind].mail_class
    theirs = select(Subscription.customer_id).where(Subscription.id == mail.subscription_id).scalar_subquery()
    customer = mail.customer_id or theirs
    before = Consent.customer_id == customer, Consent.kind == kind, Consent.at <= mail.claimed_at
    newest = select(Consent.given).where(*before).order_by(Consent.at.desc(), Consent.id.desc()).limit(1)
    return live.session.execute(newest).scalar_one_or_none() is False
