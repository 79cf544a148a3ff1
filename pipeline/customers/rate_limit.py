"""Hourly rate limits, stored in the database. They prevent mail flooding and brute-force guessing.

`PER_HOUR` holds all limits; a caller names the limit to apply.
"""

from datetime import datetime, timedelta
from ipaddress import IPv6Address, ip_address
from typing import Literal

from sqlalchemy import update
from sqlalchemy.orm import Session

from pipeline.crypto.keyring import INDEX, Keyring
from pipeline.db.bulk import insert_new
from pipeline.db.models import RateLimitCounter

Limit = Literal[
    "sign_up",
    "ask_for_link",
    "send_link",
    "send_address_confirmation",
    "confirm_news",
    "export",
    "erase",
    "keep",
    "answer_strangers",
    "report_message",
]

HOUR = timedelta(hours=1)
PER_HOUR: dict[Limit, int] = {
    # per network: enough for an office that shares one address, too few for a script
    "sign_up": 20,
    "ask_for_link": 20,
    # per e-mail address: enough for a person whose mail is slow, too few to flood a mailbox
    "send_link": 3,
    "send_address_confirmation": 3,
    "confirm_news": 3,
    # per customer: each export may call the product, and each deletion request sends a mail
    "export": 3,
    "erase": 3,
    # per customer: more than `erase`, so a customer can always cancel a deletion
    "keep": 10,
    # all unknown senders together: more messages an hour are probably sent with forged addresses
    "answer_strangers": 30,
    # mails to the operator about inbound messages: the list of open messages shows those above the limit
    "report_message": 60,
}


def allow(session: Session, keyring: Keyring, limit: Limit, subject: str, *, now: datetime) -> bool:
    """Count an attempt and return whether it is within the limit of this hour (UTC).

    `subject` is what the limit counts by: an e-mail address, a network or an id. Only its keyed hash is stored.
    """
    hour = now.replace(minute=0, second=0, microsecond=0)
    id = keyring.digest(INDEX, f"rate_limit:{limit}:{hour:%Y-%m-%dT%H}:{subject}").hex()
    insert_new(
        session, RateLimitCounter, [{"id": id, "count": 0, "expires_at": hour + HOUR}], returning=RateLimitCounter.id
    )
    counted = (
        update(RateLimitCounter)
        .where(RateLimitCounter.id == id)
        .values(count=RateLimitCounter.count + 1)
        .returning(RateLimitCounter.count)
    )
    attempts = session.execute(counted.execution_options(synchronize_session=False)).scalar_one()
    return attempts <= PER_HOUR[limit]


def client_network(address: str) -> str:
    """Return the network to rate-limit: the IPv4 address, or the /64 prefix of an IPv6 address.

    Other input is returned unchanged.
    """
    try:
        found = ip_address(address)
    except ValueError:
        return address
    if isinstance(found, IPv6Address):
        return str(found.ipv4_mapped or IPv6Address(int(found) >> 64 << 64))
    return str(found)
