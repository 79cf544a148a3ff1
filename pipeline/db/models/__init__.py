"""The tables, one module per domain. This package holds no behaviour.

Times are UTC. Amounts are integers in minor units; the currency has its own column. Personal columns are encrypted
bytes (see `crypto.keyring`). Rows that several events update keep their facts in `known` (see `db.lww_map`); the other
columns are computed from it.
"""

from pipeline.db.models.actions import Action
from pipeline.db.models.base import Base
from pipeline.db.models.billing import CAME, Dispute, Payment, Plan, Refund, StatusHistoryEntry, Subscription
from pipeline.db.models.customers import Consent, Customer, Link, RateLimitCounter
from pipeline.db.models.encryption import EncryptionKey
from pipeline.db.models.inbox import Event, PaypalLookup, Redelivery
from pipeline.db.models.outbox import Mail
from pipeline.db.models.privacy import (
    AccessLogEntry,
    Erasure,
    InboundMail,
    Policy,
    PrivacyRequest,
    ReadAudit,
    RetentionRun,
)
from pipeline.db.models.reconciliation import ReconciliationException, ReconciliationPosition

__all__ = [
    "CAME",
    "AccessLogEntry",
    "Action",
    "Base",
    "Consent",
    "Customer",
    "Dispute",
    "EncryptionKey",
    "Erasure",
    "Event",
    "InboundMail",
    "Link",
    "Mail",
    "Payment",
    "PaypalLookup",
    "Plan",
    "Policy",
    "PrivacyRequest",
    "RateLimitCounter",
    "ReadAudit",
    "ReconciliationException",
    "ReconciliationPosition",
    "Redelivery",
    "Refund",
    "RetentionRun",
    "StatusHistoryEntry",
    "Subscription",
]
