"""Plain rows of the billing tables: what a unit of work loads and changes, much faster than ORM objects.

Each class has the columns of its table as fields.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(slots=True)
class PlanRow:
    """A row of the table `plan`."""

    id: str
    known: dict[str, Any]
    name: str | None = None
    interval_unit: str | None = None
    interval_count: int | None = None
    amount: int | None = None
    currency: str | None = None


@dataclass(slots=True)
class SubscriptionRow:
    """A row of the table `subscription`."""

    id: str
    known: dict[str, Any]
    created_at: datetime
    customer_id: str | None = None
    personal_data: bytes | None = None
    email_hash: bytes | None = None
    status: str | None = None
    status_at: datetime | None = None
    plan_id: str | None = None
    next_billing_at: datetime | None = None
    paid_through: datetime | None = None
    remind_at: datetime | None = None
    is_established: bool = False
    past_due_at: datetime | None = None
    outstanding: int | None = None
    outstanding_currency: str | None = None
    failed_count: int = 0


@dataclass(slots=True)
class PaymentRow:
    """A row of the table `payment`."""

    id: str
    known: dict[str, Any]
    subscription_id: str | None = None
    status: str | None = None
    amount: int | None = None
    currency: str | None = None
    fee: int | None = None
    fee_currency: str | None = None
    tax: int | None = None
    shipping: int | None = None
    received: int | None = None
    received_currency: str | None = None
    exchange_rate: str | None = None
    refunded: int = 0
    occurred_at: datetime | None = None


@dataclass(slots=True)
class DisputeRow:
    """A row of the table `dispute`."""

    id: str
    known: dict[str, Any]
    payment_id: str | None = None
    status: str | None = None
    stage: str | None = None
    reason: str | None = None
    amount: int | None = None
    currency: str | None = None
    due_at: datetime | None = None
    outcome: str | None = None
    opened_at: datetime | None = None
    resolved_at: datetime | None = None


@dataclass(slots=True)
class RefundRow:
    """A row of the table `refund`."""

    id: str
    known: dict[str, Any]
    payment_id: str
    kind: str
    amount: int
    currency: str
    occurred_at: datetime
    returned_fee: int | None = None
    returned_fee_currency: str | None = None
