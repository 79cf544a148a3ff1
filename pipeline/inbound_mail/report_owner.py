"""Find the person that an automatic message is about: a delivery report, a complaint, or an automatic answer to a mail.

A report comes from a mail server and contains the address of the person that the mail was sent to. It is encrypted under
that person's key, so that an erasure reaches it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from pipeline.crypto.keyring import Keyring
from pipeline.customers import accounts
from pipeline.db.models import Mail, Subscription
from pipeline.email_address import valid_address
from pipeline.inbound_mail.parser import PARSED
from pipeline.outbox import store as outbox
from pipeline.outbox.tokens import TOKEN_LENGTH

MAX_CANDIDATES = 50  # tokens and addresses of one message that are looked up
# The id of a mail is in its envelope sender, which a report is sent to (RFC 3464, RFC 5965), in Original-Envelope-Id and in
# its Message-ID, which an automatic answer names in In-Reply-To. It cannot be guessed, so each occurrence is a reference.
_MAIL_ID = re.compile(rb"(?<![a-z0-9])[a-z2-7]{%d}(?![a-z0-9])" % TOKEN_LENGTH, re.IGNORECASE)
_DELIVERY_REPORT = re.compile(rb"report-type=\"?delivery-status", re.IGNORECASE)  # written by a mail server (RFC 3464)
_RECIPIENT = re.compile(
    rb"^(?:(?:Final|Original)-Recipient:[ \t]*[\w-]+;|Original-Rcpt-To:)[ \t]*<?([^\s<>]{3,254})>?",
    re.IGNORECASE | re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class ReportOwner:
    """The person that a report is about. `key_id` is the key of the customer, otherwise of the mail that it reports on."""

    customer_id: str | None
    key_id: str


def find_report_owner(session: Session, keyring: Keyring, raw: bytes) -> ReportOwner | None:
    """Return the recipient of the mail that this automatic message refers to; None if it refers to no mail or customer."""
    head = raw[:PARSED]
    return _by_mail_id(session, keyring, head) or _by_recipient(session, keyring, head)


def _by_mail_id(session: Session, keyring: Keyring, head: bytes) -> ReportOwner | None:
    ids = [token.decode().lower() for token in _distinct(_MAIL_ID, head)]
    named = select(Mail.id, Mail.key_id, Mail.facts, Mail.customer_id, Subscription.customer_id.label("subscriber"))
    named = named.outerjoin(Subscription, Subscription.id == Mail.subscription_id).where(Mail.id.in_(ids))
    # The operator's mails are about no person.
    found = {row.id: row for row in session.execute(named) if row.key_id != outbox.OPERATOR}
    for row in (found[id] for id in ids if id in found):
        if _has_own_address(keyring, row) and not _DELIVERY_REPORT.search(head):
            continue  # written by the reader of that address, who may be another person
        customer_id = row.customer_id or row.subscriber
        return ReportOwner(customer_id, customer_id or row.key_id)
    return None


def _has_own_address(keyring: Keyring, row: Any) -> bool:
    """Return whether the mail names an address of its own, for example one that is not confirmed."""
    data_key = keyring.get(row.key_id) if row.facts else None
    return bool(data_key and outbox.ADDRESS_OVERRIDE in (data_key.decrypt_json("mail.facts", row.facts) or {}))


def _by_recipient(session: Session, keyring: Keyring, head: bytes) -> ReportOwner | None:
    """Return the customer with the address that the report names, for a mail whose row is deleted."""
    for address in (found.decode("utf-8", "replace") for found in _distinct(_RECIPIENT, head)):
        owners = accounts.find_by_email(session, keyring, address) if valid_address(address) else []
        if owners:
            return ReportOwner(owners[0], owners[0])
    return None


def _distinct(pattern: re.Pattern[bytes], text: bytes) -> list[bytes]:
    """Return the distinct matches in their order: group 1 if the pattern has one."""
    matches: Iterator[re.Match[bytes]] = pattern.finditer(text)
    found = dict.fromkeys(match[match.lastindex or 0] for match in matches)
    return list(found)[:MAX_CANDIDATES]
