"""customers' own data, consents, requests, letters, visits, audit, erasures, policies."""

import sqlalchemy as sa
from alembic import op

from pipeline.db.engine import Utc

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "audit",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at", Utc(), nullable=False),
        sa.Column("actor", sa.String(length=60), nullable=False),
        sa.Column("action", sa.String(length=60), nullable=False),
        sa.Column("purpose", sa.String(length=200), nullable=False),
        sa.Column("subject", sa.String(length=100), nullable=True),
        sa.Column("previous", sa.String(length=64), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_audit_at"), "audit", ["at"], unique=False)
    op.create_table(
        "consent",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("customer_id", sa.String(length=40), nullable=False),
        sa.Column("at", Utc(), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("given", sa.Boolean(), nullable=False),
        sa.Column("source", sa.String(length=40), nullable=False),
        sa.Column("text_version", sa.String(length=20), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_consent_at"), "consent", ["at"], unique=False)
    op.create_index(op.f("ix_consent_customer_id"), "consent", ["customer_id"], unique=False)
    op.create_table(
        "erasure",
        sa.Column("id", sa.String(length=26), nullable=False),
        sa.Column("customer_id", sa.String(length=40), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("at", Utc(), nullable=False),
        sa.Column("receipt", sa.JSON(), nullable=False),
        sa.Column("master_id", sa.String(length=16), nullable=False),
        sa.Column("complete_at", Utc(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_erasure_at"), "erasure", ["at"], unique=False)
    op.create_index(op.f("ix_erasure_customer_id"), "erasure", ["customer_id"], unique=False)
    op.create_table(
        "knock",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("expires_at", Utc(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_knock_expires_at"), "knock", ["expires_at"], unique=False)
    op.create_table(
        "letter",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("customer_id", sa.String(length=40), nullable=True),
        sa.Column("label", sa.String(length=100), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("request_id", sa.String(length=26), nullable=True),
        sa.Column("content", sa.LargeBinary(), nullable=True),
        sa.Column("received_at", Utc(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_letter_customer_id"), "letter", ["customer_id"], unique=False)
    op.create_index(op.f("ix_letter_label"), "letter", ["label"], unique=False)
    op.create_index(op.f("ix_letter_received_at"), "letter", ["received_at"], unique=False)
    op.create_table(
        "link",
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("customer_id", sa.String(length=40), nullable=False),
        sa.Column("purpose", sa.String(length=20), nullable=False),
        sa.Column("request_id", sa.String(length=26), nullable=True),
        sa.Column("details", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", Utc(), nullable=False),
        sa.Column("expires_at", Utc(), nullable=False),
        sa.Column("used_at", Utc(), nullable=True),
        sa.PrimaryKeyConstraint("sha256"),
    )
    op.create_index(op.f("ix_link_customer_id"), "link", ["customer_id"], unique=False)
    op.create_index(op.f("ix_link_expires_at"), "link", ["expires_at"], unique=False)
    op.create_table(
        "policy",
        sa.Column("id", sa.String(length=20), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("material", sa.Boolean(), nullable=False),
        sa.Column("proposed_at", Utc(), nullable=False),
        sa.Column("effective_at", Utc(), nullable=False),
        sa.Column("withdrawn_at", Utc(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_policy_effective_at"), "policy", ["effective_at"], unique=False)
    op.create_table(
        "request",
        sa.Column("id", sa.String(length=26), nullable=False),
        sa.Column("customer_id", sa.String(length=40), nullable=True),
        sa.Column("label", sa.String(length=100), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("source", sa.String(length=20), nullable=False),
        sa.Column("details", sa.LargeBinary(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("received_at", Utc(), nullable=False),
        sa.Column("due_at", Utc(), nullable=False),
        sa.Column("act_at", Utc(), nullable=True),
        sa.Column("done_at", Utc(), nullable=True),
        sa.Column("alarms", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_request_customer_id"), "request", ["customer_id"], unique=False)
    op.create_index(op.f("ix_request_received_at"), "request", ["received_at"], unique=False)
    op.create_index(
        "request_open",
        "request",
        ["due_at"],
        unique=False,
        sqlite_where=sa.text("done_at IS NULL"),
        postgresql_where=sa.text("done_at IS NULL"),
    )
    op.create_table(
        "sweep",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at", Utc(), nullable=False),
        sa.Column("counts", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_sweep_at"), "sweep", ["at"], unique=False)
    op.create_table(
        "visit",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at", Utc(), nullable=False),
        sa.Column("label", sa.String(length=100), nullable=False),
        sa.Column("action", sa.String(length=100), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("visitor", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_visit_at"), "visit", ["at"], unique=False)
    op.add_column("customer", sa.Column("person", sa.LargeBinary(), nullable=True))
    op.add_column("customer", sa.Column("email_hash", sa.LargeBinary(), nullable=True))
    op.add_column("customer", sa.Column("signed_up_at", Utc(), nullable=True))
    op.add_column("customer", sa.Column("adult_at", Utc(), nullable=True))
    op.add_column("customer", sa.Column("adult_text", sa.String(length=20), nullable=True))
    op.add_column("customer", sa.Column("marketing", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("customer", sa.Column("service", sa.Boolean(), server_default=sa.true(), nullable=False))
    op.add_column("customer", sa.Column("erase_at", Utc(), nullable=True))
    op.add_column("customer", sa.Column("erased_at", Utc(), nullable=True))
    op.create_index(op.f("ix_customer_email_hash"), "customer", ["email_hash"], unique=False)
    op.create_index(op.f("ix_customer_erase_at"), "customer", ["erase_at"], unique=False)
    op.add_column("event", sa.Column("customer_id", sa.String(length=40), nullable=True))
    op.create_index(
        "event_customer",
        "event",
        ["customer_id"],
        unique=False,
        sqlite_where=sa.text("customer_id IS NOT NULL"),
        postgresql_where=sa.text("customer_id IS NOT NULL"),
    )
    op.add_column("mail", sa.Column("customer_id", sa.String(length=40), nullable=True))
    op.create_index(op.f("ix_mail_customer_id"), "mail", ["customer_id"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_mail_customer_id"), table_name="mail")
    op.drop_column("mail", "customer_id")
    op.drop_index(
        "event_customer",
        table_name="event",
        sqlite_where=sa.text("customer_id IS NOT NULL"),
        postgresql_where=sa.text("customer_id IS NOT NULL"),
    )
    op.drop_column("event", "customer_id")
    op.drop_index(op.f("ix_customer_erase_at"), table_name="customer")
    op.drop_index(op.f("ix_customer_email_hash"), table_name="customer")
    op.drop_column("customer", "erased_at")
    op.drop_column("customer", "erase_at")
    op.drop_column("customer", "service")
    op.drop_column("customer", "marketing")
    op.drop_column("customer", "adult_text")
    op.drop_column("customer", "adult_at")
    op.drop_column("customer", "signed_up_at")
    op.drop_column("customer", "email_hash")
    op.drop_column("customer", "person")
    op.drop_index(op.f("ix_visit_at"), table_name="visit")
    op.drop_table("visit")
    op.drop_index(op.f("ix_sweep_at"), table_name="sweep")
    op.drop_table("sweep")
    op.drop_index(
        "request_open",
        table_name="request",
        sqlite_where=sa.text("done_at IS NULL"),
        postgresql_where=sa.text("done_at IS NULL"),
    )
    op.drop_index(op.f("ix_request_received_at"), table_name="request")
    op.drop_index(op.f("ix_request_customer_id"), table_name="request")
    op.drop_table("request")
    op.drop_index(op.f("ix_policy_effective_at"), table_name="policy")
    op.drop_table("policy")
    op.drop_index(op.f("ix_link_expires_at"), table_name="link")
    op.drop_index(op.f("ix_link_customer_id"), table_name="link")
    op.drop_table("link")
    op.drop_index(op.f("ix_letter_received_at"), table_name="letter")
    op.drop_index(op.f("ix_letter_label"), table_name="letter")
    op.drop_index(op.f("ix_letter_customer_id"), table_name="letter")
    op.drop_table("letter")
    op.drop_index(op.f("ix_knock_expires_at"), table_name="knock")
    op.drop_table("knock")
    op.drop_index(op.f("ix_erasure_customer_id"), table_name="erasure")
    op.drop_index(op.f("ix_erasure_at"), table_name="erasure")
    op.drop_table("erasure")
    op.drop_index(op.f("ix_consent_customer_id"), table_name="consent")
    op.drop_index(op.f("ix_consent_at"), table_name="consent")
    op.drop_table("consent")
    op.drop_index(op.f("ix_audit_at"), table_name="audit")
    op.drop_table("audit")
