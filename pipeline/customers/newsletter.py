"""Newsletter opt-in: a mail asks to confirm it (double opt-in), and its link stores the consent.

Anyone can sign up with another person's address, so a ticked box alone is no consent.
"""

from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from pipeline.clock import format_time
from pipeline.crypto.keyring import Keyring
from pipeline.customers import accounts, links, rate_limit
from pipeline.outbox import store as outbox

DAYS = 7  # validity of the confirmation link
SOURCE = "link by mail"  # stored with the consent


def request_confirmation(
    session: Session, keyring: Keyring, customer_id: str, email: str, now: datetime, pages: str
) -> bool:
    """Queue the mail that asks to confirm the newsletter. Return False if the hourly limit of this address is reached.

    It is sent when an address of the customer counts. `pages` is the base URL of the customer pages.
    """
    if not rate_limit.allow(session, keyring, "confirm_news", rate_limit.mailbox(email), now=now):
        return False
    secret = links.issue(session, keyring, customer_id, "confirm_news", now, minutes=DAYS * 24 * 60)
    facts = {
        "page": links.url(pages, "confirm_news", secret),
        "expires_at": format_time(now + timedelta(days=DAYS)),
    }
    key = f"news_confirmation:{links.digest(secret)}"
    mail = outbox.NewMail("news_confirmation", key, None, facts, has_address=False, customer_id=customer_id)
    outbox.enqueue(session, keyring, [mail], now)
    return True


def confirm(session: Session, secret: str, now: datetime, text: str) -> bool:
    """Redeem the link and store the consent. Return False if the link is no longer valid.

    `text` is the version of the text that was agreed to. Raises CustomerNotFoundError.
    """
    link = links.redeem(session, secret, now, "confirm_news")
    if link is None:
        return False
    accounts.require_customer(session, link.customer_id)
    accounts.record_consent(
        session, link.customer_id, "marketing", given=True, source=SOURCE, text_version=text, now=now
    )
    return True
