"""The erasure process: schedule or cancel it, run it step by step, and destroy the key of the confirmation.

    waiting     a mail with a link to cancel the erasure is sent
    running     the subscriptions are cancelled at PayPal and the product is notified; then one transaction destroys the
                keys, deletes or reduces the rows and writes the receipt (see `shredding`)
    done        the confirmation, encrypted with its own key, has been sent and that key is destroyed

Later events still update the billing state, but tombstones prevent personal data from being stored again. The erasure is
complete when the master key has been replaced, see `crypto.rotation`.
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
from pipeline.crypto.key_ids import CONFIRMATION
from pipeline.crypto.keyring import Keyring
from pipeline.crypto.master_key import MasterKey
from pipeline.customers import accounts, links, rate_limit
from pipeline.customers.product_hook import ProductHook, ProductUnavailableError
from pipeline.db.engine import Database
from pipeline.db.models import Customer, Erasure, Link, Mail, PrivacyRequest, Subscription
from pipeline.error_texts import describe
from pipeline.errors import OperatorError
from pipeline.outbox import store as outbox
from pipeline.privacy import requests
from pipeline.privacy.erasure.shredding import ErasureReason, ErasureSubject, erase_rows, strip_rows

log = structlog.get_logger(__name__)

WAIT = timedelta(hours=72)  # default waiting period, in which the customer can cancel
KINDS = ("erase", "child")  # kinds of requests that lead to an erasure
LIVE = frozenset({"APPROVAL_PENDING", "APPROVED", "ACTIVE", "SUSPENDED"})  # PayPal may still collect payments
ALERT_AFTER = timedelta(hours=24)  # of failed attempts, before the operator is alerted
GIVE_UP_MAIL = timedelta(days=7)  # an unsent confirmation is dropped then, so its address is not kept
REASON = "The customer asked for the deletion of their data."  # sent to PayPal


class ErasureTooLateError(OperatorError):
    """The waiting period is over, or there is no erasure to cancel."""


class SubscriptionCanceller(Protocol):
    """Cancels subscriptions at PayPal. Raises an exception on failure; an ended subscription is no failure."""

    def cancel_subscription(self, id: str, reason: str) -> None: ...


@dataclass(frozen=True, slots=True)
class ErasureDependencies:
    """PayPal and the product, which an erasure calls, and the country whose law applies.

    `paypal` is None without API credentials.
    """

    paypal: SubscriptionCanceller | None = None
    product: ProductHook = field(default_factory=ProductHook)
    country: str = ""


class ErasureBlockedError(Exception):
    """The erasure cannot continue now. `at_once`: it needs the operator, who is alerted immediately."""

    def __init__(self, reason: str, *, at_once: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.at_once = reason, at_once


# -- schedule and cancel


def within_limit(
    session: Session, keyring: Keyring, action: Literal["erase", "keep"], customer_id: str, now: datetime
) -> bool:
    """Count a request of this customer, and return whether it is within the hourly limit (UTC)."""
    return rate_limit.allow(session, keyring, action, customer_id, now=now)


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
    """Start the waiting period and queue the mail about it. An erasure already in progress is returned unchanged.

    `page` is the URL to which the secret of the cancel link is appended; if empty, the mail contains no link.
    Raises CustomerNotFoundError.
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
    """Cancel an erasure in its waiting period. Raises ErasureTooLateError if the period is over."""
    row = session.get(PrivacyRequest, request_id, with_for_update=True)
    if row is None or row.kind not in KINDS or row.state != "waiting":
        raise ErasureTooLateError("the waiting period of this deletion is over, or the deletion was cancelled already")
    row.state, row.done_at, row.reason = "cancelled", now, "cancelled in the waiting period"
    customer = session.get(Customer, row.customer_id)
    if customer:
        customer.erase_at = None
    session.execute(delete(Link).where(Link.request_id == row.id))
    return row


# -- run


def run_due_erasures(database: Database, master_key: MasterKey, clock: Clock, outside: ErasureDependencies) -> int:
    """Run the next step of every erasure whose waiting period is over. Return the number of steps done."""
    with database.transaction() as session:
        ids = _start_due(session, clock.now())
    return sum(_advance(database, master_key, clock, outside, id) for id in ids)


def erase_now(
    database: Database,
    master_key: MasterKey,
    clock: Clock,
    outside: ErasureDependencies,
    customer_id: str,
    source: requests.Source,
) -> PrivacyRequest:
    """Erase a customer without a waiting period and return the request, whose state shows the progress.

    Raises CustomerNotFoundError.
    """
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
    """Erase a customer or subscription now, without mail; for the retention run.

    Raises ErasureBlockedError and DatabaseUnavailableError.
    """
    cancelled, product = _call_outside(database, master_key, clock, outside, id)
    with database.transaction() as session:
        keyring = Keyring(master_key, session, clock.now())
        person, reason = ErasureSubject.of(session, id), ErasureReason(basis, cancelled, product)
        erase_rows(
            session, keyring, person, reason, clock.now(),
            id=secrets.token_hex(13), country=outside.country,
        )  # fmt: skip
    log.info("customer_erased", basis=basis)


def _start_due(session: Session, now: datetime) -> list[str]:
    """Set erasures whose waiting period is over to `running`, and return the ids of all running ones."""
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
    """Run the next step of one erasure. Return 1 if it was done, 0 if it has to wait."""
    with database.reading() as session:
        row, erasure = session.get_one(PrivacyRequest, request_id), session.get(Erasure, request_id)
        customer_id = row.customer_id or ""
    if erasure is not None:
        return _finish(database, master_key, clock, request_id)
    try:
        cancelled, product = _call_outside(database, master_key, clock, outside, customer_id)
    except ErasureBlockedError as blocked:
        _record_block(database, master_key, clock, request_id, blocked)
        return 0
    with database.transaction() as session:
        reason = ErasureReason(f"request {request_id}", cancelled, product)
        _erase(
            session,
            Keyring(master_key, session, clock.now()),
            session.get_one(PrivacyRequest, request_id),
            reason,
            outside,
        )
    log.info("customer_erased", request=request_id)
    return 1


def _erase(
    session: Session, keyring: Keyring, row: PrivacyRequest, reason: ErasureReason, outside: ErasureDependencies
) -> None:
    now, customer_id = keyring.now, row.customer_id or ""
    known = accounts.personal_data(session, keyring, customer_id)
    erasure = erase_rows(
        session, keyring, ErasureSubject.of(session, customer_id), reason, now, id=row.id, country=outside.country
    )
    row.reason = None
    if known.get("email"):
        kept = erasure.receipt["rows"]["payment"]
        facts = {"request": row.id, "erased_at": format_time(now), "kept_until": kept["until"], "law": kept["basis"]}
        key_id = confirmation_label(row.id)
        # Listed in the erasure, so that a restore of an older backup destroys this key too.
        erasure.key_ids = [*erasure.key_ids, key_id]
        mail = outbox.NewMail("account_deleted", confirmation_key(row.id), None, facts, to=known["email"], label=key_id)
        outbox.enqueue(session, keyring, [mail], now)


def confirmation_key(request_id: str) -> str:
    """Return the idempotency key of the mail that confirms an erasure."""
    return f"account_deleted:{request_id}"


def confirmation_label(request_id: str) -> str:
    """Return the key id of the confirmation. Its key is destroyed when the mail has been sent."""
    return f"{CONFIRMATION}{request_id}"


def _finish(database: Database, master_key: MasterKey, clock: Clock, request_id: str) -> int:
    """Destroy the confirmation's key once it is sent, clear rows written during the erasure, and close the request."""
    with database.transaction() as session:
        now = clock.now()
        keyring, erasure = Keyring(master_key, session, now), session.get_one(Erasure, request_id)
        key_id = confirmation_label(request_id)
        if key_id in erasure.key_ids and _is_pending(session, key_id, now):
            return 0
        if keyring.destroy([key_id]):  # wrapped by the current master key, which must therefore be replaced
            erasure.master_key_id, erasure.completed_at = keyring.master_id, None
        sent = session.execute(select(Mail).where(Mail.key_id == key_id)).scalar_one_or_none()
        if sent:
            _clear_mail(sent)
        customer = session.get(Customer, erasure.customer_id)
        if customer and customer.erased_at:  # otherwise the customer has subscribed again
            strip_rows(session, ErasureSubject.erased(session, erasure.customer_id, erasure.key_ids), erasure.at)
        request = session.get_one(PrivacyRequest, request_id)
        for row in _answered_requests(session, request):
            requests.close_request(session, row.id, "done", now, "erased")
    return 1


def _answered_requests(session: Session, request: PrivacyRequest) -> list[PrivacyRequest]:
    """Return the request and the customer's other open deletion requests that this erasure answers."""
    same = (
        PrivacyRequest.customer_id == request.customer_id,
        PrivacyRequest.kind.in_(KINDS),
        PrivacyRequest.received_at <= request.waiting_ends_at,
    )
    return list(session.execute(select(PrivacyRequest).where(*same, PrivacyRequest.done_at.is_(None))).scalars())


def _is_pending(session: Session, key_id: str, now: datetime) -> bool:
    mail = session.execute(select(Mail).where(Mail.key_id == key_id)).scalar_one_or_none()
    return mail is not None and mail.state in ("queued", "sending", "doubt") and now < mail.created_at + GIVE_UP_MAIL


def _clear_mail(mail: Mail) -> None:
    if mail.state in ("queued", "sending", "doubt"):
        mail.state, mail.due_at = "withheld", None
    mail.facts = mail.recipient = mail.frozen = mail.relay_reply = None
    mail.reason = None if mail.state == "sent" else "the confirmation could not be sent in time; its address is erased"


# -- PayPal and the product


def _call_outside(
    database: Database, master_key: MasterKey, clock: Clock, outside: ErasureDependencies, id: str
) -> tuple[list[str], str]:
    """Cancel the subscriptions at PayPal and notify the product. Return the cancelled ids and the product's result.

    Runs outside any transaction and may be repeated. Raises ErasureBlockedError.
    """
    with database.transaction() as session:
        person = ErasureSubject.of(session, id)
        live = _collectable(session, person.subscriptions)
        people = accounts.product_customers(session, Keyring(master_key, session, clock.now()), id)
    for subscription in live:
        _cancel_at_paypal(outside, subscription)
    return live, _notify_product(outside, people)


def _collectable(session: Session, subscriptions: Sequence[str]) -> list[str]:
    rows = select(Subscription.id).where(Subscription.id.in_(subscriptions), Subscription.status.in_(LIVE))
    return list(session.execute(rows.order_by(Subscription.id)).scalars())


def _cancel_at_paypal(outside: ErasureDependencies, subscription: str) -> None:
    if outside.paypal is None:
        raise ErasureBlockedError(
            f"cannot cancel {subscription} at PayPal without API credentials. Set SMT_PAYPAL_CLIENT_ID and …_SECRET, or "
            "cancel it at PayPal; the erasure continues when PayPal reports the cancellation.",
            at_once=True,
        )
    try:
        outside.paypal.cancel_subscription(subscription, REASON)
    except Exception as error:
        raise ErasureBlockedError(f"PayPal has not cancelled {subscription} yet: {describe(error)}") from error


def _notify_product(outside: ErasureDependencies, people: Sequence[dict[str, str]]) -> str:
    if not outside.product.is_configured:
        return "not configured"
    try:
        for person in people:
            outside.product.call("erase", person)
    except ProductUnavailableError as error:
        raise ErasureBlockedError(f"the product has not erased its data yet: {error}") from error
    return "notified"


def _record_block(
    database: Database, master_key: MasterKey, clock: Clock, request_id: str, blocked: ErasureBlockedError
) -> None:
    """Store why the erasure is blocked, and alert the operator if that takes too long."""
    log.warning("erasure_blocked", request=request_id, reason=blocked.reason)
    with database.transaction() as session:
        now = clock.now()
        row = session.get_one(PrivacyRequest, request_id)
        row.reason = blocked.reason
        if blocked.at_once or (row.waiting_ends_at and row.waiting_ends_at + ALERT_AFTER <= now):
            facts = {"request": row.id, "reason": blocked.reason, "due_at": format_time(row.due_at)}
            mail = outbox.NewMail("erasure_waits", f"erasure_waits:{row.id}", None, facts)
            outbox.enqueue(session, Keyring(master_key, session, now), [mail], now)
