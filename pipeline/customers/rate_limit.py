"""How often somebody may knock in an hour, so that nobody is flooded with mails, and nothing can be guessed by trying."""

from datetime import datetime, timedelta
from ipaddress import IPv6Address, ip_address

from sqlalchemy import update
from sqlalchemy.orm import Session

from pipeline.crypto.keyring import INDEX, Keyring
from pipeline.db.bulk import insert_new
from pipeline.db.models import RateLimitCounter

HOUR = timedelta(hours=1)
# Letters of one sender that are answered within a day: a loop of two machines ends here.
ANSWERED_A_DAY = 3
# Answers an hour to all whom we do not know: beyond that somebody writes in others' names.
STRANGERS_AN_HOUR = 30


def allow(session: Session, keyring: Keyring, what: str, who: str, *, limit: int, now: datetime) -> bool:
    """Count one more knock of this person at this thing, and say whether it is within the limit of this hour.

    `who` is an address of any kind, and is kept as a keyed hash only.
    """
    hour = now.replace(minute=0, second=0, microsecond=0)
    id = keyring.digest(INDEX, f"knock:{what}:{hour:%Y-%m-%dT%H}:{who}").hex()
    insert_new(
        session, RateLimitCounter, [{"id": id, "count": 0, "expires_at": hour + HOUR}], returning=RateLimitCounter.id
    )
    counted = (
        update(RateLimitCounter)
        .where(RateLimitCounter.id == id)
        .values(count=RateLimitCounter.count + 1)
        .returning(RateLimitCounter.count)
    )
    return session.execute(counted.execution_options(synchronize_session=False)).scalar_one() <= limit


def neighbourhood(address: str) -> str:
    """Who shares a line, as a rule: an IPv4 address, or the /64 of an IPv6 one; what is neither stands for itself."""
    try:
        found = ip_address(address)
    except ValueError:
        return address
    if isinstance(found, IPv6Address):
        return str(found.ipv4_mapped or IPv6Address(int(found) >> 64 << 64))
    return str(found)
