"""Hourly rate limits, stored in the database. They prevent mail flooding and brute-force guessing.

`PER_HOUR` holds all limits; a caller names the limit to apply.
"""

from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Literal

from sqlalchemy import update
from sqlalchemy.orm import Session

from pipeline.crypto.keyring import INDEX, Keyring
from pipeline.db.bulk import insert_new
from pipeline.db.models import RateLimitCounter
from pipeline.email_address import fold_address

Limit = Literal[
    "sign_up",
    "ask_for_link",
    "send_link",
    "send_address_confirmation",
    "change_address",
    "change_any_address",
    "confirm_news",
    "export",
    "erase",
    "keep",
    "answer_sender",
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
    "change_address": 5,
    # all customers together: each request mails an address that no one has confirmed
    "change_any_address": 50,
    # per e-mail address: `intake.ANSWERED_A_DAY` of one kind and one of the other
    "answer_sender": 4,
    # all unknown senders together: more messages an hour are probably sent with forged addresses
    "answer_strangers": 30,
    # mails to the operator about inbound messages: the list of open messages shows those above the limit
    "report_message": 60,
}
# Prefix lengths that an IPv6 address is counted by, and the multiple of the limit that each gets. One line often has a
# /56 or a /48, and could otherwise use each of its 256 or 65,536 networks.
IPV6_PREFIXES = {64: 1, 56: 2, 48: 4}


def allow(session: Session, keyring: Keyring, limit: Limit, subject: str, *, now: datetime) -> bool:
    """Count an attempt and return whether it is within the limit of this hour (UTC).

    `subject` is what the limit counts by: an e-mail address, a network or an id. Only its keyed hash is stored.
    """
    return _count(session, keyring, limit, subject, now) <= PER_HOUR[limit]


def allow_client(session: Session, keyring: Keyring, limit: Limit, address: str, *, now: datetime) -> bool:
    """Count an attempt by the client's networks, and return whether it is within the limit of each.

    A wide network is counted only while the networks inside it are within their limits, so that one flooding client
    does not use up the limit of its neighbours.
    """
    networks = client_networks(address)
    return all(
        _count(session, keyring, limit, subject, now) <= PER_HOUR[limit] * multiple for subject, multiple in networks
    )


def client_network(address: str) -> str:
    """Return the narrowest network that is rate-limited: the IPv4 address, or the /64 prefix of an IPv6 address.

    All input that is no address counts as one network.
    """
    return client_networks(address)[0][0]


def client_networks(address: str) -> list[tuple[str, int]]:
    """Return the networks of an address, narrow ones first, each with the multiple of the limit that it gets."""
    found = _parse(address)
    if not isinstance(found, IPv6Address):
        return [(str(found or "unknown"), 1)]
    return [(str(IPv6Network((int(found), length), strict=False)), by) for length, by in IPV6_PREFIXES.items()]


def _parse(address: str) -> IPv4Address | IPv6Address | None:
    try:
        found = ip_address(address)
    except ValueError:
        return None
    return (found.ipv4_mapped or found) if isinstance(found, IPv6Address) else found


def _count(session: Session, keyring: Keyring, limit: Limit, subject: str, now: datetime) -> int:
    """Count an attempt and return how many there were in this hour (UTC)."""
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
    return session.execute(counted.execution_options(synchronize_session=False)).scalar_one()


def mailbox(email: str) -> str:
    """Return the address by which a limit counts: variants with `+tag` and dots reach the same mailbox at many providers.

    So do all spellings of a domain that IDNA maps to one, such as full-width letters.
    """
    local, _, domain = fold_address(email).lower().rpartition("@")
    return f"{local.partition('+')[0].replace('.', '')}@{domain}"
