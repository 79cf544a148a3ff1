"""The data category of each column. A test fails for a column without a category.

Retention, erasure, export and the record of processing use these categories.
"""

from typing import Literal

from pipeline.db.models import Base

Category = Literal[
    "contact",  # identity and contact data; encrypted
    "pseudonym",  # identifiers without a name: keyed hashes, PayPal's ids, key ids
    "contract",  # subscriptions and their history
    "payment",  # payments and refunds; subject to accounting law
    "communication",  # mails and inbound mail; their contents are encrypted
    "usage",  # the access log of the customer pages
    "consent",  # what customers agreed to, when, and in which text version
    "request",  # privacy requests and their outcome
    "accountability",  # proof of our processing: audit log, erasures, retention runs
    "security",  # keys, hashes of secrets, rate limit counters
    "operation",  # technical state: states, attempts, reasons, times
    "vendor",  # the vendor's plans and texts; not personal
]

CATEGORIES: dict[str, dict[Category, str]] = {
    "encryption_key": {"pseudonym": "key_id", "security": "wrapped_key created_at erased_at"},
    "event": {
        "pseudonym": "id key_id customer_id",
        "contact": "personal_data",
        "payment": "facts body",
        "security": "body_sha256 content_sha256 signature_verdict transmission_id",
        "operation": "type source state reason occurred_at received_at due_at attempts done_at",
    },
    "redelivery": {"security": "transmission_id event_id body_sha256 received_at"},
    "customer": {
        "pseudonym": "id payer_ref merged_into",
        "contact": "personal_data email_hash email_change_at",
        "contract": "created_at signed_up_at erase_at erased_at",
        "consent": "adult_confirmed_at adult_text_version wants_marketing wants_service_mail",
    },
    "plan": {"vendor": "id known name interval_unit interval_count amount currency"},
    "subscription": {
        "pseudonym": "id customer_id",
        "contact": "personal_data email_hash",
        "contract": "known status status_at plan_id next_billing_at paid_through remind_at created_at past_due_at "
        "is_established",
        "payment": "outstanding outstanding_currency failed_count",
    },
    "payment": {
        "pseudonym": "id subscription_id",
        "payment": "known status amount currency fee fee_currency tax shipping received received_currency "
        "exchange_rate refunded occurred_at",
    },
    "refund": {
        "pseudonym": "id payment_id",
        "payment": "known kind amount currency returned_fee returned_fee_currency occurred_at",
    },
    "status_history": {
        "pseudonym": "subscription_id event_id",
        "contract": "id at old_status new_status reason",
    },
    "paypal_lookup": {"pseudonym": "id", "operation": "kind due_at attempts reason requested_at first_due_at"},
    "dispute": {
        "pseudonym": "id payment_id",
        "payment": "known status stage reason amount currency due_at outcome opened_at resolved_at",
    },
    "action": {
        "pseudonym": "id event_id object_id",
        "accountability": "kind parameters actor state outcome requested_at done_at",
        "operation": "attempts due_at",
    },
    "reconciliation_position": {"operation": "source until"},
    "reconciliation_exception": {
        "pseudonym": "id",
        "operation": "kind reason found_at looked_up_at resolved_at ignored_reason",
    },
    "mail": {
        "pseudonym": "id idempotency_key key_id subscription_id customer_id message_id",
        "communication": "kind facts recipient frozen relay_reply created_at sent_at",
        "operation": "state reason claimed_by attempts due_at claimed_at",
    },
    "consent": {"pseudonym": "customer_id", "consent": "id at kind given source text_version"},
    "privacy_request": {
        "pseudonym": "id customer_id key_id",
        "request": "kind state source details reason received_at due_at waiting_ends_at done_at",
        "operation": "last_alarm_day",
    },
    "link": {
        "pseudonym": "customer_id request_id",
        "contact": "details",
        "security": "sha256 purpose created_at expires_at used_at",
    },
    "rate_limit_counter": {"security": "id count expires_at"},
    "inbound_mail": {
        "pseudonym": "id customer_id key_id request_id",
        "communication": "kind content received_at answered_at",
    },
    "access_log": {"pseudonym": "key_id", "usage": "id at action status visitor"},
    "read_audit": {"pseudonym": "subject", "accountability": "id at actor action purpose previous_hash hash"},
    "retention_run": {"accountability": "id at counts"},
    "erasure": {"pseudonym": "customer_id key_ids", "accountability": "id at receipt master_key_id completed_at"},
    "policy": {"vendor": "id text material proposed_at effective_at withdrawn_at"},
}


def categories_of(table: type[Base]) -> dict[str, Category]:
    """Return the category of each column of a table, by column name."""
    named = CATEGORIES.get(table.__tablename__, {})
    return {column: category for category, columns in named.items() for column in columns.split()}


def by_table() -> dict[str, dict[str, Category]]:
    """Return the category of each column, by table and column."""
    return {
        table: {column: of for of, columns in named.items() for column in columns.split()}
        for table, named in CATEGORIES.items()
    }


def columns_holding(category: Category) -> list[str]:
    """Return the columns of this category, as `table.column`."""
    return [f"{table}.{column}" for table, named in CATEGORIES.items() for column in named.get(category, "").split()]
