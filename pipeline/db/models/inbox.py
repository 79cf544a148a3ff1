"""The tables of the inbox: received events, their repeated transmissions, and pending PayPal look-ups."""

from datetime import datetime
from typing import Any

from sqlalchemy import String, Text
from sqlalchemy.orm import Mapped, mapped_column

from pipeline.db.models.base import Base, partial_index


class Event(Base):
    """A received event, stored once."""

    __tablename__ = "event"

    id: Mapped[str] = mapped_column(String(160), primary_key=True)
    type: Mapped[str] = mapped_column(String(100))
    source: Mapped[str] = mapped_column(String(20))  # webhook, import, read, history, action
    state: Mapped[str] = mapped_column(String(10))  # received, handled, ignored, parked
    reason: Mapped[str | None] = mapped_column(Text)
    key_id: Mapped[str] = mapped_column(String(100), index=True)
    customer_id: Mapped[str | None] = mapped_column(String(40))  # only if the event names no subscription
    facts: Mapped[dict[str, Any]]
    personal_data: Mapped[bytes | None]  # encrypted JSON object: personal data of the event
    body: Mapped[bytes | None]  # encrypted: the whole body without card and bank fields
    body_sha256: Mapped[str] = mapped_column(String(64))  # of the raw bytes
    content_sha256: Mapped[str] = mapped_column(String(64))  # of the parsed content, so formatting does not matter
    signature_verdict: Mapped[str] = mapped_column(Text)  # the result of the signature check, in words
    transmission_id: Mapped[str | None] = mapped_column(String(50), unique=True)
    occurred_at: Mapped[datetime | None]
    received_at: Mapped[datetime] = mapped_column(index=True)
    due_at: Mapped[datetime | None]  # when a received event is handled next
    attempts: Mapped[int] = mapped_column(default=0)
    done_at: Mapped[datetime | None]  # when it was handled, ignored or parked

    __table_args__ = (
        partial_index("ix_event_due", "due_at", "state = 'received'"),
        partial_index("ix_event_parked", "done_at", "state = 'parked'"),
        partial_index("ix_event_customer_id", "customer_id", "customer_id IS NOT NULL"),
    )


class Redelivery(Base):
    """A further transmission of a stored event, kept so that its signature cannot be used for another body."""

    __tablename__ = "redelivery"

    transmission_id: Mapped[str] = mapped_column(String(50), primary_key=True)
    event_id: Mapped[str] = mapped_column(String(160))
    body_sha256: Mapped[str] = mapped_column(String(64))
    received_at: Mapped[datetime]


class PaypalLookup(Base):
    """A pending PayPal API request; its answer enters the inbox as an event."""

    __tablename__ = "paypal_lookup"

    kind: Mapped[str] = mapped_column(String(20), primary_key=True)  # a `LookupKind` of pipeline.paypal.requests
    id: Mapped[str] = mapped_column(String(50), primary_key=True)
    due_at: Mapped[datetime | None] = mapped_column(index=True)  # None: given up; `reason` says why
    attempts: Mapped[int] = mapped_column(default=0)
    reason: Mapped[str | None] = mapped_column(Text)
    requested_at: Mapped[datetime]  # of the newest request; an answer must be younger
    first_due_at: Mapped[datetime]  # `due_at` of the first attempt; its age shows how long the answer is missing
