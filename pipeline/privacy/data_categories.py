"""What kind of data each column holds. A test fails for a column that no category names.

Retention, erasure, export and the record of processing speak of data in these words.
"""

from typing import Literal

from pipeline.db.models import Base

Category = Literal[
    "contact",  # who somebody is and how to reach them; sealed
    "pseudonym",  # tells people apart, and names nobody: keyed hashes, PayPal's ids, labels
    "contract",  # what they subscribed to, and its course
    "payment",  # money that came and went: what accounting law is about
    "communication",  # what we wrote to them and they to us; contents are sealed
    "usage",  # the access log of our own pages
    "consent",  # what they agreed to, when, in which words
    "request",  # what they asked for under the policy, and what became of it
    "accountability",  # our own proof: who read what, what was erased
    "security",  # keys, hashes of secrets, counters against abuse
    "operation",  # the machine's own: states, attempts, reasons, times of work
    "vendor",  # the vendor's plans and texts; about nobody
]

CATEGORIES: dict[str, dict[Category, str]] = {
    "key": {"pseudonym": "label", "security": "wrapped created_at erased_at"},
    "event": {
        "pseudonym": "id label customer_id",
        "contact": "person",
        "payment": "facts body",
        "security": "body_sha256 content_sha256 verdict transmission_id",
        "operation": "type source state reason occurred_at received_at due_at attempts done_at",
    },
    "redelivery": {"security": "transmission_id event_id body_sha256 received_at"},
    "customer": {
        "pseudonym": "id",
        "contact": "person email_hash",
        "contract": "created_at signed_up_at erase_at erased_at",
        "consent": "adult_at adult_text marketing service",
    },
    "plan": {"vendor": "id known name interval_unit interval_count amount currency"},
    "subscription": {
        "pseudonym": "id customer_id",
        "contact": "person email_hash",
        "contract": "known status status_at plan_id next_billing_at paid_through remind_at created_at",
    },
    "payment": {
        "pseudonym": "id subscription_id",
        "payment": "known status amount currency fee refunded occurred_at",
    },
    "refund": {"pseudonym": "id payment_id", "payment": "known kind amount currency occurred_at"},
    "change": {"pseudonym": "subscription_id event_id", "contract": "id at old new reason"},
    "read": {"pseudonym": "id", "operation": "kind due_at attempts reason"},
    "mail": {
        "pseudonym": "id key label subscription_id customer_id message_id",
        "communication": "kind facts recipient frozen reply created_at sent_at",
        "operation": "state reason holder attempts due_at tried_at",
    },
    "consent": {"pseudonym": "customer_id", "consent": "id at kind given source text_version"},
    "request": {
        "pseudonym": "id customer_id label",
        "request": "kind state source details reason received_at due_at act_at done_at",
        "operation": "alarms",
    },
    "link": {
        "pseudonym": "customer_id request_id",
        "contact": "details",
        "security": "sha256 purpose created_at expires_at used_at",
    },
    "knock": {"security": "id count expires_at"},
    "letter": {"pseudonym": "id customer_id label request_id", "communication": "kind content received_at"},
    "visit": {"pseudonym": "label", "usage": "id at action status visitor"},
    "audit": {"pseudonym": "subject", "accountability": "id at actor action purpose previous hash"},
    "sweep": {"accountability": "id at counts"},
    "erasure": {"pseudonym": "customer_id labels", "accountability": "id at receipt master_id complete_at"},
    "policy": {"vendor": "id text material proposed_at effective_at withdrawn_at"},
}


def of(table: type[Base]) -> dict[str, Category]:
    """Column -> category."""
    named = CATEGORIES.get(table.__tablename__, {})
    return {column: category for category, columns in named.items() for column in columns.split()}


def holding(category: Category) -> list[str]:
    """The columns that hold this kind of data, as `table.column`."""
    return [f"{table}.{column}" for table, named in CATEGORIES.items() for column in named.get(category, "").split()]
