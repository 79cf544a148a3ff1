"""The mail that tells the operator about a message that needs a person."""

from dataclasses import replace

from sqlalchemy.orm import Session

from pipeline.crypto.keyring import Keyring
from pipeline.customers import rate_limit
from pipeline.db.models import InboundMail, PrivacyRequest
from pipeline.inbound_mail.mailbox import SHORT_ID
from pipeline.inbound_mail.reading import read_message
from pipeline.outbox import store as outbox
from pipeline.privacy import requests

LONGEST_TEXT = 5_000  # characters of the message's text in the mail


def operator_mails(
    session: Session, keyring: Keyring, message: InboundMail, request: PrivacyRequest, raw: bytes | None
) -> list[outbox.NewMail]:
    """Return the mail about this message; none above the hourly limit.

    The mail contains the command that shows the message and, if `raw` is given, the message's sender and text. Then it is
    encrypted with the message's key, so that an erasure reaches it.
    """
    if not rate_limit.allow(session, keyring, "report_message", "all of them", now=keyring.now):
        return []
    mail = requests.reminder(request, 0)
    facts = {**mail.facts, "message": message.id[:SHORT_ID]}
    if raw is None:
        return [replace(mail, facts=facts)]
    return [replace(mail, facts={**facts, "text": _lines(raw)}, label=message.key_id)]


def _lines(raw: bytes) -> list[str]:
    read = read_message(raw)
    text = read.text if len(read.text) <= LONGEST_TEXT else f"{read.text[:LONGEST_TEXT]} …"
    return [f"From: {read.from_line}", f"Subject: {read.subject}", "", *text.splitlines()]
