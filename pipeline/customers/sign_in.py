"""Signing in without a password: a link to the address we know, then a session of half an hour.

Who asks is told the same whether we know the address or not, and before anything was looked up: `SignInLinkSender` looks
afterwards, in a thread of its own. A session is a link too, of which the browser keeps the secret and we the hash, so
signing out ends it for good, wherever its secret may have got to.
"""

import hmac
from collections.abc import Mapping
from datetime import datetime, timedelta

import structlog
from sqlalchemy.orm import Session

from pipeline.batch_thread import BatchThread
from pipeline.clock import Clock, format_time
from pipeline.crypto.keyring import Keyring
from pipeline.crypto.master_key import MasterKey, MasterKeyError
from pipeline.customers import accounts, links, rate_limit
from pipeline.db.engine import Database, DatabaseUnavailableError
from pipeline.db.models import Customer, Link
from pipeline.outbox import store as outbox

ACCOUNTS = 5  # links sent at once, where one address has several accounts; the newest
WAITING = 1000  # questions in memory at most
MINUTES = links.MINUTES

log = structlog.get_logger(__name__)


class SignInLinkSender(BatchThread[str]):
    """The thread that sends the links that were asked for."""

    def __init__(self, database: Database, master_key: MasterKey, clock: Clock, pages: str) -> None:
        super().__init__("doorman", most=1, room=WAITING)
        self._database, self._master, self._clock, self._pages = database, master_key, clock, pages

    def send_later(self, email: str) -> bool:
        """Have links sent to this address, if it is known. Returns at once, and tells nobody whether it is.

        False if so many wait that this one is not looked at.
        """
        if self._submit(email):
            return True
        log.warning("links_dropped", waiting=WAITING)
        return False

    def _do(self, batch: list[str]) -> None:
        [email] = batch
        try:
            with self._database.transaction() as session:
                now = self._clock.now()
                send_links(session, Keyring(self._master, session, now), email, now, self._pages)
        except (DatabaseUnavailableError, MasterKeyError) as error:
            log.warning("link_not_sent", reason=str(error))
        except Exception as error:  # noqa: BLE001 - one address that cannot be served does not stop the next
            log.error("link_not_sent", reason=f"a fault of ours: {type(error).__name__}")


def may_ask(session: Session, keyring: Keyring, line: str, now: datetime) -> bool:
    """Whether this line may ask for one more link in this hour."""
    return rate_limit.allow(session, keyring, "ask_for_link", rate_limit.client_network(line), now=now)


def send_links(session: Session, keyring: Keyring, email: str, now: datetime, pages: str) -> None:
    """Owe a mail with a link to each account with this address, a few times an hour at most."""
    if not rate_limit.allow(session, keyring, "send_link", email.strip().lower(), now=now):
        return
    for customer_id in accounts.find_by_email(session, keyring, email)[:ACCOUNTS]:
        secret = links.issue(session, keyring, customer_id, "account", now, minutes=MINUTES)
        facts = {"confirms": False, "page": links.url(pages, "account", secret), "expires_at": _end(now)}
        _owe(session, keyring, customer_id, secret, facts, now)


def send_address_confirmation(
    session: Session, keyring: Keyring, customer_id: str, email: str, now: datetime, pages: str
) -> bool:
    """Owe a mail to a new address with a link that proves that it is theirs. Nothing is changed before that.

    False, and no mail, if too many were asked for in this hour. Counted apart from links to sign in, so that who tries
    an address of somebody else's does not learn whether its owner has signed in.
    """
    if not rate_limit.allow(session, keyring, "send_address_confirmation", email.strip().lower(), now=now):
        return False
    secret = links.issue(session, keyring, customer_id, "confirm_email", now, details={"email": email})
    page = links.url(pages, "confirm_email", secret)
    facts = {"confirms": True, "page": page, "expires_at": _end(now)}
    _owe(session, keyring, customer_id, secret, facts, now, to=email)
    return True


def start_session(session: Session, keyring: Keyring, secret: str, now: datetime) -> str | None:
    """Use up a link that was sent, for the secret of a session; None if it cannot be used any more."""
    link = links.redeem(session, secret, now, "account")
    return links.issue(session, keyring, link.customer_id, "session", now, minutes=MINUTES) if link else None


def session_customer(session: Session, secret: str, now: datetime) -> str | None:
    """The customer whose session this is; None if it has ended, or they are erased."""
    link = links.peek(session, secret, now, "session")
    customer = session.get(Customer, link.customer_id) if link else None
    return customer.id if customer and not customer.erased_at else None


def end_session(session: Session, secret: str, now: datetime) -> Link | None:
    """Sign out."""
    return links.redeem(session, secret, now, "session")


def csrf_token(secret: str, path: str) -> str:
    """What a form of this session carries, so that no other site can post it: bound to the session and the form."""
    return hmac.digest(secret.encode(), path.encode(), "sha256").hex()


def _owe(
    session: Session,
    keyring: Keyring,
    customer_id: str,
    secret: str,
    facts: Mapping[str, object],
    now: datetime,
    to: str | None = None,
) -> None:
    key = f"account_link:{links.digest(secret)}"
    outbox.enqueue(
        session, keyring, [outbox.NewMail("account_link", key, None, facts, customer_id=customer_id, to=to)], now
    )


def _end(now: datetime) -> str:
    return format_time(now + timedelta(minutes=MINUTES))
