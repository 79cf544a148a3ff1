"""The tables of billing: plans, subscriptions, payments, refunds, and the history of statuses."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, String, false
from sqlalchemy.orm import Mapped, mapped_column

from pipeline.db.models.base import Base, partial_index


class Plan(Base):
    """A billing plan as PayPal reports it. Each old billing agreement has its own plan, with the agreement's id."""

    __tablename__ = "plan"

    id: Mapped[str] = mapped_column(String(50), primary_key=True)
    known: Mapped[dict[str, Any]]
    name: Mapped[str | None] = mapped_column(String(127))
    interval_unit: Mapped[str | None] = mapped_column(String(5))  # DAY, WEEK, MONTH, YEAR
    interval_count: Mapped[int | None]
    amount: Mapped[int | None] = mapped_column(BigInteger)  # of one regular cycle, for a quantity of one
    currency: Mapped[str | None] = mapped_column(String(3))


class Subscription(Base):
    """A subscription; a row without status is a placeholder, because a payment arrived first."""

    __tablename__ = "subscription"

    id: Mapped[str] = mapped_column(String(50), primary_key=True)
    known: Mapped[dict[str, Any]]
    customer_id: Mapped[str | None] = mapped_column(ForeignKey("customer.id"), index=True)
    personal_data: Mapped[bytes | None]  # encrypted last-writer-wins map: name, e-mail and so on
    email_hash: Mapped[bytes | None] = mapped_column(index=True)
    status: Mapped[str | None] = mapped_column(String(20))
    status_at: Mapped[datetime | None]
    plan_id: Mapped[str | None] = mapped_column(String(50), index=True)
    next_billing_at: Mapped[datetime | None]
    paid_through: Mapped[datetime | None]
    remind_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    # It has been active or paid. Before that its subscriber may be anybody, so it has no customer and no address.
    is_established: Mapped[bool] = mapped_column(default=False, server_default=false())
    past_due_at: Mapped[datetime | None]  # the moment from which it is past due, as far as known
    outstanding: Mapped[int | None] = mapped_column(BigInteger)  # PayPal's outstanding balance; None: unknown
    outstanding_currency: Mapped[str | None] = mapped_column(String(3))
    failed_count: Mapped[int] = mapped_column(default=0)  # failures that PayPal counted since the last payment

    __table_args__ = (partial_index("ix_subscription_remind_at", "remind_at", "remind_at IS NOT NULL"),)


CAME = ("completed", "partially_refunded", "refunded", "reversed")  # statuses of a payment that was received


class Payment(Base):
    """One sale; a row without status is a placeholder, because a refund arrived first."""

    __tablename__ = "payment"

    id: Mapped[str] = mapped_column(String(50), primary_key=True)
    known: Mapped[dict[str, Any]]
    subscription_id: Mapped[str | None] = mapped_column(String(50), index=True)
    # pending, completed, denied, unconfirmed (PayPal does not know it), partially_refunded, refunded, reversed
    status: Mapped[str | None] = mapped_column(String(20))
    amount: Mapped[int | None] = mapped_column(BigInteger)
    currency: Mapped[str | None] = mapped_column(String(3))
    fee: Mapped[int | None] = mapped_column(BigInteger)
    fee_currency: Mapped[str | None] = mapped_column(String(3))
    tax: Mapped[int | None] = mapped_column(BigInteger)  # part of `amount`, in its currency
    shipping: Mapped[int | None] = mapped_column(BigInteger)  # part of `amount`, in its currency
    received: Mapped[int | None] = mapped_column(BigInteger)  # after PayPal's conversion
    received_currency: Mapped[str | None] = mapped_column(String(3))
    exchange_rate: Mapped[str | None] = mapped_column(String(32))  # decimal text, as PayPal reports it
    refunded: Mapped[int] = mapped_column(BigInteger, default=0)
    occurred_at: Mapped[datetime | None]


class Refund(Base):
    """Money returned for a payment, by the vendor (refund) or by PayPal (reversal)."""

    __tablename__ = "refund"

    id: Mapped[str] = mapped_column(String(50), primary_key=True)
    known: Mapped[dict[str, Any]]
    payment_id: Mapped[str] = mapped_column(String(50), index=True)
    kind: Mapped[str] = mapped_column(String(10))  # refund, reversal
    amount: Mapped[int] = mapped_column(BigInteger)  # positive
    currency: Mapped[str] = mapped_column(String(3))
    returned_fee: Mapped[int | None] = mapped_column(BigInteger)  # the part of the fee that PayPal returned
    returned_fee_currency: Mapped[str | None] = mapped_column(String(3))
    occurred_at: Mapped[datetime]


class Dispute(Base):
    """A dispute that a buyer opened about a payment."""

    __tablename__ = "dispute"

    id: Mapped[str] = mapped_column(String(50), primary_key=True)
    known: Mapped[dict[str, Any]]
    payment_id: Mapped[str | None] = mapped_column(String(50), index=True)  # the first of the disputed payments
    status: Mapped[str | None] = mapped_column(String(40))
    stage: Mapped[str | None] = mapped_column(String(40))
    reason: Mapped[str | None] = mapped_column(String(60))
    amount: Mapped[int | None] = mapped_column(BigInteger)
    currency: Mapped[str | None] = mapped_column(String(3))
    due_at: Mapped[datetime | None]  # until when the vendor must answer
    outcome: Mapped[str | None] = mapped_column(String(60))
    opened_at: Mapped[datetime | None]
    resolved_at: Mapped[datetime | None]  # None: open

    __table_args__ = (partial_index("ix_dispute_open", "opened_at", "resolved_at IS NULL"),)


class StatusHistoryEntry(Base):
    """One change of a subscription's status, in the order of arrival."""

    __tablename__ = "status_history"

    id: Mapped[int] = mapped_column(primary_key=True)
    subscription_id: Mapped[str] = mapped_column(String(50), index=True)
    at: Mapped[datetime]
    old_status: Mapped[str | None] = mapped_column(String(20))
    new_status: Mapped[str] = mapped_column(String(20))
    reason: Mapped[str] = mapped_column(String(100))
    event_id: Mapped[str] = mapped_column(String(160))
