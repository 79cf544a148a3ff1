"""E-mail addresses of customers: which one counts, and how it changes.

An address counts only if its owner confirmed it by a link, or if PayPal reported it for an established subscription. A
confirmed address takes precedence. A change needs a link in a mail to the new address, then one in a mail to the previous
address. Without an answer from the previous address, the change takes effect after WAIT; that address can also reject it.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from pipeline.clock import Clock, format_time
from pipeline.crypto.keyring import Keyring
from pipeline.crypto.master_key import MasterKey
from pipeline.customers import accounts, links, merging, rate_limit
from pipeline.db.bulk import in_list
from pipeline.db.engine import Database
from pipeline.db.models import Customer, Mail, Subscription
from pipeline.db.rows import SubscriptionRow
from pipeline.email_address import fold_address
from pipeline.outbox import store as outbox
from pipeline.outbox.store import NewMail

WAIT = timedelta(hours=72)
SIGN_UP_DAYS = 7  # validity of the link that confirms the address from sign-up

Outcome = Literal["changed", "waiting"]


def may_request_change(session: Session, keyring: Keyring, customer_id: str, email: str, now: datetime) -> bool:
    """Count a request to change the address, and return whether it is within the hourly limits.

    They are separate from the limit of sign-in links, so an attempt with another person's address does not reveal
    whether its owner has signed in.
    """
    return (
        rate_limit.allow(session, keyring, "change_address", customer_id, now=now)
        and rate_limit.allow(session, keyring, "send_address_confirmation", rate_limit.mailbox(email), now=now)
        and rate_limit.allow(session, keyring, "change_any_address", "all of them", now=now)
    )


def request_confirmation(
    session: Session,
    keyring: Keyring,
    customer_id: str,
    email: str,
    now: datetime,
    pages: str,
    *,
    minutes: int = links.MINUTES,
    waits: bool = False,
) -> None:
    """Queue a mail to a new address with a link that confirms it. The address counts only when the link is used.

    `waits`: send it only when the customer's first subscription is established, see `confirm_reported`.
    """
    secret = links.issue(session, keyring, customer_id, "confirm_email", now, details={"email": email}, minutes=minutes)
    facts = {
        "confirms": True,
        "page": links.url(pages, "confirm_email", secret),
        "expires_at": format_time(now + timedelta(minutes=minutes)),
    }
    key = f"account_link:{links.digest(secret)}"
    mail = NewMail("account_link", key, None, facts, customer_id=customer_id, to=email, has_address=not waits)
    outbox.enqueue(session, keyring, [mail], now)


def confirm(session: Session, keyring: Keyring, secret: str, now: datetime, pages: str) -> Outcome | None:
    """Redeem the link to a new address. Return None if it is no longer valid.

    The first confirmed address counts at once. A later change waits for the previous address.
    """
    link = links.redeem(session, secret, now, "confirm_email")
    email = str(links.details(link, keyring).get("email", "")) if link else ""
    if link is None or not email:
        return None
    previous = accounts.personal_data(session, keyring, link.customer_id)
    is_first = not previous.get("email") or previous.get(accounts.ENTERED) == email
    if is_first or fold_address(previous["email"]) == fold_address(email):
        _change(session, keyring, link.customer_id, email, now)
        return "changed"
    _schedule(session, keyring, link.customer_id, email, previous["email"], now, pages)
    return "waiting"


def approve(session: Session, keyring: Keyring, secret: str, now: datetime) -> bool:
    """Redeem the link to the previous address that lets the change take effect now. Return False if it is not valid.

    It is valid only for the address that its mail names.
    """
    link = links.redeem(session, secret, now, "approve_email")
    return link is not None and _apply(
        session, keyring, link.customer_id, now, links.details(link, keyring).get("email")
    )


def reject(session: Session, keyring: Keyring, secret: str, now: datetime) -> bool:
    """Redeem the link to the previous address that rejects the change, and sign the customer out everywhere.

    Return False if the link is not valid.
    """
    link = links.redeem(session, secret, now, "reject_email")
    if link is None or accounts.require_customer(session, link.customer_id).email_change_at is None:
        return False
    sign_out_everywhere(session, keyring, link.customer_id, now)
    return True


def sign_out_everywhere(session: Session, keyring: Keyring, customer_id: str, now: datetime) -> None:
    """End all sessions and links of the customer, and drop a requested address: another person may have requested it."""
    accounts.set_requested_address(session, keyring, customer_id, None, None, now)
    links.end_sessions(session, customer_id, now)


def apply_due_changes(database: Database, master_key: MasterKey, clock: Clock) -> int:
    """Let the requested addresses whose time has come take effect. Return how many."""
    with database.transaction() as session:
        now = clock.now()
        due = select(Customer.id).where(Customer.email_change_at <= now, Customer.erased_at.is_(None))
        ids = list(session.execute(due.order_by(Customer.id)).scalars())
        keyring = Keyring(master_key, session, now)
        return sum(_apply(session, keyring, id, now) for id in ids)


def confirm_reported(session: Session, keyring: Keyring, customer_id: str, reported: str, now: datetime) -> str | None:
    """Let the address from sign-up count if PayPal reports the same one for an established subscription.

    Return the id of the customer, which differs after a merge; None if PayPal reports another address.
    """
    customer = session.get(Customer, customer_id)
    if customer is None or customer.erased_at:
        return None
    entered = accounts.self_reported(keyring, customer).get(accounts.ENTERED, "")
    if fold_address(entered) != fold_address(reported):
        return None
    _confirm_entered(session, keyring, customer_id, now)
    return merging.merge_by_payer(session, keyring, customer_id, reported, now)


def tell_previous(session: Session, keyring: Keyring, rows: Sequence[SubscriptionRow], now: datetime) -> list[NewMail]:
    """Return mails to the addresses that PayPal reported before, if these new subscriptions name others.

    The customers of the subscriptions have confirmed no address.
    """
    previous = _newest_others(session, rows)
    changed = [row for row in rows if previous.get(row.id) and previous[row.id].email_hash != row.email_hash]
    found = [(row, accounts.subscriber_details(keyring, previous[row.id]).get("email", "")) for row in changed]
    return [changed_at_paypal(row.customer_id or "", row.id, old, now) for row, old in found if old]


def _newest_others(session: Session, rows: Sequence[SubscriptionRow]) -> dict[str, Subscription]:
    """Return for each subscription the newest stored one of the same customer that has an address."""
    customers = {row.customer_id for row in rows if row.customer_id}
    if not customers:
        return {}
    stored = select(Subscription).where(
        in_list(Subscription.customer_id, sorted(customers)), Subscription.email_hash.is_not(None)
    )
    newest: dict[str | None, Subscription] = {}
    for other in session.execute(stored.order_by(Subscription.created_at, Subscription.id)).scalars():
        newest[other.customer_id] = other
    return {row.id: newest[row.customer_id] for row in rows if row.customer_id in newest}


def _confirm_entered(session: Session, keyring: Keyring, customer_id: str, now: datetime) -> None:
    """Let the address from sign-up count, and withhold the mail that would ask to confirm it."""
    accounts.confirm_entered_address(session, keyring, customer_id, now)
    asks = Mail.customer_id == customer_id, Mail.kind == "account_link", Mail.state == "queued", Mail.due_at.is_(None)
    withheld = update(Mail).where(*asks).values(state="withheld", reason="PayPal reported the same address")
    session.execute(withheld.execution_options(synchronize_session=False))


def changed_at_paypal(customer_id: str, subscription_id: str, old: str, now: datetime) -> NewMail:
    """Return the mail that tells the previous address that PayPal reported another one."""
    facts = {"changed_at": format_time(now), "is_old": True}
    key = f"email_changed:{subscription_id}:{format_time(now)}:old"
    return NewMail("email_changed", key, None, facts, customer_id=customer_id, to=old)


def _schedule(
    session: Session, keyring: Keyring, customer_id: str, email: str, previous: str, now: datetime, pages: str
) -> None:
    """Store the requested address, and ask the previous one."""
    accounts.set_requested_address(session, keyring, customer_id, email, now + WAIT, now)
    minutes = int(WAIT / timedelta(minutes=1))
    approve, reject = (
        links.url(
            pages,
            purpose,
            links.issue(session, keyring, customer_id, purpose, now, details={"email": email}, minutes=minutes),
        )
        for purpose in ("approve_email", "reject_email")
    )
    facts = {"new_address": email, "changes_at": format_time(now + WAIT), "approve": approve, "reject": reject}
    key = f"email_change_requested:{links.digest(approve)}"
    mail = NewMail("email_change_requested", key, None, facts, customer_id=customer_id, to=previous)
    outbox.enqueue(session, keyring, [mail], now)


def _apply(session: Session, keyring: Keyring, customer_id: str, now: datetime, approved: str | None = None) -> bool:
    """Let the requested address count from now on. Return False if none, or another than the approved one, is requested."""
    row = accounts.require_customer(session, customer_id)
    email = accounts.self_reported(keyring, row).get(accounts.REQUESTED)
    if row.email_change_at is None or not email or approved not in (None, email):
        return False
    _change(session, keyring, customer_id, email, now)
    return True


def _change(session: Session, keyring: Keyring, customer_id: str, email: str, now: datetime) -> None:
    """Let a confirmed address count from now on. Sessions and links that the customer had until now end."""
    accounts.correct_field(session, keyring, customer_id, "email", email, now)
    links.end_sessions(session, customer_id, now)
    merging.merge_by_address(session, keyring, customer_id, email, now)
