"""News goes only to who asked for it twice: at sign-up, and by a link in a mail to the address given there.

Anyone can sign up with another's address, so a tick alone is nobody's consent. The link serves once, and for a week.
"""

from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from pipeline.clock import format_time
from pipeline.crypto.keyring import Keyring
from pipeline.customers import accounts, links, rate_limit
from pipeline.outbox import store as outbox

DAYS = 7  # that the link serves
SOURCE = "link by mail"


def request_confirmation(
    session: Session, keyring: Keyring, customer_id: str, email: str, now: datetime, pages: str
) -> bool:
    """Owe the mail that asks whether they want the news; False if this address was sent several in this hour.

    `pages` is the address that the pages are under: the link leads there.
    """
    if not rate_limit.allow(session, keyring, "confirm_news", email.strip().lower(), now=now):
        return False
    secret = links.issue(session, keyring, customer_id, "confirm_news", now, minutes=DAYS * 24 * 60)
    page, end = links.url(pages, "confirm_news", secret), format_time(now + timedelta(days=DAYS))
    facts = {"page": page, "expires_at": end}
    key = f"news_confirmation:{links.digest(secret)}"
    outbox.enqueue(
        session, keyring, [outbox.NewMail("news_confirmation", key, None, facts, customer_id=customer_id)], now
    )
    return True


def confirm(session: Session, secret: str, now: datetime, text: str) -> bool:
    """Use the link up, and note the consent, which counts from now on. `text` is the version of what was agreed to."""
    link = links.redeem(session, secret, now, "confirm_news")
    if link is None:
        return False
    accounts.require_customer(session, link.customer_id)
    accounts.record_consent(
        session, link.customer_id, "marketing", given=True, source=SOURCE, text_version=text, now=now
    )
    return True
