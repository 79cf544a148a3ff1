"""The table of the outbox."""

from datetime import datetime

from sqlalchemy import String, Text
from sqlalchemy.orm import Mapped, mapped_column

from pipeline.db.models.base import Base, partial_index


class Mail(Base):
    """A mail to send. Its id is the token in the Message-ID and in the envelope sender."""

    __tablename__ = "mail"

    id: Mapped[str] = mapped_column(String(26), primary_key=True)
    idempotency_key: Mapped[str] = mapped_column(String(200), unique=True)  # made of stable ids
    kind: Mapped[str] = mapped_column(String(40))
    key_id: Mapped[str] = mapped_column(String(100), index=True)
    subscription_id: Mapped[str | None] = mapped_column(String(50), index=True)
    customer_id: Mapped[str | None] = mapped_column(
        String(40), index=True
    )  # without subscription and customer: to the operator
    state: Mapped[str] = mapped_column(String(10))  # queued, sending, sent, doubt, failed, withheld
    reason: Mapped[str | None] = mapped_column(Text)
    facts: Mapped[bytes | None]  # encrypted
    recipient: Mapped[bytes | None]  # encrypted: the address that `frozen` was rendered for
    frozen: Mapped[bytes | None]  # encrypted: the finished message, set at the first claim
    message_id: Mapped[str | None] = mapped_column(String(320))  # <id@domain>; a domain has up to 253 characters
    claimed_by: Mapped[str | None] = mapped_column(String(40))  # the mailer that sends it
    relay_reply: Mapped[str | None] = mapped_column(Text)
    attempts: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime] = mapped_column(index=True)
    due_at: Mapped[datetime | None]  # None in state `queued`: waits for an address
    claimed_at: Mapped[datetime | None]  # the last claim
    sent_at: Mapped[datetime | None]

    __table_args__ = (
        partial_index("ix_mail_due", "due_at", "state = 'queued'"),
        partial_index("ix_mail_sending", "claimed_by", "state = 'sending'"),
        partial_index("ix_mail_doubt", "claimed_at", "state = 'doubt'"),
        partial_index("ix_mail_failed", "created_at", "state = 'failed'"),
    )
