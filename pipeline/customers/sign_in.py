"""Sign-in without a password: a link to the known e-mail address, then a web session of 30 minutes.

The answer to a sign-in request is immediate and always the same, so it does not reveal whether an address is known:
`SignInLinkSender` looks up the address afterwards. A session is stored as a link: the browser keeps the secret, the
database its hash. Signing out invalidates the secret, even if it was copied.
"""

import hmac
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

MAX_ACCOUNTS = 5  # links sent for one request, if several accounts share the address
WAITING = 1000  # requests held in memory; more are dropped
MINUTES = links.MINUTES  # validity of a sign-in link, and length of a session

log = structlog.get_logger(__name__)


class SignInLinkSender(BatchThread[str]):
    """Background thread that queues the requested sign-in links, so response times do not reveal known addresses."""

    def __init__(self, database: Database, master_key: MasterKey, clock: Clock, pages: str) -> None:
        super().__init__("sign-in-links", most=1, room=WAITING)
        self._database, self._master, self._clock, self._pages = database, master_key, clock, pages

    def send_later(self, email: str) -> bool:
        """Request links for this address. Returns at once and does not reveal whether the address is known.

        Returns False if too many requests wait; then this one is dropped.
        """
        if self._submit(email):
            return True
        log.warning("sign_in_request_dropped", waiting=WAITING)
        return False

    def _process(self, batch: list[str]) -> None:
        [email] = batch
        try:
            with self._database.transaction() as session:
                now = self._clock.now()
                send_links(session, Keyring(self._master, session, now), email, now, self._pages)
        except (DatabaseUnavailableError, MasterKeyError) as error:
            log.warning("sign_in_link_failed", reason=str(error))
        except Exception as error:  # noqa: BLE001 - a failure for one address must not end the thread
            log.error("sign_in_link_failed", reason=f"internal error: {type(error).__name__}")


def may_ask(session: Session, keyring: Keyring, address: str, now: datetime) -> bool:
    """Count a request from this client address, and return whether its network is within the hourly limit."""
    return rate_limit.allow_client(session, keyring, "ask_for_link", address, now=now)


def send_links(session: Session, keyring: Keyring, email: str, now: datetime, pages: str) -> None:
    """Queue a mail with a sign-in link for each account of this address. Does nothing above the hourly limit."""
    if not rate_limit.allow(session, keyring, "send_link", rate_limit.mailbox(email), now=now):
        return
    for customer_id in accounts.find_by_email(session, keyring, email)[:MAX_ACCOUNTS]:
        secret = links.issue(session, keyring, customer_id, "account", now, minutes=MINUTES)
        facts = {"confirms": False, "page": links.url(pages, "account", secret), "expires_at": _expiry(now)}
        key = f"account_link:{links.digest(secret)}"
        outbox.enqueue(
            session, keyring, [outbox.NewMail("account_link", key, None, facts, customer_id=customer_id)], now
        )


def start_session(session: Session, keyring: Keyring, secret: str, now: datetime) -> str | None:
    """Redeem a sign-in link and return the secret of a new session; None if the link is no longer valid."""
    link = links.redeem(session, secret, now, "account")
    return links.issue(session, keyring, link.customer_id, "session", now, minutes=MINUTES) if link else None


def session_customer(session: Session, secret: str, now: datetime) -> str | None:
    """Return the id of the signed-in customer; None if the session has ended or the customer is erased."""
    link = links.peek(session, secret, now, "session")
    customer = session.get(Customer, link.customer_id) if link else None
    return customer.id if customer and not customer.erased_at else None


def end_session(session: Session, secret: str, now: datetime) -> Link | None:
    """Sign out: end this session and return it; None if it has ended already."""
    return links.redeem(session, secret, now, "session")


def csrf_token(secret: str, path: str) -> str:
    """Return the token for a form of this session, bound to session and path, so other sites cannot submit it."""
    return hmac.digest(secret.encode(), path.encode(), "sha256").hex()


def _expiry(now: datetime) -> str:
    return format_time(now + timedelta(minutes=MINUTES))
