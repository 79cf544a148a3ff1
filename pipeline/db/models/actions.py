"""Table of the actions that an operator or customer ordered at PayPal."""

from datetime import datetime
from typing import Any

from sqlalchemy import String, Text
from sqlalchemy.orm import Mapped, mapped_column

from pipeline.db.models.base import Base


class Action(Base):
    """A change ordered at PayPal. Its id is PayPal's request id, so PayPal carries it out once. The event has the reason."""

    __tablename__ = "action"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    event_id: Mapped[str] = mapped_column(String(160))
    kind: Mapped[str] = mapped_column(String(20))  # cancel, suspend, activate, capture, revise, refund
    object_id: Mapped[str] = mapped_column(String(50), index=True)  # a subscription; of a refund the payment
    parameters: Mapped[dict[str, Any]]  # amount, currency, plan, quantity
    actor: Mapped[str] = mapped_column(String(100))  # who ordered it: an account of the machine, or "customer"
    state: Mapped[str] = mapped_column(String(10))  # requested, done, refused, failed
    outcome: Mapped[str | None] = mapped_column(Text)  # PayPal's answer in a sentence, without personal data
    attempts: Mapped[int] = mapped_column(default=0)
    requested_at: Mapped[datetime]
    due_at: Mapped[datetime | None] = mapped_column(index=True)  # None: it has ended
    done_at: Mapped[datetime | None]
