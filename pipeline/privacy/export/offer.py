"""Offer a data export: send the customer a link that is valid for a week."""

from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from pipeline.clock import format_time
from pipeline.crypto.keyring import Keyring
from pipeline.customers import accounts, links, rate_limit
from pipeline.db.models import PrivacyRequest
from pipeline.outbox import store as outbox
from pipeline.privacy import requests

DAYS = 7  # validity of the link


def offer_export(
    session: Session, keyring: Keyring, customer_id: str, now: datetime, pages: str
) -> PrivacyRequest | None:
    """Store the request and queue the mail with the link. Return None if the hourly limit is reached.

    The export is built when the link is used, so it is up to date and is never stored. Raises CustomerNotFoundError.
    """
    accounts.require_customer(session, customer_id)
    if not rate_limit.allow(session, keyring, "export", customer_id, now=now):
        return None
    row = requests.open_request(session, keyring, "access", customer_id, "page", now)
    secret = links.issue(session, keyring, customer_id, "export", now, request_id=row.id, minutes=DAYS * 24 * 60)
    facts = {
        "request": row.id,
        "expires_at": format_time(now + timedelta(days=DAYS)),
        "page": links.url(pages, "export", secret),
    }
    key = f"data_export_ready:{links.digest(secret)}"
    outbox.enqueue(
        session, keyring, [outbox.NewMail("data_export_ready", key, None, facts, customer_id=customer_id)], now
    )
    requests.close_request(session, row.id, "done", now)
    return row
