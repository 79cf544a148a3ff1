"""Alembic's entry point: runs all pending revisions on the given database in one transaction."""

from alembic import context
from sqlalchemy import text

from pipeline.db.models import Base

LOCK = 7_364_201  # advisory lock, any unused number: roles that start together upgrade one after the other

database = context.config.attributes["database"]

with database.transaction() as session:
    if not database.is_sqlite:  # SQLite has only one writer
        session.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
    context.configure(
        connection=session.connection(),
        target_metadata=Base.metadata,
        render_as_batch=database.is_sqlite,  # on SQLite, a table is altered by creating it again
        transaction_per_migration=False,
    )
    with context.begin_transaction():
        context.run_migrations()
