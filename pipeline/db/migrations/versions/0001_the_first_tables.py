"""the first tables."""

import sqlalchemy as sa
from alembic import op

from pipeline.db.engine import Utc

revision = "0001"
down_revision = None


def upgrade() -> None:

    op.create_table(
        "change",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("subscription_id", sa.String(length=50), nullable=False),
        sa.Column("at", Utc(), nullable=False),
        sa.Column("old", sa.String(length=20), nullable=True),
        sa.Column("new", sa.String(length=20), nullable=False),
        sa.Column("reason", sa.String(length=100), nullable=False),
        sa.Column("event_id", sa.String(length=160), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_change_subscription_id"), "change", ["subscription_id"], unique=False)
    op.create_table(
        "customer",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("created_at", Utc(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "event",
        sa.Column("id", sa.String(length=160), nullable=False),
        sa.Column("type", sa.String(length=100), nullable=False),
        sa.Column("source", sa.String(length=20), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("label", sa.String(length=100), nullable=False),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.Column("person", sa.LargeBinary(), nullable=True),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        sa.Column("body_sha256", sa.String(length=64), nullable=False),
        sa.Column("content_sha256", sa.String(length=64), nullable=False),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column("transmission_id", sa.String(length=50), nullable=True),
        sa.Column("occurred_at", Utc(), nullable=True),
        sa.Column("received_at", Utc(), nullable=False),
        sa.Column("due_at", Utc(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("done_at", Utc(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("transmission_id"),
    )
    op.create_index(
        "event_due",
        "event",
        ["due_at"],
        unique=False,
        sqlite_where=sa.text("state = 'received'"),
        postgresql_where=sa.text("state = 'received'"),
    )
    op.create_index("event_label", "event", ["label"], unique=False)
    op.create_index(
        "event_parked",
        "event",
        ["done_at"],
        unique=False,
        sqlite_where=sa.text("state = 'parked'"),
        postgresql_where=sa.text("state = 'parked'"),
    )
    op.create_index("event_received_at", "event", ["received_at"], unique=False)
    op.create_table(
        "key",
        sa.Column("label", sa.String(length=100), nullable=False),
        sa.Column("wrapped", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", Utc(), nullable=False),
        sa.Column("erased_at", Utc(), nullable=True),
        sa.PrimaryKeyConstraint("label"),
    )
    op.create_table(
        "mail",
        sa.Column("id", sa.String(length=26), nullable=False),
        sa.Column("key", sa.String(length=200), nullable=False),
        sa.Column("kind", sa.String(length=40), nullable=False),
        sa.Column("label", sa.String(length=100), nullable=False),
        sa.Column("subscription_id", sa.String(length=50), nullable=True),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("facts", sa.LargeBinary(), nullable=True),
        sa.Column("recipient", sa.LargeBinary(), nullable=True),
        sa.Column("frozen", sa.LargeBinary(), nullable=True),
        sa.Column("message_id", sa.String(length=120), nullable=True),
        sa.Column("holder", sa.String(length=40), nullable=True),
        sa.Column("reply", sa.Text(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("created_at", Utc(), nullable=False),
        sa.Column("due_at", Utc(), nullable=True),
        sa.Column("tried_at", Utc(), nullable=True),
        sa.Column("sent_at", Utc(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("key"),
    )
    op.create_index(op.f("ix_mail_label"), "mail", ["label"], unique=False)
    op.create_index(op.f("ix_mail_subscription_id"), "mail", ["subscription_id"], unique=False)
    op.create_index("mail_created_at", "mail", ["created_at"], unique=False)
    op.create_index(
        "mail_doubt",
        "mail",
        ["tried_at"],
        unique=False,
        sqlite_where=sa.text("state = 'doubt'"),
        postgresql_where=sa.text("state = 'doubt'"),
    )
    op.create_index(
        "mail_due",
        "mail",
        ["due_at"],
        unique=False,
        sqlite_where=sa.text("state = 'owed'"),
        postgresql_where=sa.text("state = 'owed'"),
    )
    op.create_index(
        "mail_sending",
        "mail",
        ["holder"],
        unique=False,
        sqlite_where=sa.text("state = 'sending'"),
        postgresql_where=sa.text("state = 'sending'"),
    )
    op.create_table(
        "payment",
        sa.Column("id", sa.String(length=50), nullable=False),
        sa.Column("known", sa.JSON(), nullable=False),
        sa.Column("subscription_id", sa.String(length=50), nullable=True),
        sa.Column("status", sa.String(length=20), nullable=True),
        sa.Column("amount", sa.BigInteger(), nullable=True),
        sa.Column("currency", sa.String(length=3), nullable=True),
        sa.Column("fee", sa.BigInteger(), nullable=True),
        sa.Column("refunded", sa.BigInteger(), nullable=False),
        sa.Column("occurred_at", Utc(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_payment_subscription_id"), "payment", ["subscription_id"], unique=False)
    op.create_table(
        "plan",
        sa.Column("id", sa.String(length=50), nullable=False),
        sa.Column("known", sa.JSON(), nullable=False),
        sa.Column("name", sa.String(length=127), nullable=True),
        sa.Column("interval_unit", sa.String(length=5), nullable=True),
        sa.Column("interval_count", sa.Integer(), nullable=True),
        sa.Column("amount", sa.BigInteger(), nullable=True),
        sa.Column("currency", sa.String(length=3), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "read",
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("id", sa.String(length=50), nullable=False),
        sa.Column("due_at", Utc(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("kind", "id"),
    )
    op.create_index(op.f("ix_read_due_at"), "read", ["due_at"], unique=False)
    op.create_table(
        "redelivery",
        sa.Column("transmission_id", sa.String(length=50), nullable=False),
        sa.Column("event_id", sa.String(length=160), nullable=False),
        sa.Column("body_sha256", sa.String(length=64), nullable=False),
        sa.Column("received_at", Utc(), nullable=False),
        sa.PrimaryKeyConstraint("transmission_id"),
    )
    op.create_table(
        "refund",
        sa.Column("id", sa.String(length=50), nullable=False),
        sa.Column("known", sa.JSON(), nullable=False),
        sa.Column("payment_id", sa.String(length=50), nullable=False),
        sa.Column("kind", sa.String(length=10), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("occurred_at", Utc(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_refund_payment_id"), "refund", ["payment_id"], unique=False)
    op.create_table(
        "subscription",
        sa.Column("id", sa.String(length=50), nullable=False),
        sa.Column("known", sa.JSON(), nullable=False),
        sa.Column("customer_id", sa.String(length=40), nullable=True),
        sa.Column("person", sa.LargeBinary(), nullable=True),
        sa.Column("email_hash", sa.LargeBinary(), nullable=True),
        sa.Column("status", sa.String(length=20), nullable=True),
        sa.Column("status_at", Utc(), nullable=True),
        sa.Column("plan_id", sa.String(length=50), nullable=True),
        sa.Column("next_billing_at", Utc(), nullable=True),
        sa.Column("paid_through", Utc(), nullable=True),
        sa.Column("remind_at", Utc(), nullable=True),
        sa.Column("created_at", Utc(), nullable=False),
        sa.ForeignKeyConstraint(
            ["customer_id"],
            ["customer.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_subscription_customer_id"), "subscription", ["customer_id"], unique=False)
    op.create_index(op.f("ix_subscription_email_hash"), "subscription", ["email_hash"], unique=False)
    op.create_index(op.f("ix_subscription_plan_id"), "subscription", ["plan_id"], unique=False)
    op.create_index(
        "subscription_remind",
        "subscription",
        ["remind_at"],
        unique=False,
        sqlite_where=sa.text("remind_at IS NOT NULL"),
        postgresql_where=sa.text("remind_at IS NOT NULL"),
    )


def downgrade() -> None:

    op.drop_index(
        "subscription_remind",
        table_name="subscription",
        sqlite_where=sa.text("remind_at IS NOT NULL"),
        postgresql_where=sa.text("remind_at IS NOT NULL"),
    )
    op.drop_index(op.f("ix_subscription_plan_id"), table_name="subscription")
    op.drop_index(op.f("ix_subscription_email_hash"), table_name="subscription")
    op.drop_index(op.f("ix_subscription_customer_id"), table_name="subscription")
    op.drop_table("subscription")
    op.drop_index(op.f("ix_refund_payment_id"), table_name="refund")
    op.drop_table("refund")
    op.drop_table("redelivery")
    op.drop_index(op.f("ix_read_due_at"), table_name="read")
    op.drop_table("read")
    op.drop_table("plan")
    op.drop_index(op.f("ix_payment_subscription_id"), table_name="payment")
    op.drop_table("payment")
    op.drop_index(
        "mail_sending",
        table_name="mail",
        sqlite_where=sa.text("state = 'sending'"),
        postgresql_where=sa.text("state = 'sending'"),
    )
    op.drop_index(
        "mail_due",
        table_name="mail",
        sqlite_where=sa.text("state = 'owed'"),
        postgresql_where=sa.text("state = 'owed'"),
    )
    op.drop_index(
        "mail_doubt",
        table_name="mail",
        sqlite_where=sa.text("state = 'doubt'"),
        postgresql_where=sa.text("state = 'doubt'"),
    )
    op.drop_index("mail_created_at", table_name="mail")
    op.drop_index(op.f("ix_mail_subscription_id"), table_name="mail")
    op.drop_index(op.f("ix_mail_label"), table_name="mail")
    op.drop_table("mail")
    op.drop_table("key")
    op.drop_index("event_received_at", table_name="event")
    op.drop_index(
        "event_parked",
        table_name="event",
        sqlite_where=sa.text("state = 'parked'"),
        postgresql_where=sa.text("state = 'parked'"),
    )
    op.drop_index("event_label", table_name="event")
    op.drop_index(
        "event_due",
        table_name="event",
        sqlite_where=sa.text("state = 'received'"),
        postgresql_where=sa.text("state = 'received'"),
    )
    op.drop_table("event")
    op.drop_table("customer")
    op.drop_index(op.f("ix_change_subscription_id"), table_name="change")
    op.drop_table("change")
