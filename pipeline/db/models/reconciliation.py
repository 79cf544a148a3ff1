"""Tables of the reconciliation with PayPal."""

from datetime import datetime

from sqlalchemy import String, Text
from sqlalchemy.orm import Mapped, mapped_column

from pipeline.db.models.base import Base, partial_index


class ReconciliationPosition(Base):
    """Until when one of PayPal's lists has been compared."""

    __tablename__ = "reconciliation_position"

    source: Mapped[str] = mapped_column(String(20), primary_key=True)  # events, subscriptions, money
    until: Mapped[datetime]


class ReconciliationException(Base):
    """A difference between PayPal and our data that a look-up did not remove."""

    __tablename__ = "reconciliation_exception"

    kind: Mapped[str] = mapped_column(String(20), primary_key=True)  # sale, refund, subscription, event
    id: Mapped[str] = mapped_column(String(80), primary_key=True)  # PayPal's id of the object
    reason: Mapped[str] = mapped_column(Text)
    found_at: Mapped[datetime]
    looked_up_at: Mapped[datetime | None]  # None: no look-up has been requested
    resolved_at: Mapped[datetime | None]
    ignored_reason: Mapped[str | None] = mapped_column(Text)  # the operator's, if they closed it

    __table_args__ = (partial_index("ix_reconciliation_exception_open", "found_at", "resolved_at IS NULL"),)
