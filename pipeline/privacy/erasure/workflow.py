"""A person is erased: asked for, waited for, carried out, confirmed, proved.

    schedule    a waiting period begins, with a mail that holds a link to cancel it
    carry_out   the subscriptions are cancelled at PayPal and the product is told; then, in one transaction, keys are
                destroyed, rows deleted or reduced, and the receipt is written (see `shred`)
    finish      the confirmation has a short-lived key of its own, which is destroyed once it is sent

Later events move the books and bring nobody back: the tombstone of a label lets nothing be sealed again. The erasure is
complete when the master key has been replaced, see `rotation`.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal, Protocol

import structlog
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from pipeline.clock import Clock, format_time
from pipeline.crypto.keyring import Keyring
from pipeline.crypto.master_key import MasterKey
from pipeline.customers import accounts, links, rate_limit
from pipeline.customers.product_hook import ProductHook, ProductUnavailableError
from pipeline.db.engine import Database
from pipeline.db.models import Customer, Erasure, Link, Mail, PrivacyRequest, Subscription
from pipeline.errors import OperatorError
from pipeline.outbox import store as outbox
from pipeline.privacy import requests
from pipeline.privacy.erasure.shredding import ErasureReason, ErasureSubject, erase_rows, strip_rows

log = structlog.get_logger(__name__)

WAIT = timedelta(hours=72)  # in which the person may think again, or say that it was not them
KINDS = ("erase", "child")  # requests that end in an erasure once they have an `act_at`
LIVE = frozenset({"APPROVAL_PENDING", "APPROVED", "ACTIVE", "SUSPENDED"})  # PayPal could still collect for these
TELL_AFTER = timedelta(hours=24)  # of trying, before the operator is bothered
GIVE_UP_MAIL = timedelta(days=7)  # a confirmation that cannot be sent until then is not; the address is not kept for it
REASON = "The customer asked for the deletion of their data."


class ErasureTooLateError(OperatorError):
    """The waiting period is over, or there is no such erasure to cancel."""


class SubscriptionCanceller(Protocol):
    """Ends subscriptions at PayPal. Raises Exception where PayPal did not; one that has ended already is no failure."""

    def cancel_subscription(self, id: str, reason: str) -> None: ...


@dataclass(frozen=True, slots=True)
class ErasureDependencies:
    """Whom an erasure tells, and the country whose law says what is kept. No `paypal` without credentials."""

    paypal: SubscriptionCanceller | None = None
    product: ProductHook = field(default_factory=ProductHook)
    country: str = ""


class ErasureBlockedError(Exception):
    """The erasure cannot go on now. `at_once`: only a person can help, so the operator is told at once."""

    def __init__(self, reason: str, *, at_once: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.at_once = reason, at_once


# -- asked for


def within_limit(
    session: Session, keyring: Keyring, what: Literal["erase", "keep"], customer_id: str, now: datetime
) -> bool:
    """Count that this customer asks for it, and say whether they may once more in this hour (UTC)."""
    return rate_limit.allow(session, keyring, what, customer_id, now=now)


def schedule_erasure(
    session: Session,
    keyring: Keyring,
    customer_id: str,
    now: datetime,
    source: requests.Source,
    *,
    page: str = "",
    wait: timedelta = WAIT,
) -> PrivacyRequest:
    """Begin the waiting period, and owe the mail that says so. One that has begun goes on as it was.

    `page` is the address that the secret of the cancel link is put behind; without it the mail holds no link.
    Raises NoSuchCustomer.
    """
    customer = accounts.require_customer(session, customer_id)
    row = requests.open_request(session, keyring, "erase", customer_id, source, now, act_at=now + wait)
    if row.state == "running" or customer.erase_at is not None:
        return row
    row.state, row.waiting_ends_at = "waiting", row.waiting_ends_at or now + wait
    customer.erase_at = row.waiting_ends_at
    minutes = int(wait / timedelta(minutes=1))
    secret = links.issue(session, keyring, customer_id, "cancel_erase", now, request_id=row.id, minutes=minutes)
    facts = {
        "request": row.id,
        "erase_at": format_time(row.waiting_ends_at),
        "cancel": page and page + secret,
    }
    session.flush()
    key = f"account_deletion_scheduled:{row.id}"
    mail = outbox.NewMail("account_deletion_scheduled", key, None, facts, customer_id=customer_id)
    outbox.enqueue(session, keyring, [mail], now)
    return row


def cancel_erasure(session: Session, request_id: str, now: datetime) -> PrivacyRequest:
    """Keep the person after all. Raises TooLate once the waiting period is over."""
    row = session.get(PrivacyRequest, request_id, with_for_update=True)
    if row is None or row.kind not in KINDS or row.state != "waiting":
        raise ErasureTooLateError("the waiting period of this deletion is over, or it was cancelled already")
    row.state, row.done_at, row.reason = "cancelled", now, "cancelled in the waiting period"
    customer = session.get(Customer, row.customer_id)
    if customer:
        customer.erase_at = None
    session.execute(delete(Link).where(Link.request_id == row.id))
    return row


# -- carried out


def run_due_erasures(database: Database, master_key: MasterKey, clock: Clock, outside: ErasureDependencies) -> int:
    """Carry on with every erasure whose waiting period is over. How many went a step further. For the scheduler."""
    with database.transaction() as session:
        ids = _begin(session, clock.now())
    return sum(_advance(database, master_key, clock, outside, id) for id in ids)


def erase_now(
    database: Database,
    master_key: MasterKey,
    clock: Clock,
    outside: ErasureDependencies,
    customer_id: str,
    source: requests.Source,
) -> PrivacyRequest:
    """Erase without a waiting period, as an operator may. The request tells how far it got. Raises NoSuchCustomer."""
    with database.transaction() as session:
        accounts.require_customer(session, customer_id)
        moment = clock.now()
        keyring = Keyring(master_key, session, moment)
        row = requests.open_request(session, keyring, "erase", customer_id, source, moment, act_at=moment)
        if row.state in ("received", "waiting"):
            row.state, row.waiting_ends_at = "running", moment
    _advance(database, master_key, clock, outside, row.id)
    with database.reading() as session:
        return session.get_one(PrivacyRequest, row.id)


def carry_out(
    database: Database, master_key: MasterKey, clock: Clock, outside: ErasureDependencies, id: str, *, basis: str
) -> None:
    """Erase the person of this id now and say so to nobody. Raises Blocked, StoreDown. For the retention sweep."""
    cancelled, told = _tell_outside(database, master_key, clock, outside, id)
    with database.transaction() as session:
        keyring = Keyring(master_key, session, clock.now())
        person, grounds = ErasureSubject.of(session, id), ErasureReason(basis, cancelled, told)
        erase_rows(
            session, keyring, person, grounds, clock.now(),
            id=secrets.token_hex(13), country=outside.country,
        )  # fmt: skip
    log.info("erased", basis=basis)


def _begin(session: Session, now: datetime) -> list[str]:
    """The erasures that are under way; those whose waiting period has ended are from now on."""
    waiting = select(PrivacyRequest).where(
        PrivacyRequest.kind.in_(KINDS), PrivacyRequest.state == "waiting", PrivacyRequest.waiting_ends_at <= now
    )
    for row in session.execute(waiting.with_for_update(skip_locked=True)).scalars():
        row.state = "running"
    session.flush()
    running = (
        select(PrivacyRequest.id)
        .where(PrivacyRequest.kind.in_(KINDS), PrivacyRequest.state == "running")
        .order_by(PrivacyRequest.waiting_ends_at)
    )
    return list(session.execute(running).scalars())


def _advance(
    database: Database, master_key: MasterKey, clock: Clock, outside: ErasureDependencies, request_id: str
) -> int:
    """One step of one erasure; 1 if it was made."""
    with database.reading() as session:
        row, erasure = session.get_one(PrivacyRequest, request_id), session.get(Erasure, request_id)
        customer_id = row.customer_id or ""
    if erasure is not None:
        return _finish(database, master_key, clock, request_id)
    try:
        cancelled, told = _tell_outside(database, master_key, clock, outside, customer_id)
    except ErasureBlockedError as blocked:
        _wait_for_help(database, master_key, clock, request_id, blocked)
        return 0
    with database.transaction() as session:
        grounds = ErasureReason(f"request {request_id}", cancelled, told)
        _erase(
            session,
            Keyring(master_key, session, clock.now()),
            session.get_one(PrivacyRequest, request_id),
            grounds,
            outside,
        )
    log.info("erased", request=request_id)
    return 1


def _erase(
    session: Session, keyring: Keyring, row: PrivacyRequest, grounds: ErasureReason, outside: ErasureDependencies
) -> None:
    now, customer_id = keyring.now, row.customer_id or ""
    known = accounts.personal_data(session, keyring, customer_id)
    erasure = erase_rows(
        session, keyring, ErasureSubject.of(session, customer_id), grounds, now, id=row.id, country=outside.country
    )
    row.reason = None
    if known.get("email"):
        kept = erasure.receipt["rows"]["payment"]
        facts = {"request": row.id, "erased_at": format_time(now), "kept_until": kept["until"], "law": kept["basis"]}
        label = confirmation_label(row.id)
        # The label belongs to the erasure, so that a restore of an older backup destroys its key too.
        erasure.key_ids = [*erasure.key_ids, label]
        mail = outbox.NewMail("account_deleted", confirmation_key(row.id), None, facts, to=known["email"], label=label)
        outbox.enqueue(session, keyring, [mail], now)


def confirmation_key(request_id: str) -> str:
    """The idempotency key of the mail that confirms an erasure."""
    return f"account_deleted:{request_id}"


def confirmation_label(request_id: str) -> str:
    """Whose key seals the confirmation, which outlives the person's own keys by as long as it takes to send it."""
    return f"erased:{request_id}"


def _finish(database: Database, master_key: MasterKey, clock: Clock, request_id: str) -> int:
    """Once the confirmation is sent its own key goes too, and whatever was being written while the keys went."""
    with database.transaction() as session:
        now = clock.now()
        keyring, erasure = Keyring(master_key, session, now), session.get_one(Erasure, request_id)
        label = confirmation_label(request_id)
        if label in erasure.key_ids and _is_on_its_way(session, label, now):
            return 0
        if keyring.destroy([label]):  # wrapped by the present master key, which has to go now
            erasure.master_key_id, erasure.completed_at = keyring.master_id, None
        sent = session.execute(select(Mail).where(Mail.key_id == label)).scalar_one_or_none()
        if sent:
            _forget(sent)
        customer = session.get(Customer, erasure.customer_id)
        if customer and customer.erased_at:  # else they have come back meanwhile
            strip_rows(session, ErasureSubject.erased(session, erasure.customer_id, erasure.key_ids), erasure.at)
        asked = session.get_one(PrivacyRequest, request_id)
        for row in _that_it_answers(session, asked):
            requests.close_request(session, row.id, "done", now, "erased")
    return 1


def _that_it_answers(session: Session, asked: PrivacyRequest) -> list[PrivacyRequest]:
    """The request itself, and a report of a child's data, or a wish by mail, that this erasure is the answer to."""
    same = (
        PrivacyRequest.customer_id == asked.customer_id,
        PrivacyRequest.kind.in_(KINDS),
        PrivacyRequest.received_at <= asked.waiting_ends_at,
    )
    return list(session.execute(select(PrivacyRequest).where(*same, PrivacyRequest.done_at.is_(None))).scalars())


def _is_on_its_way(session: Session, label: str, now: datetime) -> bool:
    mail = session.execute(select(Mail).where(Mail.key_id == label)).scalar_one_or_none()
    return mail is not None and mail.state in ("queued", "sending", "doubt") and now < mail.created_at + GIVE_UP_MAIL


def _forget(mail: Mail) -> None:
    if mail.state in ("queued", "sending", "doubt"):
        mail.state, mail.due_at = "withheld", None
    mail.facts = mail.recipient = mail.frozen = mail.relay_reply = None
    mail.reason = None if mail.state == "sent" else "could not be sent in time; the address is erased"


# -- outside


def _tell_outside(
    database: Database, master_key: MasterKey, clock: Clock, outside: ErasureDependencies, id: str
) -> tuple[list[str], str]:
    """End what PayPal could still collect for, and tell the product: outside any transaction, again until it is done.

    Raises Blocked. What is done twice does no harm: an ended subscription stays ended, an erased customer erased.
    """
    with database.transaction() as session:
        person = ErasureSubject.of(session, id)
        live = _live(session, person.subscriptions)
        known = accounts.personal_data(session, Keyring(master_key, session, clock.now()), id)
    for subscription in live:
        _cancel_at_paypal(outside, subscription)
    return live, _tell_product(outside, known)


def _live(session: Session, subscriptions: Sequence[str]) -> list[str]:
    rows = select(Subscription.id).where(Subscription.id.in_(subscriptions), Subscription.status.in_(LIVE))
    return list(session.execute(rows.order_by(Subscription.id)).scalars())


def _cancel_at_paypal(outside: ErasureDependencies, subscription: str) -> None:
    if outside.paypal is None:
        raise ErasureBlockedError(
            f"cancel {subscription} at PayPal: no API credentials are set (SMT_PAYPAL_CLIENT_ID and …_SECRET), so it cannot "
            "be done from here. The erasure goes on when PayPal tells that it is cancelled.",
            at_once=True,
        )
    try:
        outside.paypal.cancel_subscription(subscription, REASON)
    except Exception as error:
        raise ErasureBlockedError(f"PayPal did not cancel {subscription} yet: {type(error).__name__}") from error


def _tell_product(outside: ErasureDependencies, known: dict[str, str]) -> str:
    if not outside.product.is_configured:
        return "there is none to tell"
    said = {"customer": known.get("custom", ""), "email": known.get("email", "")}
    try:
        outside.product.call("erase", said)
    except ProductUnavailableError as error:
        raise ErasureBlockedError(f"the product did not erase its part yet: {error}") from error
    return "told"


def _wait_for_help(
    database: Database, master_key: MasterKey, clock: Clock, request_id: str, blocked: ErasureBlockedError
) -> None:
    """Note why it does not go on, and tell the operator if it takes too long."""
    log.warning("erasure_waits", request=request_id, reason=blocked.reason)
    with database.transaction() as session:
        now = clock.now()
        row = session.get_one(PrivacyRequest, request_id)
        row.reason = blocked.reason
        if blocked.at_once or (row.waiting_ends_at and row.waiting_ends_at + TELL_AFTER <= now):
            facts = {"request": row.id, "reason": blocked.reason, "due_at": format_time(row.due_at)}
            mail = outbox.NewMail("erasure_waits", f"erasure_waits:{row.id}", None, facts)
            outbox.enqueue(session, Keyring(master_key, session, now), [mail], now)
